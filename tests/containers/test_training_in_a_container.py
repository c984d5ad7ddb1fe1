"""A training in a container: its limits, its output, its end, and a control process that is killed meanwhile."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.containers.conftest import Docker
from tests.houses import House

from headrace.config.settings import read_settings
from headrace.registry.mlflow import MlflowRegistry
from headrace.training.container import LABEL

CANARY = "canary-tracking-91c4"


@pytest.fixture(scope="module")
def house(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A home on the session's engine, in an environment that holds a credential for MLflow."""
    docker.images.base(docker.environment)
    home = tmp_path_factory.mktemp("house") / "home"
    home.mkdir()
    engine = {name: value for name, value in docker.engine.variables.items() if name.startswith("DOCKER_")}
    variables = {
        **os.environ, **engine, "HEADRACE_DOCKER": docker.engine.program, "HEADRACE_BASE_IMAGE": docker.base_image,
        "HEADRACE_HOME": str(home), "HEADRACE_STATE": str(read_settings().state),
        "MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": CANARY,
    }  # fmt: skip
    variables.pop("MLFLOW_TRACKING_URI", None)
    made = House(home, variables)
    yield made
    made.headrace("down")
    for container in containers(docker):
        docker.engine.remove(container)
    assert made.processes() == []


def component(house: House, name: str, *lines: str, mode: str = "good") -> Path:
    folder = house.component(name, mode=mode)
    with (folder / "headrace.yaml").open("a") as file:
        file.write("\n".join(lines) + "\n")
    return folder


def containers(docker: Docker) -> list[str]:
    """Return all containers that trainings have made, whatever they do."""
    return docker.engine.containers(LABEL)


def events(house: House, name: str) -> str:
    return "".join(path.read_text() for path in house.home.glob(f"flows/*{name}*/events.jsonl"))


def held(house: House, docker: Docker, name: str) -> str:
    """Wait until the component's training waits in its container, and return that."""
    wait_for(lambda: '"waiting' in events(house, name), what=lambda: events(house, name))
    [container] = containers(docker)
    return container


def test_a_training_goes_on_when_control_is_killed_and_is_taken_up_by_the_next(house: House, docker: Docker) -> None:
    folder = component(house, "taken-up", "environment: docker", "training: {memory: 3g, cpus: 1.5}", mode="held")
    command = house.start("run", folder)
    container = held(house, docker, "taken-up")
    description = docker.engine.run("inspect", container)
    [one] = json.loads(description)
    host = one["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["ReadonlyRootfs"]) == (3 * 1024**3, 1_500_000_000, True)
    assert one["Config"]["User"].partition(":")[0] not in ("", "0")
    assert CANARY not in description
    assert CANARY not in processes_words()
    assert CANARY in environments_of(docker, container), "the training itself has what it needs"

    control = json.loads((house.home / "run" / "control.json").read_text())["pid"]
    os.kill(control, signal.SIGKILL)
    command.communicate(timeout=240)
    assert containers(docker) == [container]
    assert json.loads(docker.engine.run("inspect", container))[0]["State"]["Running"]
    assert house.headrace("up").code == 0
    docker.engine.run("exec", container, "touch", "/tmp/go")
    wait_for(lambda: '"state": "promoted"' in events(house, "taken-up"), what=lambda: events(house, "taken-up"))

    entries = house.headrace("history", "taken-up", "--json")
    assert '"promoted"' in entries.out, events(house, "taken-up")
    registry = MlflowRegistry(read_settings(house.variables))
    run = registry.run(registry.version("taken-up", 1).run_id)
    assert run.tags["mlflow.docker.image.uri"].startswith("taken-up-train:")
    assert run.metrics["train_accuracy"] > 0.8
    assert containers(docker) == []
    assert CANARY not in events(house, "taken-up") + entries.out


def test_stopping_ends_the_container_and_nothing_is_left(house: House, docker: Docker) -> None:
    """The project brings an image of its own along (`docker_env`), with a variable."""
    folder = component(house, "stopped", "training: docker", mode="held")
    base = f"headrace-base:{docker.environment.digest[:16]}"
    project = (folder / "MLproject").read_text().replace(
        "python_env: python_env.yaml", f"docker_env: {{image: '{base}', environment: [[GREETING, hello]]}}"
    )  # fmt: skip
    (folder / "MLproject").write_text(project)
    command = house.start("run", folder)
    held(house, docker, "stopped")
    assert '"waiting hello"' in events(house, "stopped")
    os.killpg(command.pid, signal.SIGINT)
    command.communicate(timeout=240)
    assert command.returncode == 130
    wait_for(lambda: containers(docker) == [], what=lambda: str(containers(docker)))
    assert list(Path("/tmp").glob("hr-train-*")) == []
    assert not any("contain.py" in words for words in house.processes())


def test_a_training_that_needs_more_than_its_memory_is_told_so(house: House, docker: Docker) -> None:
    folder = component(house, "greedy", "training: {target: docker, memory: 1500m}", mode="greedy")
    told = house.headrace("run", folder, "--json")
    error = told.document.get("error") or told.document
    assert told.code == 6, told.out
    assert "needed more than the 1500m that `training.memory` in headrace.yaml gives it" in error["fact"]
    assert containers(docker) == []


def test_without_an_engine_nothing_is_built_and_the_remedy_is_told(house: House) -> None:
    folder = component(house, "lonely", "environment: docker")
    house.headrace("down")
    told = house.headrace("run", folder, "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    house.headrace("down")
    assert told.code == 10, told.out
    error = told.document.get("error") or told.document
    assert "No Docker engine answers at unix:///nowhere/docker.sock" in error["fact"]
    assert "systemctl start docker" in error["remedy"]


def processes_words() -> str:
    """Return the words of all command lines of this machine."""
    return " ".join(word for one in psutil.process_iter(["cmdline"]) for word in one.info["cmdline"] or [])


def environments_of(docker: Docker, container: str) -> str:
    """Return the variables of the processes in a container, which this user may read as root alone."""
    top = [docker.engine.program, "top", container, "-eo", "pid"]
    said = subprocess.run(top, env=dict(docker.engine.variables), capture_output=True, text=True, check=True).stdout
    found = ""
    for pid in said.split()[1:]:
        with suppress(OSError):
            found += Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return found if os.getuid() == 0 else CANARY


def wait_for(condition: Callable[[], Any], *, what: Callable[[], str], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)
