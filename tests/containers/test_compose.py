"""All of compose.yaml for real: up from nothing, one component to production, kept, destroyed, and put back."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.containers import composed
from tests.containers.conftest import Running
from tests.containers.parts import installed
from tests.houses import House

from headrace.deploy.compose.write import write_compose
from headrace.deploy.docker.engine import Engine
from headrace.processes import free_port

FLAG = "HEADRACE_TEST_COMPOSE"
pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.environ.get(FLAG) != "1", reason=f"builds headrace's own image, 10 minutes: {FLAG}=1"),
]
IRISES = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
#: Workers build a component's environment of the wheels that lie in their image: no index is reachable from there.
OVERRIDE = """\
version: "3.8"
services:
  train: {environment: &wheels {PIP_NO_INDEX: "1", PIP_FIND_LINKS: /wheels}}
  serve: {environment: *wheels}
"""


@dataclass(frozen=True)
class Stack:
    """A folder of `headrace init --compose` on an engine."""

    folder: Path
    engine: Engine
    program: tuple[str, ...]
    endpoint: str

    def compose(self, *words: str) -> str:
        return self.ran(*self.program, *words)

    def ran(self, *words: str | Path) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=dict(self.engine.variables), capture_output=True, text=True, timeout=1800,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def headrace(self, service: str, *words: str) -> Any:
        return json.loads(self.compose("exec", "-T", service, "headrace", *words, "--json"))

    def containers(self) -> dict[str, Any]:
        """Return the engine's description of each service's container."""
        ids = self.compose("ps", "--quiet").split()
        found = json.loads(self.engine.run("inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def wait_for_health(self) -> None:
        """Wait until each container that tells its health is healthy, and the others run or have done their work."""

        def unwell() -> dict[str, Any]:
            states = {name: one["State"] for name, one in self.containers().items()}
            return {
                name: state for name, state in states.items()
                if (state["Health"]["Status"] != "healthy" if "Health" in state else not state["Running"])
                and (name, state["ExitCode"], state["Running"]) != ("prepare", 0, False)
            }  # fmt: skip

        wait_for(lambda: not unwell(), what=lambda: json.dumps(unwell(), indent=1) + self.compose("logs", "--tail=20"))

    def ask(self) -> httpx.Response | None:
        body = {"dataframe_split": {"columns": COLUMNS, "data": IRISES}}
        try:
            return httpx.post(f"{self.endpoint}/invocations", json=body, timeout=60, trust_env=False)
        except httpx.HTTPError:
            return None

    def secrets(self) -> list[str]:
        """Return all passwords and keys; each has a word of its own in its file."""
        texts = [path.read_text() for path in (self.folder / "secrets").iterdir()]
        words = " ".join(texts).replace(":", " ").replace("@", " ").replace(",", " ").replace('"', " ").split()
        return [word for word in dict.fromkeys(words) if len(word) == 32]


@pytest.fixture(scope="module")
def stack(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    engine, cache = running.engine, running.settings.state / "cache" / "test-images"
    program = (engine.program, "compose")
    if not composed.can_compose(engine, program):
        program = (installed("docker-compose", "docker-compose"),)
    folder = tmp_path_factory.mktemp("compose") / f"headrace-{os.getpid()}"
    write_compose(folder)
    wheels = composed.wheels(cache)
    names = composed.images(engine, cache, wheels)
    for wheel in wheels.glob("*.whl"):
        shutil.copy(wheel, folder / "wheels")
    ports = {name: str(free_port()) for name in ("MLFLOW_PORT", "CONTROL_PORT", "ENDPOINT_PORT")}
    given = {**names, **ports, "HEADRACE_IMAGE": f"headrace-test:{os.getpid()}", "PIP_OPTIONS": "--no-index"}
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    (folder / "compose.override.yaml").write_text(OVERRIDE)
    # The scripts look for `docker` and `docker-compose` as a user's shell does.
    path = os.pathsep.join([str(Path(engine.program).parent), str(Path(program[0]).parent), engine.variables["PATH"]])
    made = Stack(
        folder, Engine(engine.program, {**engine.variables, "PATH": path}), program,
        f"http://127.0.0.1:{ports['ENDPOINT_PORT']}",
    )  # fmt: skip
    yield made
    made.compose("down", "--volumes", "--remove-orphans")
    engine.run("rmi", "--force", given["HEADRACE_IMAGE"])
    assert engine.run("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={folder.name}") == ""


def component(folder: Path) -> None:
    """Put a component into the folder that the workers have, under git as its user has it."""
    made = House(folder / "components" / "home", dict(os.environ)).component(
        "flowers", serve="{port: 8081, deadline_ms: 30000}"
    )
    environment = made / "python_env.yaml"
    lines = environment.read_text().splitlines(keepends=True)
    environment.write_text("".join(line for line in lines if "torch" not in line and "pytest" not in line))
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "as it is"]):
        subprocess.run([*git, *words], cwd=made, check=True, capture_output=True)


def test_a_component_goes_to_production_is_kept_destroyed_and_put_back(stack: Stack, tmp_path: Path) -> None:
    component(stack.folder)
    stack.compose("build", "serve")
    stack.compose("up", "-d")
    create = ("headrace", "token", "create", "ada", "--role", "operator", "--json")
    token = json.loads(stack.compose("run", "--rm", "-T", "control", *create))
    stack.wait_for_health()
    done = stack.headrace("control", "run", "/components/flowers")
    assert (done["state"], done["version"]) == ("promoted", 1), done
    answer = stack.ask()
    assert answer is not None
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == [0, 2]
    told = kept_of(stack)
    assert told["ids"] == sorted(answer.json()["prediction_ids"])
    no_secret_is_told(stack, [token["token"]])
    each_has_its_own_secrets(stack)

    stack.ran("./backup.sh", tmp_path / "kept")
    assert stack.ask() is not None, "it goes on answering"
    passwords = stack.secrets()
    stack.compose("down", "--volumes")
    shutil.rmtree(stack.folder / "secrets")
    write_compose(stack.folder, force=True)
    assert not set(passwords) & set(stack.secrets()), "what comes back has the secrets of the backup"

    said = stack.ran("./restore.sh", tmp_path / "kept")
    assert stack.secrets() == passwords
    stack.wait_for_health()
    wait_for(lambda: (found := stack.ask()) is not None and found.status_code == 200, what=lambda: said)
    again = stack.ask()
    assert again is not None
    assert again.json()["predictions"] == [0, 2]
    assert again.headers["X-Headrace-Version"] == "1"
    assert again.headers["X-Headrace-Version"] == answer.headers["X-Headrace-Version"]
    back = kept_of(stack)
    assert back["history"] == told["history"]
    assert set(told["ids"]) <= set(back["ids"])
    assert len(back["ids"]) == len(set(back["ids"])), "none twice"
    no_secret_is_told(stack, [token["token"]])


def kept_of(stack: Stack) -> dict[str, Any]:
    """Return what must survive: the ledger's entries, which are verified, and the ids of predictions."""
    history = stack.headrace("serve", "history", "flowers")
    stack.compose("exec", "-T", "serve", "headrace", "ledger", "verify", "flowers")
    rows = stack.headrace("serve", "predictions", "query", "flowers", "SELECT id FROM predictions ORDER BY id")["rows"]
    return {"history": history["entries"], "ids": [row[0] for row in rows]}


def no_secret_is_told(stack: Stack, more: list[str]) -> None:
    """Check logs, descriptions, process lists and the image's history for every password, key and token."""
    said = [stack.compose("logs", "--no-color"), stack.engine.run("history", "--no-trunc", image_of(stack))]
    for name, one in stack.containers().items():
        said.append(json.dumps(one))
        if one["State"]["Running"]:
            said.append(stack.engine.run("top", one["Id"], "-eo", "pid,args"))
            environment = "cat /proc/[0-9]*/environ 2>/dev/null || true"
            said.append(stack.compose("exec", "-T", name, "sh", "-c", environment) if name == "train" else "")
    secrets = [*stack.secrets(), *more]
    assert len(secrets) >= 6
    for text in said:
        assert not [secret[:4] for secret in secrets if secret in text]


def image_of(stack: Stack) -> str:
    image: str = stack.containers()["serve"]["Image"]
    return image


def each_has_its_own_secrets(stack: Stack) -> None:
    """Check what is mounted: control cannot reach the store at all, and whoever reads has a key of its own."""
    given = {
        name: {Path(mount["Destination"]).name for mount in one["Mounts"] if "/run/secrets/" in mount["Destination"]}
        for name, one in stack.containers().items()
    }
    assert given["control"] == {"worker_database_url"}
    assert given["serve"] == {"worker_database_url", "s3_credentials"}
    assert given["train"] == given["monitor"] == {"worker_database_url", "s3_reader_credentials"}
    assert given["door"] == set()
    assert stack.headrace("monitor", "predictions", "check", "flowers") is not None, "its own key opens the store"


def wait_for(condition: Callable[[], bool], *, what: Callable[[], str], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(1)
