"""One component's way to production and back on production parts alone: nothing is a stand-in, nothing is a laptop's.

Ledger and flows lie in PostgreSQL, as a role that can change no entry; MLflow's tables in another database of it; runs'
files and predictions in an S3-compatible store; the training and every worker run in containers of the component's
images, which a registry that asks for a password keeps.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from benchmarks.migrate import mlflow_server
from benchmarks.object_store import SECRET, Store
from sqlalchemy import create_engine, text
from tests.conftest import ROOT
from tests.containers import conftest, parts
from tests.containers.asking import Answers, asking, wait_for
from tests.containers.conftest import Docker, engine_with
from tests.houses import House, Told

from headrace.config.settings import read_settings
from headrace.deploy.docker.engine import Engine
from headrace.deploy.docker.registry import Repository
from headrace.ledger.sql import SqlLedger
from headrace.predictions.query import connect
from headrace.predictions.segments import SegmentLog
from headrace.processes import free_port
from headrace.registry.mlflow import MlflowRegistry

pytestmark = pytest.mark.timeout(3600)
#: What no log, description or file of the home may hold.
CANARIES = (SECRET, parts.PASSWORD, conftest.PASSWORD)
PATIENCE_S = 1800.0
PRODUCTION = "org.headrace.endpoint"


@dataclass
class Place:
    """A home on production parts, and what may be seen of each part from outside.

    Attributes:
        ledger: the URL of the ledger, as the worker that the house works as.
        mlflow: the URL of MLflow's database.
        said: all that commands printed.
    """

    house: House
    engine: Engine
    registry: str
    store: Store
    ledger: str
    mlflow: str
    said: list[str] = field(default_factory=list)

    def headrace(self, *words: str | Path) -> Any:
        """Run a command that must succeed, and return its document."""
        told: Told = self.house.headrace(*words, "--json")
        self.said.append(told.out + told.err)
        assert told.code == 0, told.out + told.err
        return told.document

    def repository(self, component: str) -> str:
        return f"{self.registry}/team/{component}"

    def production(self, component: str) -> dict[str, Any]:
        """Return the row of a component in the status."""
        rows = self.headrace("status")["components"]
        [row] = [row for row in rows if row["component"] == component]
        found: dict[str, Any] = row
        return found

    def images(self, component: str) -> dict[int, str]:
        """Return which image each version's containers of production were made of."""
        found = {}
        for container in self.engine.containers(PRODUCTION):
            [one] = json.loads(self.engine.run("inspect", container))
            if not one["Config"]["Labels"][PRODUCTION].startswith(f"{component}-production-"):
                continue
            self.said.append(json.dumps(one))
            found[int(one["Config"]["Labels"]["org.headrace.version"])] = one["Image"]
        return found

    def actions(self, component: str) -> list[tuple[str, int | None]]:
        """Return what the ledger tells, oldest first."""
        ledger = SqlLedger(self.ledger)
        try:
            assert ledger.verify(component).problem == ""
            entries = ledger.history(component)
            self.said.append(json.dumps([entry.as_json() for entry in entries]))
            return [(str(entry.action), entry.version) for entry in reversed(entries)]
        finally:
            ledger.close()


@pytest.fixture(scope="module")
def place(
    docker: Docker, registry: str, store: Store, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("story")
    home = folder / "home"
    home.mkdir()
    owner, mlflow = (parts.own_database(postgres, f"story{os.getpid()}_{name}") for name in ("headrace", "mlflow"))
    ledger = parts.restricted(postgres, owner)
    for name, url in (("ledger-url", ledger), ("mlflow-url", mlflow)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(url)
    engine = engine_with(docker, registry, folder / "docker", conftest.PASSWORD)
    port = free_port()
    variables = {
        **os.environ, **engine.variables, **store.variables, "HEADRACE_DOCKER": engine.program,
        "HEADRACE_BASE_IMAGE": docker.base_image, "HEADRACE_TARGET": "docker", "HEADRACE_HOME": str(home),
        "HEADRACE_STATE": str(read_settings().state), "HEADRACE_DATABASE_URL_FILE": str(folder / "ledger-url"),
        "HEADRACE_PREDICTIONS_URL": store.bucket("predictions").url, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
    }  # fmt: skip
    server = {
        **variables, "HEADRACE_MLFLOW_DATABASE_URL_FILE": str(folder / "mlflow-url"),
        "HEADRACE_ARTIFACTS_URL": store.bucket("artifacts").url,
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(mlflow_server(server, port, folder / "mlflow.log"))
        house = House(home, variables, PATIENCE_S)
        made = Place(house, engine, registry, store, parts.with_driver(ledger), parts.with_driver(mlflow))
        yield made
        house.headrace("down")
        assert [words for words in house.processes() if "mlflow server" not in words] == []
    assert engine.containers(PRODUCTION) == []


def component_of(example: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """Return a copy of an example whose headrace.yaml asks for containers, and for a person's word."""
    source = ROOT / "examples" / example
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("data", "__pycache__", "mlruns"))
    path = folder / "headrace.yaml"
    wanted = [
        ("environment: uv", "environment: docker"), ("approval: automatic", "approval: required"),
        # What is shown here is the way, not the second version.
        ("no_worse_than: 0.03", "no_worse_than: 0.3"), ("deadline_ms: 2000", "deadline_ms: 60000"), *changes,
    ]  # fmt: skip
    content = path.read_text()
    for old, new in wanted:
        assert old in content, old
        content = content.replace(old, new)
    path.write_text(content)
    (folder / ".gitignore").write_text("data/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    return folder


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it is now")


def released(place: Place, component: str, folder: Path, version: int) -> str:
    """Bring a new version to production, its image pushed before it is approved; return the image."""
    candidate = place.headrace("run", folder)
    assert (candidate["state"], candidate["version"]) == ("waiting for approval", version), candidate
    shown = place.headrace("baseline", "show", f"{component}/{version}")
    [tried] = [one["facts"]["image"] for one in shown["attestations"] if one["kind"] == "image"]
    pushed = place.headrace("image", "push", f"{component}/{version}", place.repository(component))
    assert pushed["image"] == tried, "what was tried out in dev is what the registry has"
    promoted = place.headrace("approve", component, "--version", str(version), "-m", "seen")
    assert (promoted["state"], promoted["version"]) == ("promoted", version), promoted
    assert place.images(component)[version] == tried, "and what production serves"
    return str(tried)


def ask(url: str, body: dict[str, Any]) -> httpx.Response:
    answer = httpx.post(f"{url}/invocations", json=body, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer


@contextmanager
def asked(url: str) -> Iterator[Answers]:
    """Ask an endpoint all the time; give codes and versions of the answers."""
    with asking(f"{url}/invocations", pause_s=0.5) as codes:
        yield codes
    assert {code for code, _ in codes} == {200}, "nobody noticed"


def logged(place: Place, component: str, folder: Path) -> dict[int, int]:
    """Return how many predictions of each version the store has, read where nothing else of the home is."""
    seen = SegmentLog(folder, store=place.store.bucket("predictions")).snapshot(component)
    with connect(seen) as connection:
        return dict(connection.execute("SELECT version, count(*) FROM predictions GROUP BY ALL").fetchall())


def check_parts(place: Place, versions: int) -> None:
    """Check that each part has what belongs there, that the home has none of it, and that no secret got anywhere."""
    kept = place.store.bucket("artifacts").sizes()
    assert sum(path.endswith("/MLmodel") for path in kept) == versions, kept
    database = create_engine(place.mlflow)
    with database.connect() as connected:
        assert connected.execute(text("SELECT count(*) FROM model_versions")).scalar() == versions
    database.dispose()
    assert not [*place.house.home.glob("*.db"), *place.house.home.glob("artifacts")]
    files = [path for path in place.house.home.rglob("*") if path.is_file()]
    for canary in CANARIES:
        assert not any(canary in said for said in place.said)
        assert [str(path) for path in files if canary.encode() in path.read_bytes()] == []


def test_digits_go_to_production_and_back(place: Place, tmp_path: Path) -> None:
    name = "digits"
    folder = component_of(name, tmp_path / name, ("epochs: 20", "epochs: 12"))
    first = released(place, name, folder, 1)
    url = place.production(name)["url"]
    table = pq.read_table(folder / "data" / "stream-quiet.parquet").slice(0, 100)
    answer = ask(url, {"inputs": table["pixels"].to_pylist()})
    pairs = zip(answer.json()["predictions"], table["label"].to_pylist(), strict=True)
    assert sum(row.index(max(row)) == label for row, label in pairs) >= 85
    assert answer.headers["X-Headrace-Version"] == "1"

    yaml = folder / "headrace.yaml"
    yaml.write_text(yaml.read_text().replace("epochs: 12", "epochs: 13"))
    commit(folder)
    with asked(url) as codes:
        second = released(place, name, folder, 2)
        assert second != first
        wait_for(lambda: (200, "2") in codes)
        place.said += [str(one.info["cmdline"]) for one in psutil.process_iter(["cmdline"])]
        place.headrace("rollback", name, "--reason", "a rehearsal")
        count = len(codes)
        wait_for(lambda: (200, "1") in codes[count:])

    # The ledger has it all, git and MLflow follow, and the registry keeps both.
    assert git(folder, "tag").split() == [f"{name}/v1", f"{name}/v2"]
    decided = ["registered", "gated", "accepted", "approved", "promoted"]
    expected = [*((action, version) for version in (1, 2) for action in decided), ("rolled back", 1)]
    assert [entry for entry in place.actions(name) if entry[0] in (*decided, "rolled back")] == expected
    runs = MlflowRegistry(read_settings(place.house.variables))
    assert {one.number: tuple(one.aliases) for one in runs.versions(name)} == {1: ("champion",), 2: ()}
    pulled = place.headrace("image", "pull", f"{name}/2", place.repository(name))
    assert pulled["image"] == second
    assert Repository(place.engine, place.repository(name)).digest("v2") == pulled["reference"].partition("@")[2]

    place.house.headrace("down")
    assert place.headrace("predictions", "ship")["shipped"][name]["left"] == 0
    answered = {version: sum(one == str(version) for _, one in codes) for version in (1, 2)}
    assert logged(place, name, tmp_path / "elsewhere") == {1: 100 + answered[1], 2: answered[2]}
    check_parts(place, 2)


@pytest.mark.skipif(os.environ.get("HEADRACE_TEST_NEWS") != "1", reason="images of its own: HEADRACE_TEST_NEWS=1")
def test_the_news_classifier_goes_to_production(place: Place, tmp_path: Path) -> None:
    name = "news-classifier"
    folder = component_of("news_classifier", tmp_path / name, ("acceptance: {p99_ms: 500, ", "acceptance: {"))
    released(place, name, folder, 1)
    answer = ask(place.production(name)["url"], {"dataframe_records": [{"text": "Goalkeeper saves two penalties"}]})
    # Which of its classes it is, is for the gate to judge.
    assert answer.json()["predictions"][0]["label"] in ("world", "sports", "business", "science")
    place.house.headrace("down")
    assert place.headrace("predictions", "ship")["shipped"][name]["left"] == 0
    assert logged(place, name, tmp_path / "elsewhere") == {1: 1}
