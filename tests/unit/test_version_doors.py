"""What may not go to production, what may not be trained, and data that is held fast."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.config.component import CodePolicy, Component, Data, DataInput, EnvironmentKind, KeepData
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import Conflict, TrainingFailed
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.candidates.inputs import check_still, copy_of, hold
from headrace.lifecycle.candidates.retrain import Gathered
from headrace.lifecycle.candidates.train import refuse_dirty
from headrace.lifecycle.evidence.doors import refuse_for_production
from headrace.lifecycle.evidence.preflight import is_same_version
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord
from headrace.predictions.memory import MemoryLog
from headrace.provenance.baseline import Baseline, DataFacts, Draft, read_baseline, seal
from headrace.provenance.code import Code
from headrace.provenance.sign import own_signer
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor

CLEAN = Code("/repository", "a" * 40, "main", changes={})
DIRTY = Code("/repository", "a" * 40, "main", changes={"train.py": "b" * 64})
NO_GIT = Code("/project", changes={"train.py": "b" * 64}, has_git=False)


@dataclass(frozen=True)
class Sealing:
    """Seals one small version after another."""

    folder: Path

    def baseline(
        self,
        code: Code,
        *,
        kind: str = "uv",
        stated: frozenset[str] = frozenset(),
        data: dict[str, DataFacts] | None = None,
    ) -> Baseline:
        model = self.folder / "model"
        model.mkdir(exist_ok=True)
        (model / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.onnx, data: m.onnx}}\n")
        (model / "m.onnx").write_bytes(b"weights")
        draft = Draft(
            component="digits", at=datetime(2026, 1, 1, tzinfo=UTC), actor=Actor("person:ada"), run_id="r", model=model,
            code=code, lock="numpy==2.0.0\n", lock_digest="c" * 64, python="3.11.7", environment_kind=kind,
            stated=stated, data=data or {},
        )  # fmt: skip
        place = self.folder / f"baseline-{len(list(self.folder.iterdir()))}"
        return read_baseline(seal(draft, place, own_signer(self.folder / "keys")).folder)


def record(policy: CodePolicy) -> VersionRecord:
    config = Component(component="digits", code=policy).as_json()
    return VersionRecord("digits", 3, "r", "models:/m", "model", "seal", "python", "core", "/project", config)


def test_what_nobody_can_get_again_stays_out_of_production(tmp_path: Path) -> None:
    sealing = Sealing(tmp_path)
    dirty = sealing.baseline(DIRTY)
    with pytest.raises(Conflict, match=r"code that no commit holds \(train\.py\)") as refused:
        refuse_for_production(record(CodePolicy.ALLOW_DEV), dirty)
    assert "headrace run" in refused.value.remedy
    refuse_for_production(record(CodePolicy.ALLOW), dirty)
    refuse_for_production(record(CodePolicy.ALLOW_DEV), sealing.baseline(CLEAN))
    refuse_for_production(record(CodePolicy.ALLOW_DEV), sealing.baseline(DIRTY, stated=frozenset({"code"})))

    with pytest.raises(Conflict, match="`environment: inherit`") as refused:
        refuse_for_production(record(CodePolicy.ALLOW), sealing.baseline(CLEAN, kind=EnvironmentKind.INHERIT.value))
    assert "environment: uv" in refused.value.remedy


def test_code_that_no_commit_holds_is_not_trained_where_that_is_refused() -> None:
    strict = Component(component="digits", code=CodePolicy.REFUSE)
    with pytest.raises(Conflict, match=r"no commit holds train\.py"):
        refuse_dirty(strict, DIRTY)
    with pytest.raises(Conflict, match="/project is not under git"):
        refuse_dirty(strict, NO_GIT)
    refuse_dirty(strict, CLEAN)
    refuse_dirty(Component(component="digits", code=CodePolicy.ALLOW_DEV), DIRTY)


def no_environments(_kind: object) -> Environments:
    raise AssertionError("data needs no environment")


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    return Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())


def held(rooms: Rooms, folder: Path, keep: KeepData) -> tuple[Component, CandidateRequest]:
    component = Component(component="digits", data=Data(train=DataInput(uri="train.csv", label="y"), keep=keep))
    return component, CandidateRequest("digits", str(folder), Trigger(Cause.PERSON, keep.value, "person:ada", "why"))


@pytest.mark.parametrize("keep", [KeepData.AUTO, KeepData.COPY])
def test_a_copy_is_kept_that_a_replaced_file_does_not_touch(rooms: Rooms, tmp_path: Path, keep: KeepData) -> None:
    path = tmp_path / "train.csv"
    path.write_text("x,y\n1,2\n")
    component, request = held(rooms, tmp_path, keep)
    found = hold(rooms, request, component, Gathered())["train"]
    assert (found.facts.kept, found.facts.rows, found.facts.uri) == ("copy", 1, str(path))
    assert found.facts.profile["x"] == {"nulls": 0, "min": 1, "max": 1, "mean": 1}
    assert Sealing(tmp_path).baseline(CLEAN, data={"train": found.facts}).data == {"train": found.facts}
    path.write_text("x,y\n1,3\n")
    copy = copy_of(rooms.settings, found.facts)
    assert (str(copy), copy.name, copy.read_text()) == (found.path, "train.csv", "x,y\n1,2\n")
    assert copy.stat().st_mode & 0o222 == 0
    check_still({"train": found})  # It was read from the copy.
    assert hold(rooms, request, component, Gathered())["train"].facts.sha256 != found.facts.sha256


def test_a_reference_that_is_replaced_meanwhile_is_noticed(rooms: Rooms, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("x,y\n1,2\n")
    component, request = held(rooms, tmp_path, KeepData.REFERENCE)
    found = hold(rooms, request, component, Gathered())
    assert (found["train"].path, found["train"].facts.kept) == (str(path), "reference")
    check_still(found)
    path.write_text("x,y\n1,3\n")
    with pytest.raises(TrainingFailed, match="was replaced while the candidate was made"):
        check_still(found)


def test_a_version_is_the_same_however_it_is_spelled() -> None:
    assert is_same_version("2024.7.4", "2024.07.04")
    assert is_same_version("not a version", "not a version")
    assert not is_same_version("not a version", "1.0")
    assert not is_same_version("2.13.0", "2.13.0+cpu")
