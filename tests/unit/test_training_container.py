"""What a training's container is made of, as far as it can be said without an engine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.config.component import Component, EnvironmentKind, Training
from headrace.config.settings import Settings
from headrace.deploy.docker.engine import Engine
from headrace.deploy.images.for_training import options
from headrace.errors import InvalidConfig, Unavailable
from headrace.training.contain import mount
from headrace.training.container import Container, errand, reached
from headrace.training.project import read_project

CANARY = "canary-77d0"
CONTAINER = Container(
    "docker", {"DOCKER_HOST": "unix:///d.sock"}, "sha256:1", "a-train:1", "10001:10001", ("--network", "bridge"),
    "http://127.0.0.1:5000", variables={"GREETING": "hello"},
)  # fmt: skip


def test_what_is_passed_on_is_named_in_the_plan_and_its_value_is_not(tmp_path: Path) -> None:
    env = {"PATH": "/bin", "HOME": "/home/ada", "MLFLOW_TRACKING_PASSWORD": CANARY, "MLFLOW_RUN_ID": "r"}
    work = errand(CONTAINER, tmp_path / "train", command="python train.py", env=env, reads=[Path("/data/a.csv")])
    text = (tmp_path / "train" / "container.json").read_text()
    plan = json.loads(text)
    assert CANARY not in text
    assert CANARY not in " ".join(map(str, [*work.command, *work.end]))
    assert {"MLFLOW_TRACKING_PASSWORD", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "GREETING"} <= set(plan["pass"])
    assert not {"PATH", "HOME"} & set(plan["pass"])
    assert (plan["tracking"], plan["reads"]) == ("127.0.0.1:5000", ["/data/a.csv"])
    assert work.env["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{plan['port']}"
    assert [*work.end] == [*work.command, "--end"]


def test_a_repeat_has_the_same_container_and_other_work_another(tmp_path: Path) -> None:
    names = set()
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        errand(CONTAINER, folder, command="x", env={}, reads=[])
        names.add(json.loads((folder / "container.json").read_text())["name"])
    assert len(names) == 2


@pytest.mark.parametrize(
    ("tracking", "network", "uri", "carried"),
    [
        ("http://localhost:5000", "none", "http://127.0.0.1:15000", "localhost:5000"),
        ("http://ada:x@127.0.0.1:5000/ml", "bridge", "http://ada:x@127.0.0.1:15000/ml", "127.0.0.1:5000"),
        ("http://127.0.0.1:5000", "host", "http://127.0.0.1:5000", ""),
        ("https://mlflow.example.com", "bridge", "https://mlflow.example.com", ""),
    ],
)
def test_a_server_on_loopback_is_carried_in_and_others_are_reached_directly(
    tracking: str, network: str, uri: str, carried: str
) -> None:
    assert reached(tracking, ["--network", network]) == (uri, carried)


@pytest.mark.parametrize(
    ("tracking", "fact"),
    [
        ("sqlite:////home/ada/mlflow.db", "which a container cannot reach"),
        ("https://mlflow.example.com", r"`training\.network: none` .* no way to it"),
    ],
)
def test_a_store_that_cannot_be_reached_is_refused(tracking: str, fact: str) -> None:
    with pytest.raises(InvalidConfig, match=fact):
        reached(tracking, ["--network", "none"])


def test_docker_env_is_read(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text(
        "docker_env: {image: mine, volumes: ['/a:/b'], environment: [[GREETING, hello], TOKEN, [N, 3]]}\n"
    )
    found = read_project(tmp_path).docker
    assert found is not None
    assert (found.image, found.volumes) == ("mine", ("/a:/b",))
    assert found.variables == {"GREETING": "hello", "TOKEN": None, "N": "3"}


@pytest.mark.parametrize("text", ["docker_env: mine\n", "docker_env: {}\n", "docker_env: {image: a, volumes: x}\n"])
def test_a_docker_env_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLproject").write_text(text)
    with pytest.raises(InvalidConfig, match="`docker_env` is no section with an `image`"):
        read_project(tmp_path)


def test_where_a_component_is_trained() -> None:
    component = Component(component="a")
    docker = component.model_copy(update={"environment": EnvironmentKind.DOCKER})
    assert not component.is_trained_in_container
    assert docker.is_trained_in_container
    assert not docker.model_copy(update={"training": Training(target="process")}).is_trained_in_container
    written = Component.model_validate({"component": "a", "training": "docker"})
    assert written.is_trained_in_container
    assert Component.model_validate(written.as_json()) == written


def engine(tmp_path: Path, runtimes: str) -> Engine:
    """Return an engine that says which runtimes it has."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\necho '{runtimes}'\n")
    program.chmod(0o755)
    return Engine(str(program), {"PATH": "/nowhere"})


def test_gpus_are_passed_on_where_there_are_some_and_the_engine_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.deploy.images.for_training.has_gpu", lambda _: True)
    settings = Settings(tmp_path, tmp_path)
    able = engine(tmp_path, '{"nvidia": {}, "runc": {}}')
    heard: list[str] = []
    driver = ["--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    assert options(able, settings, Training(), tell=heard.append)[-4:] == ["--gpus", "all", *driver]
    assert options(able, settings, Training(gpus=2), tell=heard.append)[-4:] == ["--gpus", "2", *driver]
    assert "--gpus" not in options(able, settings, Training(gpus="none"), tell=heard.append)
    assert heard == []
    unable = engine(tmp_path, '{"runc": {}}')
    assert "--gpus" not in options(unable, settings, Training(), tell=heard.append)
    assert "NVIDIA Container Toolkit" in heard[0]
    with pytest.raises(Unavailable, match=r"`training\.gpus: 1`"):
        options(unable, settings, Training(gpus=1), tell=heard.append)


def test_limits_are_the_engines_options(tmp_path: Path) -> None:
    wanted = Training(memory="4g", cpus=1.5, gpus="none", network="none")
    said = options(Engine("docker", {}), Settings(tmp_path, tmp_path), wanted, tell=print)
    assert " ".join(said) == "--network none --shm-size 2g --memory 4g --memory-swap 4g --cpus 1.5"


def test_a_remote_engine_is_refused_where_files_are_shared() -> None:
    far = Engine("docker", {"DOCKER_HOST": "ssh://ada@gpu.example.com"})
    with pytest.raises(Unavailable, match=r"the engine at ssh://ada@gpu\.example\.com is on another"):
        far.require_local("A training reads its data on this machine")
    replace(far, variables={"DOCKER_HOST": "unix:///var/run/docker.sock"}).require_local("It does")


def test_a_mounts_paths_may_hold_commas_and_quotes() -> None:
    assert mount("/a", "/b") == "type=bind,src=/a,dst=/b"
    assert mount('/a,"c"', "/b", "readonly") == 'type=bind,"src=/a,""c""",dst=/b,readonly'
