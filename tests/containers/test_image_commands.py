"""`headrace image`: build, push, pull and the templates, on a real engine and a real registry."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.containers.conftest import Docker
from typer.testing import CliRunner

from headrace import wiring
from headrace.cli.main import app
from headrace.config.component import Component
from headrace.config.settings import read_settings
from headrace.deploy.docker.registry import Repository
from headrace.deploy.images.build import write_templates
from headrace.errors import ModelRefused, NotFound
from headrace.lifecycle.versions import VersionRecord, remember, version_folder
from headrace.provenance.baseline import Draft, seal
from headrace.provenance.code import Code
from headrace.provenance.sign import own_signer
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Json, ServedVersion


@pytest.fixture
def installed(
    docker: Docker, repository: Repository, sealed: ServedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An installation with one version, on the session's engine; returns its model folder."""
    state, small = tmp_path / "state", tmp_path / "small"
    state.mkdir()
    (state / "images").symlink_to(docker.settings.state / "images")  # What is laid out there is laid out once.
    write_templates(small)
    base = small / "base.Dockerfile"
    # What goes into a registry here need not train: the packages would be compressed and sent for minutes.
    base.write_text(base.read_text().replace("COPY environment/ /opt/environment/\n", ""))
    for name, value in {
        **repository.engine.variables,
        "HEADRACE_IMAGE_TEMPLATES": str(small),
        "HEADRACE_DOCKER": docker.engine.program,
        "HEADRACE_BASE_IMAGE": docker.base_image,
        "HEADRACE_STATE": str(state),
        "HEADRACE_HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    runs = MemoryRegistry()
    monkeypatch.setattr(wiring, "registry", lambda _: runs)
    settings = read_settings().prepare()
    rooms = wiring.rooms(settings)
    model = shutil.copytree(sealed.model, tmp_path / "model")
    run = runs.start_run("digits", key="r", tags={})
    draft = Draft(
        component="digits", at=datetime(2026, 1, 1, tzinfo=UTC), actor=Actor("person:ada"), run_id=run.id, model=model,
        code=Code("/nowhere", "a" * 40), lock=docker.environment.lock.text, lock_digest=docker.environment.digest,
        python=docker.environment.lock.python, parameters={},
    )  # fmt: skip
    made = seal(draft, version_folder(rooms, "digits", 1) / "baseline", own_signer(settings.keys))
    python = str(docker.environment.python)
    config = Component(component="digits").as_json()
    remember(rooms, VersionRecord("digits", 1, run.id, "models:/m", str(model), made.model.digest, python, made.digest,
                                  str(tmp_path), config))  # fmt: skip
    return model


def call(*arguments: str) -> dict[str, Json]:
    result = CliRunner().invoke(app, [*arguments, "--json"], standalone_mode=False)
    if result.exception:
        raise result.exception
    document: dict[str, Json] = json.loads(result.stdout)
    return document


def test_a_version_goes_into_a_registry_and_comes_back_by_its_signed_digest(
    installed: Path, docker: Docker, repository: Repository
) -> None:
    with pytest.raises(NotFound, match="No push"):
        call("image", "pull", "digits/1", repository.name)
    built = call("image", "build", "digits/1")
    assert docker.engine.image(str(built["image"])).labels["org.headrace.baseline"] == built["baseline"]
    pushed = call("image", "push", "digits/1", repository.name)
    assert pushed["image"] == built["image"]
    assert call("image", "push", "digits/1", repository.name) == pushed, "a repeat changes nothing"
    docker.engine.run("rmi", "--force", str(built["image"]))
    assert call("image", "pull", "digits/1", repository.name)["reference"] == pushed["reference"]


def test_a_changed_model_gets_no_image(installed: Path) -> None:
    [weights] = installed.rglob("*.pt2")
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ModelRefused, match=weights.name):
        call("image", "build", "digits/1")


def test_own_templates_are_used(
    installed: Path, docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "templates"
    call("image", "templates", str(folder))
    assert {path.stem for path in folder.iterdir()} == {"base", "train", "serve", "torchserve"}
    assert call("image", "templates", str(folder))["written"] == []
    with (folder / "serve.Dockerfile").open("a") as template:
        template.write("LABEL org.example.team=ada\n")
    monkeypatch.setenv("HEADRACE_IMAGE_TEMPLATES", str(folder))
    built = call("image", "build", "digits/1")
    assert docker.engine.image(str(built["image"])).labels["org.example.team"] == "ada"


def test_a_base_image_that_moved_under_its_name_is_built_on(installed: Path, docker: Docker, tmp_path: Path) -> None:
    told: list[str] = []
    images = replace(docker.images, templates=tmp_path / "small", base_image="hr-moved:1", progress=told.append)
    docker.engine.run("tag", docker.base_image, "hr-moved:1")
    try:
        assert images.base(docker.environment) == images.base(docker.environment)
        (tmp_path / "Dockerfile").write_text(f"FROM {docker.base_image}\nLABEL org.example.moved=yes\n")
        docker.engine.build(tmp_path / "small", tmp_path / "Dockerfile", tag="hr-moved:1", arguments={}, labels={})
        assert images.base(docker.environment).labels["org.example.moved"] == "yes"
    finally:
        docker.engine.run("rmi", "--force", "hr-moved:1")
    assert sum("images are built on that" in line for line in told) == 1
