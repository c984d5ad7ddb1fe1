"""What tests on production parts need; where a part cannot be had, they skip and say which."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.object_store import Absent, Store, ceph
from tests.conftest import ROOT, SmallModels
from tests.containers.parts import OwnEngine, base_image, engine_of, installed, ran, tail
from tests.contract.conftest import _program, postgres_url  # noqa: F401 - a fixture

from headrace.config.settings import Settings, read_settings
from headrace.deploy.docker.engine import Engine
from headrace.deploy.docker.registry import Repository
from headrace.deploy.images.build import Images
from headrace.environment.base import Environment
from headrace.environment.uv import UvEnvironments
from headrace.processes import free_port
from headrace.provenance import digest, golden
from headrace.serving.offline import answers
from headrace.types import UNNAMED, Golden, ServedVersion

FLAG = "HEADRACE_TEST_CONTAINERS"
PASSWORD = "canary-registry-3b2"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the flag these tests are named and skipped: they take minutes and install system packages."""
    mine = [item for item in items if "tests/containers" in item.path.as_posix()]
    mark = pytest.mark.skip(reason=f"real engine, registry, Java: run `make test-containers` (sets {FLAG}=1)")
    if os.environ.get(FLAG) == "1":
        # Whichever test comes first waits for the engine, a base image and a layer with all packages.
        mark = pytest.mark.timeout(1800)
    for item in mine:
        if mark.name != "timeout" or item.get_closest_marker("timeout") is None:  # What a test says itself counts.
            item.add_marker(mark)


@pytest.fixture(scope="session")
def java() -> str:
    """A Java runtime for TorchServe."""
    program = installed("java", "openjdk-17-jre-headless")
    ran(program, "-version")
    return program


@dataclass(frozen=True)
class Running:
    """An engine, and the settings that reach it."""

    engine: Engine
    settings: Settings
    own: OwnEngine | None  #: None where the tests use an engine that ran before


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """The engine of the whole session."""
    with engine_of(read_settings()) as (engine, settings, own):
        yield Running(engine, settings, own)


@dataclass(frozen=True)
class Docker:
    """An engine, the settings that reach it, a base image and a component's environment."""

    engine: Engine
    settings: Settings
    base_image: str
    environment: Environment
    own: OwnEngine | None  #: None where the tests use an engine that ran before

    @property
    def images(self) -> Images:
        return Images(self.engine, self.settings, base_image=self.base_image, progress=print)


@pytest.fixture(scope="session")
def docker(component_python: Path, running: Running) -> Docker:
    """The engine with a base image."""
    shared = read_settings()
    project = ROOT / "examples" / "digits"
    environments = UvEnvironments(shared)
    environment = environments.build(environments.lock(project), progress=print)
    if not environment.lock.python.startswith("3.11."):
        pytest.skip(f"the base image has Python 3.11, the component's environment {environment.lock.python}")
    image = base_image(running.engine, shared.state / "cache" / "test-images")
    return Docker(running.engine, running.settings, image, environment, running.own)


@pytest.fixture(scope="session")
def sealed(small_models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> ServedVersion:
    """The pt2 model, sealed, with golden answers of the very worker that serves elsewhere."""
    one = ServedVersion(
        "digits", 1, small_models.mlp, small_models.python, baseline="b" * 64,
        seal=digest.digest_folder(small_models.mlp).digest,
    )  # fmt: skip
    inputs = {UNNAMED: np.random.default_rng(1).random((5, 64), dtype="float32")}
    folder = tmp_path_factory.mktemp("golden")
    golden.save(Golden(inputs, answers(one, inputs)), folder)
    return replace(one, golden=folder)


@pytest.fixture(scope="session")
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
    try:
        deadline = time.monotonic() + 180
        while not _asks_for_password(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the registry does not start here: {tail(folder / 'log')}")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


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


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """A real S3-compatible server, which refuses a wrong secret and honours conditional writes."""
    installed("radosgw", "ceph-mon ceph-osd radosgw ceph-common")
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(ceph())
        except Absent as error:
            pytest.skip(f"no S3-compatible server: {error}")
        yield running


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> str:
    """The URL of a real PostgreSQL, for its administrator."""
    if _program("initdb") is None:
        installed("pg_ctlcluster", "postgresql")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def repository(docker: Docker, registry: str, tmp_path: Path) -> Repository:
    engine = engine_with(docker, registry, tmp_path / "docker", PASSWORD)
    return Repository(engine, f"{registry}/team/{tmp_path.name.replace('_', '-')}")
