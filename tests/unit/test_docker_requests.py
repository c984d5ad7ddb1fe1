"""What is asked of an engine: by a stand-in for the docker program that knows images and writes down what it hears."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.docker import launch
from headrace.deploy.docker.engine import Engine, Image
from headrace.deploy.docker.target import DockerTarget
from headrace.deploy.images.build import Images
from headrace.deploy.images.context import Contexts
from headrace.deploy.torchserve.container import ContainerLauncher
from headrace.environment.base import Environment, Lock
from headrace.errors import Unavailable
from headrace.types import Resources, ServedVersion, Stage

DOCKER = """#!{python} -S
import json, os, sys
here, words = os.path.dirname(os.path.abspath(__file__)), sys.argv[1:]
with open(os.path.join(here, "heard"), "a") as heard:
    heard.write(json.dumps(words) + "\\n")
images = os.path.join(here, "images.json")
known = json.load(open(images)) if os.path.exists(images) else dict()
if words[:2] == ["image", "inspect"]:
    if words[2] not in known:
        sys.exit("Error: No such image: " + words[2])
    print(json.dumps([known[words[2]]]))
elif words[0] == "build":
    said = [words[place + 1] for place, word in enumerate(words) if word == "--label"]
    labels = dict(one.split("=", 1) for one in said)
    known[words[words.index("--tag") + 1]] = dict(
        Id="sha256:%064x" % (1000 + len(open(os.path.join(here, "heard")).readlines())),
        RootFS=dict(), Config=dict(Labels=labels))
    json.dump(known, open(images, "w"))
elif words[0] == "info":
    print(open(os.path.join(here, "runtimes")).read())
elif words[0] == "run":
    print("c0ffee")
"""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "runtimes").write_text('{"runc": {}}')
    program = folder / "docker"
    program.write_text(DOCKER.replace("{python}", sys.executable))
    program.chmod(0o755)
    return Engine(str(program), {"PATH": "/nowhere", "DOCKER_HOST": "unix:///nowhere"})


def heard(engine: Engine, verb: str) -> list[list[str]]:
    path = Path(engine.program).with_name("heard")
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [words for words in lines if words[0] == verb]


def named(engine: Engine, name: str, number: int) -> None:
    """Have the engine know an image by a name; none if the number is 0."""
    path = Path(engine.program).with_name("images.json")
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = {"Id": f"sha256:{str(number) * 64}", "RootFS": {}, "Config": {}}
    if not number:
        del known[name]
    path.write_text(json.dumps(known))


@pytest.fixture
def base(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Image], list[str]]:
    """What builds the base image, and what it tells."""
    monkeypatch.setattr(Contexts, "environment", lambda *_: tmp_path)
    told: list[str] = []
    images = Images(engine, Settings(tmp_path, tmp_path), base_image="mine:1", progress=told.append)
    environment = Environment("e" * 64, tmp_path / "python", Lock("e" * 64, "", "3.11.7"))
    return lambda: images.base(environment), told


def test_a_name_that_is_another_image_now_is_built_on_again_and_told(
    engine: Engine, base: tuple[Callable[[], Image], list[str]]
) -> None:
    build, told = base
    named(engine, "mine:1", 1)
    first = build()
    assert build() == first
    assert len(heard(engine, "build")) == 1
    named(engine, "mine:1", 2)
    moved = build()
    assert moved.id != first.id
    assert build() == moved
    assert len(heard(engine, "build")) == 2
    assert told[1] == "mine:1 was sha256:111111111111 and is sha256:222222222222 now: images are built on that"


def test_a_name_that_the_engine_does_not_know_moved_nowhere(
    engine: Engine, base: tuple[Callable[[], Image], list[str]]
) -> None:
    """The build itself fetches it, without keeping the name; or it was removed since."""
    build, told = base
    first = build()
    assert build() == first
    named(engine, "mine:1", 1)
    pulled = build()
    named(engine, "mine:1", 0)
    assert build() == pulled
    assert len(heard(engine, "build")) == 2
    assert not any("now" in line for line in told)


def contained(engine: Engine, folder: Path, limits: Resources) -> list[str]:
    """Start a worker's container as the `docker` target does, and return what the engine heard."""
    target = DockerTarget(Settings(folder, folder), engine, lambda _: "")
    version = ServedVersion("digits", 1, folder, folder / "python", limits=limits)
    image = Image("sha256:1", (), {}, "10001:10001", (), ())
    program = target._contained(version, Stage.PRODUCTION, image).python
    plan = json.loads((program.parent / f"{program.name.removeprefix('python-')}.json").read_text())
    container = launch.Container(plan, str(folder), ["--threads", "1"])
    container.waiting.wait(60)
    container.telling.wait(60)
    [words] = heard(engine, "run")
    return words


@pytest.mark.parametrize("gpus", ["all", "2"])
def test_a_stages_gpus_are_asked_of_the_engine(engine: Engine, tmp_path: Path, gpus: str) -> None:
    Path(engine.program).with_name("runtimes").write_text('{"nvidia": {}, "runc": {}}')
    words = contained(engine, tmp_path, Resources("2g", 0.0, gpus))
    options = words[: words.index("sha256:1")]
    assert options[-4:] == ["--gpus", gpus, "--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    assert options[options.index("--network") + 1] == "none"


def test_a_stage_without_gpus_asks_for_none(engine: Engine, tmp_path: Path) -> None:
    assert "--gpus" not in contained(engine, tmp_path, Resources("2g"))


def test_gpus_that_the_engine_cannot_give_are_refused_before_anything_starts(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"NVIDIA Container Toolkit, .* `stages\.production\.limits\.gpus: all`"
    ) as one:
        contained(engine, tmp_path, Resources(gpus="all"))
    assert "nvidia-ctk runtime configure" in one.value.remedy
    assert heard(engine, "run") == []
    launcher = ContainerLauncher(Settings(tmp_path, tmp_path), engine)
    version = ServedVersion("digits", 1, tmp_path, tmp_path / "python", limits=Resources(gpus="1"))
    route = Route("digits", Stage.DEV, [version], {1: 1.0})
    assert launcher.fit(route, version) != launcher.fit(route, replace(version, limits=Resources()))


def test_a_component_that_asks_for_gpus_wants_an_environment_for_them() -> None:
    def wants(**sections: object) -> bool:
        return Component.model_validate({"component": "a", "environment": "docker", **sections}).wants_gpus

    assert not wants()
    assert not wants(training={"gpus": "none"}, stages={"dev": {"limits": {"gpus": "none"}}})
    assert wants(training={"gpus": 1})
    assert wants(stages={"production": {"limits": {"gpus": "all"}}})
