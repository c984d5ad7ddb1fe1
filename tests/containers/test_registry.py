"""Pushing to and pulling from a real registry that asks for a password."""

import io
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.containers.conftest import PASSWORD, Docker, engine_with

from headrace.deploy.docker.engine import EngineFailed
from headrace.deploy.docker.registry import Repository
from headrace.errors import Conflict, ModelRefused
from headrace.types import ServedVersion


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
