"""A version that headrace did not train: its digests are taken now, and what nobody checked is marked as stated."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Download, Environment, Lock
from headrace.errors import InvalidInput, NotFound
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.candidates.adopt import adopt
from headrace.lifecycle.evidence.doors import verify_version
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor

ADA = Actor("person:ada")
CHURN = Component(component="churn")


class Ready:
    """Environments that are there already."""

    def lock(self, project: Path, *, for_gpus: bool = False) -> Lock:
        return Lock("c" * 64, (project / "requirements.txt").read_text(), "3.11.7")

    def download(self, lock: Lock) -> Download:
        return Download(0, 0)

    def build(self, lock: Lock, *, progress: Callable[[str], None]) -> Environment:
        return Environment(lock.digest, Path("/usr/bin/python3"), lock)


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    registry = MemoryRegistry()
    made = Rooms(settings, clock, registry, MemoryLedger(clock), MemoryTarget(), lambda _: Ready(), MemoryLog())
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.onnx, data: m.onnx}}\n")
    (model / "m.onnx").write_bytes(b"weights")
    (model / "requirements.txt").write_text("numpy==2.4.6\n")
    run = registry.start_run("churn", key="k", tags={"mlflow.source.git.commit": "a" * 40})
    registry.log(run.id, parameters={"depth": "3"})
    registry.register("churn", run_id=run.id, model=registry.add_model(run.id, model), key="k", tags={})
    return made


def test_an_adopted_version_is_sealed_and_says_what_nobody_checked(rooms: Rooms) -> None:
    record = adopt(rooms, "models:/churn/1", CHURN, actor=ADA, reason="it served before headrace")
    found = verify_version(rooms, "churn", 1).baseline
    assert found.code.commit == "a" * 40
    assert found.parameters == {"depth": "3"}
    marks = {name: found.marks[name] for name in ("code.commit", "parameters", "model.digest", "environment.lock")}
    assert marks == {
        "code.commit": "stated", "parameters": "stated", "model.digest": "checked", "environment.lock": "checked",
    }  # fmt: skip
    [entry] = rooms.ledger.history("churn")
    assert (entry.version, entry.baseline) == (1, record.baseline)
    assert entry.reason == "adopted from models:/churn/1: it served before headrace"


def test_a_repeat_adds_nothing(rooms: Rooms) -> None:
    first = adopt(rooms, "models:/churn/1", CHURN, actor=ADA, reason="why")
    assert adopt(rooms, "models:/churn/1", CHURN, actor=ADA, reason="why") == first
    assert len(rooms.ledger.history("churn")) == 1


def test_what_is_no_version_of_the_component_is_refused(rooms: Rooms) -> None:
    for uri in ("models:/other/1", "models:/churn@champion", "runs:/x/model"):
        with pytest.raises(InvalidInput, match="names no version of churn"):
            adopt(rooms, uri, CHURN, actor=ADA, reason="why")
    with pytest.raises(NotFound):
        adopt(rooms, "models:/churn/7", CHURN, actor=ADA, reason="why")
