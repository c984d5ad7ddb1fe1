"""The files of `headrace init --compose`: valid, without secrets in them, and backed up and restored by one command."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from headrace.deploy.compose.write import write_compose
from headrace.errors import Conflict

#: Stands in for Docker: `exec` and `run` do what they are told here, with /data where the test has it.
DOCKER = """#!/bin/sh
shift
echo "$@" >> "$LOG"
case "$1" in
  exec|run) ;;
  *) exit 0 ;;
esac
while [ "${1#postgres}${1#s3}${1#serve}${1#control}" = "$1$1$1$1" ]; do shift; done
place="$DATA/$1"
[ "$1" = s3 ] || place="$DATA/volumes"
shift
case "$1" in
  pg_dump) for last in "$@"; do :; done; cat "$DATA/databases/$last"; exit 0 ;;
  pg_isready) exit 0 ;;
  pg_restore) for last in "$@"; do :; done; cat > "$DATA/databases/$last"; exit 0 ;;
  -C) exec tar $(echo "$@" | sed "s#/data#$place#g") ;;
  sh) exec sh -c "$(echo "$3" | sed "s#/data#$place#g")" ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_compose(tmp_path / "production")
    return tmp_path / "production"


def test_secrets_are_files_that_only_this_user_reaches(folder: Path) -> None:
    made = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    document = yaml.safe_load((folder / "compose.yaml").read_text())
    assert set(document["secrets"]) == set(made)
    passwords = {made[f"{name}_password"] for name in ("owner", "worker", "mlflow")}
    assert len(passwords) == 3
    for path in folder.iterdir():
        if path.is_file():
            assert not any(password in path.read_text() for password in passwords)
    assert made["worker_password"] in made["worker_database_url"]
    keys = [re.findall(r"= *(\S+)", made[name]) for name in ("s3_credentials", "s3_reader_credentials")]
    assert made["s3_keys"] == ",".join(f'"{name},{secret}"' for name, secret in keys)
    assert keys[0] != keys[1]
    assert "secrets/" in (folder / ".gitignore").read_text()


def test_each_container_gets_only_the_secrets_of_its_work(folder: Path) -> None:
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    given = {name: set(one.get("secrets", ())) for name, one in services.items()}
    assert given["control"] == {"worker_database_url"}
    assert given["serve"] == {"worker_database_url", "s3_credentials"}
    for reader in ("train", "monitor"):
        assert given[reader] == {"worker_database_url", "s3_reader_credentials"}
    for name in ("train", "serve", "monitor"):
        named = Path(services[name]["environment"]["HEADRACE_S3_CREDENTIALS_FILE"]).name
        assert named in given[name], "what a worker is told of is what it has"
    assert "HEADRACE_PREDICTIONS_URL" not in services["control"]["environment"]
    assert given["mlflow"] == {"mlflow_database_url", "s3_credentials"}
    assert given["prepare"] == {"owner_database_url"}
    assert given["s3"] == {"s3_keys"}
    assert given["door"] == set()


def test_a_second_time_keeps_files_and_secrets(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "secrets").iterdir()}
    with pytest.raises(Conflict, match=re.escape(str(folder / "compose.yaml"))):
        write_compose(folder)
    (folder / "compose.yaml").write_text("mine")
    (folder / "secrets" / "worker_database_url").unlink()
    write_compose(folder, force=True)
    assert (folder / "compose.yaml").read_text() != "mine"
    assert {path: path.read_bytes() for path in (folder / "secrets").iterdir()} == before


def test_what_was_backed_up_comes_back_and_a_damaged_backup_is_refused(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    files = {
        "s3/headrace/artifacts/model": b"weights", "volumes/home/versions/record": b"v1",
        "volumes/state/keys/private": b"key", "volumes/state/installations/mark": b"",
        "volumes/state/environments/lock": b"numpy", "databases/headrace": b"ledger", "databases/mlflow": b"runs",
    }  # fmt: skip
    for name, content in files.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DATA": str(data), "LOG": str(tmp_path / "log")}

    def run(script: str, kept: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [folder / script, kept], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    password = (folder / "secrets" / "owner_password").read_text()
    done = run("backup.sh", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert run("backup.sh", tmp_path / "kept").returncode == 1
    for name in files:
        (data / name).write_bytes(b"lost")
    shutil.rmtree(data / "volumes" / "state" / "installations")
    (data / "s3" / "headrace" / "later").write_bytes(b"x")
    (folder / "secrets" / "owner_password").write_text("lost")
    shutil.copytree(tmp_path / "kept", tmp_path / "damaged")
    with (tmp_path / "damaged" / "objects.tar").open("ab") as file:
        file.write(b"!")
    assert run("restore.sh", tmp_path / "damaged").returncode != 0
    assert (data / "databases" / "headrace").read_bytes() == b"lost"
    done = run("restore.sh", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    assert {name: (data / name).read_bytes() for name in files} == files
    assert not (data / "s3" / "headrace" / "later").exists()
    assert (folder / "secrets" / "owner_password").read_text() == password
