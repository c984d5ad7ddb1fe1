"""TorchServe in a container of the component's environment, on a real engine."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.containers.asking import asking
from tests.containers.conftest import Docker
from tests.containers.torchserve_cases import cases, write

from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.torchserve import record
from headrace.deploy.torchserve.container import PYTHON, ContainerLauncher
from headrace.deploy.torchserve.log import first_cause
from headrace.deploy.torchserve.server import Server
from headrace.deploy.torchserve.target import TorchServeTarget
from headrace.errors import ModelRefused, Unavailable
from headrace.types import Resources, ServedVersion, Stage

CANARY = "canary-torchserve-4c7"
JAVA_IMAGE = "headrace-test-java"
#: A template that a user owns: headrace's own, with Java from another image.
TEMPLATE = f"""
ARG BASE
FROM {JAVA_IMAGE} AS java
FROM ${{BASE}}
COPY --from=java / /opt/java/
ENV PATH=/opt/java/bin:$PATH
COPY torchserve/ /opt/torchserve/
"""


def settings_of(docker: Docker, home: Path, **more: str) -> Settings:
    variables = {**docker.settings.variables, "HEADRACE_BASE_IMAGE": docker.base_image, "API_KEY": CANARY, **more}
    return Settings(docker.settings.state, home, None, "person:test", variables).prepare()


@pytest.fixture(scope="module")
def launcher(docker: Docker, java: str, tmp_path_factory: pytest.TempPathFactory) -> ContainerLauncher:
    """What starts containers whose image takes Java from one that holds this machine's."""
    folder = tmp_path_factory.mktemp("torchserve")
    runtime = Path(java).resolve().parents[1]
    shutil.copytree(
        runtime, folder / "java", ignore_dangling_symlinks=True, ignore=shutil.ignore_patterns("docs", "man")
    )
    docker.engine.build(folder / "java", _copied(folder), tag=JAVA_IMAGE, arguments={}, labels={})
    shutil.rmtree(folder / "java")
    (folder / "templates").mkdir()
    (folder / "templates" / "torchserve.Dockerfile").write_text(TEMPLATE)
    settings = settings_of(docker, folder / "home", HEADRACE_IMAGE_TEMPLATES=str(folder / "templates"))
    return ContainerLauncher(settings, docker.engine)


def _copied(folder: Path) -> Path:
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return folder / "Dockerfile"


@pytest.fixture(scope="module")
def target(launcher: ContainerLauncher) -> Iterator[TorchServeTarget]:
    made = TorchServeTarget(launcher.settings, launcher)
    yield made
    made.remove("digits", Stage.DEV)


@pytest.fixture(scope="module")
def version(sealed: ServedVersion) -> ServedVersion:
    return replace(sealed, secrets=("API_KEY",))


def route(*versions: ServedVersion, serving: int) -> Route:
    return Route("digits", Stage.DEV, versions, {serving: 1.0})


def server_of(target: TorchServeTarget) -> Server:
    found = record.read(target.settings.run / target.launcher.name / "digits-dev", target.launcher)
    assert found is not None
    return found.server


def asked(url: str, version: int) -> None:
    """See that predictions come from the version."""
    answer = httpx.post(f"{url}/predictions/digits", json={"inputs": [[0.5] * 64]}, timeout=120, trust_env=False)
    assert (answer.status_code, answer.headers["X-Headrace-Version"]) == (200, str(version)), answer.text
    assert len(answer.json()["predictions"][0]) == 10


def test_a_base_image_without_java_is_refused_with_what_to_do(
    docker: Docker, version: ServedVersion, tmp_path: Path
) -> None:
    settings = settings_of(docker, tmp_path / "home")
    target = TorchServeTarget(settings, ContainerLauncher(settings, docker.engine))
    with pytest.raises(Unavailable, match=r"needs Java 17, and the base image .* has none") as caught:
        target.apply(route(version, serving=1))
    assert "HEADRACE_BASE_IMAGE" in caught.value.remedy
    assert target.status("digits", Stage.DEV) is None


def test_versions_serve_and_move_in_one_container_that_is_shut_in(
    docker: Docker, target: TorchServeTarget, version: ServedVersion
) -> None:
    status = target.apply(route(version, serving=1))
    assert (status.generation, status.shares, status.warm, status.problem) == (1, {1: 1.0}, [1], "")
    asked(status.endpoint.url, 1)
    assert target.apply(route(version, serving=1)) == target.status("digits", Stage.DEV) == status
    with asking(f"{status.endpoint.url}/predictions/digits") as answers:
        moved = target.apply(route(version, replace(version, version=2), serving=2))
    assert {code for code, _ in answers} == {200}
    assert (moved.generation, list(moved.warm), moved.endpoint) == (2, [1, 2], status.endpoint)
    asked(status.endpoint.url, 2)
    with pytest.raises(ModelRefused, match=r"version 3 cannot be served by TorchServe: .*not the one that was sealed"):
        target.apply(route(version, replace(version, version=3, seal="0" * 64), serving=3))
    asked(status.endpoint.url, 2)
    inspected = docker.engine.run("container", "inspect", server_of(target).running.as_json()["container"])  # type: ignore[index,call-overload]
    assert CANARY not in inspected
    [found] = json.loads(inspected)
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert not found["Config"]["User"].startswith("0")
    assert {one["HostIp"] for ports in found["HostConfig"]["PortBindings"].values() for one in ports} == {"127.0.0.1"}
    base = docker.images.base(docker.environment)
    assert docker.engine.image(found["Image"]).layers[: len(base.layers)] == base.layers


def test_the_first_cause_is_found_in_the_containers_log(
    target: TorchServeTarget, component_python: Path, tmp_path: Path
) -> None:
    server = server_of(target)
    workers = json.loads((server.folder / "workers.json").read_text())
    target.launcher.write_workers(server.folder, {**workers, "*": {"python": PYTHON, "variables": {}}})
    wanted = {"missing-dependency", "corrupt-weights", "out-of-memory", "killed"}
    for case in (one for one in cases(component_python, tmp_path) if one.name in wanted):
        mark = server.log_size()
        path = server.folder / "store" / f"{case.name}.mar"
        write(case, path)
        path.chmod(0o644)
        answer = server.call(
            "POST", "/models", params={"url": path.name, "initial_workers": "1", "synchronous": "true"}, timeout_s=600
        )
        assert "Failed to start workers" in answer.text
        cause = first_cause(server.model_log_since(mark), case.name)
        assert cause is not None, case.name
        assert re.search(case.fact, cause.fact), (case.name, cause)
        server.call("DELETE", f"/models/{case.name}")


def test_other_limits_get_another_container_and_a_killed_one_a_new_one(
    docker: Docker, target: TorchServeTarget, version: ServedVersion
) -> None:
    before = target.status("digits", Stage.DEV)
    assert before is not None
    limits = Resources(memory="1500m", cpus=0.5)
    broken = replace(version, version=4, seal="0" * 64, limits=limits)
    second = replace(version, version=2)
    with pytest.raises(ModelRefused, match="not the one that was sealed"):
        target.apply(route(second, broken, serving=2))  # as a version is made ready before it is promoted
    assert target.status("digits", Stage.DEV) == before
    asked(before.endpoint.url, 2)
    limited = route(second, replace(version, version=5, limits=limits), serving=5)
    moved = target.apply(limited)
    assert (moved.generation, list(moved.warm)) == (3, [5])
    assert moved.endpoint.url == before.endpoint.url
    asked(moved.endpoint.url, 5)
    [container] = docker.engine.containers("org.headrace.torchserve")
    [found] = json.loads(docker.engine.run("container", "inspect", container))
    assert found["HostConfig"]["Memory"] == 2 * 1500 * 1024**2 + 1024**3
    assert found["HostConfig"]["NanoCpus"] == 1.5e9
    docker.engine.run("kill", container)
    assert target.status("digits", Stage.DEV) is None
    assert target.apply(limited).endpoint.url == before.endpoint.url
    asked(before.endpoint.url, 5)
    target.remove("digits", Stage.DEV)
    assert docker.engine.containers("org.headrace.torchserve") == []
    assert (target.status("digits", Stage.DEV), list(target.endpoints())) == (None, [])
