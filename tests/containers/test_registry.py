"""Pushing to and pulling from a real registry that asks for a password."""

import io
import json
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.containers.conftest import Docker
from tests.containers.parts import installed

from headrace.deploy.docker.engine import Engine, EngineFailed
from headrace.deploy.docker.registry import Repository
from headrace.errors import Conflict, ModelRefused
from headrace.processes import free_port
from headrace.types import ServedVersion

PASSWORD = "canary-registry-3b2"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry on loopback with one user."""
    program = installed("docker-registry", "docker-registry")
    crypt = pytest.importorskip("crypt")
    folder = tmp_path_factory.mktemp("registry")
    hashed = crypt.crypt(PASSWORD, crypt.mksalt(crypt.METHOD_BLOWFISH))
    (folder / "users").write_text(f"ada:{hashed}\n")
    port = free_port()
    config = {
        "version": 0.1, "log": {"level": "warn"}, "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"}, "auth": {"htpasswd": {"realm": "test", "path": str(folder / "users")}},
    }  # fmt: skip
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while not _asks_for_password(port):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


def _asks_for_password(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return False


def engine_with(docker: Docker, registry: str, folder: Path, password: str) -> Engine:
    """Return the engine with a credential helper that knows the registry's password."""
    folder.mkdir()
    helper = folder / "docker-credential-test"
    answer = json.dumps({"ServerURL": registry, "Username": "ada", "Secret": password})
    helper.write_text(f"#!{sys.executable} -S\nprint({answer!r})\n")
    helper.chmod(0o755)
    (folder / "config.json").write_text(json.dumps({"credHelpers": {registry: "test"}}))
    path = f"{folder}:{docker.engine.variables['PATH']}"
    return Engine(docker.engine.program, {**docker.engine.variables, "DOCKER_CONFIG": str(folder), "PATH": path})


@pytest.fixture
def repository(docker: Docker, registry: str, tmp_path: Path) -> Repository:
    engine = engine_with(docker, registry, tmp_path / "docker", PASSWORD)
    return Repository(engine, f"{registry}/team/{tmp_path.name.replace('_', '-')}")


def small_image(docker: Docker, labels: dict[str, str]) -> str:
    """Return the id of an image that is as small as can be, with labels."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"), io.BytesIO())
    changes = [word for name, value in labels.items() for word in ("--change", f"LABEL {name}={value}")]
    made = subprocess.run(
        [docker.engine.program, "import", *changes, "-"], input=content.getvalue(), check=True, capture_output=True,
        env=dict(docker.engine.variables),
    )  # fmt: skip
    return made.stdout.decode().strip()


def labels_of(version: ServedVersion) -> dict[str, str]:
    said = {
        "component": version.component, "version": str(version.version), "baseline": version.baseline,
        "seal": version.seal,
    }  # fmt: skip
    return {f"org.headrace.{name}": value for name, value in said.items()}


def test_an_image_is_pushed_once_and_comes_back_by_its_digest(
    docker: Docker, repository: Repository, sealed: ServedVersion
) -> None:
    image = docker.engine.image(small_image(docker, labels_of(sealed)))
    assert repository.digest("v1") is None
    stored = repository.push(image, 1)
    assert (stored.tag, repository.digest("v1")) == ("v1", stored.digest)
    assert repository.push(docker.engine.image(image.id), 1) == stored
    docker.engine.run("image", "rm", "--force", image.id)
    back = repository.pull(stored, sealed)
    assert back.id == image.id
    assert stored.reference in back.digests


def test_a_tag_that_is_taken_is_not_overwritten(docker: Docker, repository: Repository, sealed: ServedVersion) -> None:
    stored = repository.push(docker.engine.image(small_image(docker, labels_of(sealed))), 1)
    other = docker.engine.image(small_image(docker, {**labels_of(sealed), "more": "different"}))
    with pytest.raises(Conflict, match="nothing was pushed"):
        repository.push(other, 1)
    assert repository.digest("v1") == stored.digest


def test_a_tag_that_was_moved_is_refused(docker: Docker, repository: Repository, sealed: ServedVersion) -> None:
    stored = repository.push(docker.engine.image(small_image(docker, labels_of(sealed))), 1)
    other = small_image(docker, {**labels_of(sealed), "more": "moved"})
    repository.engine.run("tag", other, f"{repository.name}:v1")
    repository.engine.run("push", f"{repository.name}:v1")
    with pytest.raises(Conflict, match=r"The tag .*:v1 was moved"):
        repository.pull(stored, sealed)


def test_an_image_of_another_baseline_is_refused(docker: Docker, repository: Repository, sealed: ServedVersion) -> None:
    stored = repository.push(docker.engine.image(small_image(docker, labels_of(sealed))), 1)
    with pytest.raises(ModelRefused, match="its baseline is bbbbbbbbbbbb, not cccccccccccc"):
        repository.pull(stored, replace(sealed, baseline="c" * 64))


def test_a_wrong_password_is_told_and_not_shown(
    docker: Docker, registry: str, sealed: ServedVersion, tmp_path: Path
) -> None:
    engine = engine_with(docker, registry, tmp_path / "wrong", "wrong-" + PASSWORD)
    repository = Repository(engine, f"{registry}/team/refused")
    image = docker.engine.image(small_image(docker, labels_of(sealed)))
    with pytest.raises(EngineFailed) as caught:
        repository.push(image, 1)
    assert "docker login" in caught.value.remedy
    assert PASSWORD not in caught.value.fact
