"""What breaks under a stage of the `docker` target: a container, the engine, the disk. Production goes on answering."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.containers.asking import Answers, asking, wait_for
from tests.containers.conftest import Docker

from headrace.config.component import Serve
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Route
from headrace.deploy.docker.target import DockerTarget
from headrace.deploy.images.of_version import ServeImages
from headrace.errors import Unavailable
from headrace.types import ServedVersion, Stage

#: What answers late on a busy machine answers all the same.
SERVE = Serve(workers=2, deadline_ms=60_000)


@dataclass
class Production:
    """A stage with two workers, and somebody who asks it without a pause."""

    target: DockerTarget
    settings: Settings
    version: ServedVersion
    codes: Answers

    def answered(self, more: int = 20) -> None:
        """Wait for some more answers."""
        before = len(self.codes)
        wait_for(lambda: len(self.codes) >= before + more, seconds=300)
        assert {code for code, _ in self.codes} == {200}

    def served(self) -> dict[int, float]:
        status = self.target.status("digits", Stage.PRODUCTION)
        assert status is not None
        return dict(status.shares)

    def containers(self, docker: Docker) -> list[str]:
        return docker.engine.containers(self.target.label("digits", Stage.PRODUCTION))


@pytest.fixture(scope="module")
def production(docker: Docker, sealed: ServedVersion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """One stage for all that breaks: each test leaves it serving."""
    engine = {name: value for name, value in docker.engine.variables.items() if name.startswith("DOCKER_")}
    variables = {**read_settings().variables, **engine, "HEADRACE_BASE_IMAGE": docker.base_image}
    home = tmp_path_factory.mktemp("faults") / "home"
    mine = Settings(read_settings().state, home, None, "person:test", variables).prepare()
    target = DockerTarget(mine, docker.engine, ServeImages(docker.engine, mine))
    try:
        status = target.apply(Route("digits", Stage.PRODUCTION, [sealed], {1: 1.0}, SERVE))
        with asking(f"{status.endpoint.url}/invocations") as codes:
            yield Production(target, mine, sealed, codes)
        assert {code for code, _ in codes} <= {200}  # None where all tests were skipped.
    finally:
        target.remove("digits", Stage.PRODUCTION)
    assert docker.engine.containers(target.label("digits", Stage.PRODUCTION)) == []


def test_a_killed_container_is_replaced_and_no_request_fails(production: Production, docker: Docker) -> None:
    victim, other = production.containers(docker)
    docker.engine.run("kill", victim)
    wait_for(lambda: len({*production.containers(docker)} - {victim, other}) == 1, seconds=300)
    production.answered()


def test_production_answers_while_its_engine_restarts_and_deploys_again_afterwards(
    production: Production, docker: Docker
) -> None:
    """The engine keeps its containers (`live-restore`)."""
    if docker.own is None:
        pytest.skip("this engine is not the tests' own, which may be stopped")
    second = replace(production.version, version=2)
    route = Route("digits", Stage.PRODUCTION, [production.version, second], {2: 1.0}, SERVE)
    containers = production.containers(docker)
    docker.own.stop()
    try:
        production.answered()
        with pytest.raises(Unavailable, match="Cannot connect to the Docker daemon") as caught:
            production.target.apply(route)
        assert "systemctl start docker" in caught.value.remedy
        assert production.served() == {1: 1.0}
    finally:
        docker.own.start()
    assert sorted(production.containers(docker)) == sorted(containers)
    production.answered()
    production.target.apply(route)
    assert production.served() == {2: 1.0}
    wait_for(lambda: (200, "2") in production.codes, seconds=300)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("making a small disk needs the right to mount one")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_ends_a_deployment_with_the_truth_and_it_can_be_repeated(
    production: Production, docker: Docker, small_disk: Path
) -> None:
    before = production.served()
    third = replace(production.version, version=3)
    route = Route("digits", Stage.PRODUCTION, [production.version, third], {3: 1.0}, SERVE)
    full = replace(
        production.target, image_of=ServeImages(docker.engine, replace(production.settings, state=small_disk))
    )
    with pytest.raises(Unavailable, match=r"(cannot write|do not fit)") as caught:
        full.apply(route)
    assert "HEADRACE_STATE" in caught.value.remedy
    assert production.served() == before
    production.answered()
    production.target.apply(route)
    assert production.served() == {3: 1.0}
    wait_for(lambda: (200, "3") in production.codes, seconds=300)
