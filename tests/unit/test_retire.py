"""What is retired is out of the way for good, and what goes with it is nothing that anybody needs."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.clock import ManualClock
from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import Conflict, HeadraceError, NotFound
from headrace.ledger.base import Action, Draft, Ledger
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.events import Mark
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.production import approvals
from headrace.lifecycle.production.reconcile import previous_champion
from headrace.lifecycle.production.retire import TAG, retire
from headrace.lifecycle.production.rollback import roll_back
from headrace.lifecycle.request import Cause, PromoteRequest, State, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.upkeep.environments import needed
from headrace.lifecycle.upkeep.garbage import Asked, Collected, Kind, collect
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.predictions.ids import lowest
from headrace.predictions.manifest import Manifest, Retired, Segment, read_manifest, write_manifest
from headrace.predictions.memory import MemoryLog
from headrace.provenance.baseline import DataFacts
from headrace.provenance.store import ModelStore
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Stage

ADA = Actor("person:ada")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
OLD, YOUNG = lowest(datetime(2026, 1, 1, tzinfo=UTC)), lowest(datetime(2026, 11, 20, tzinfo=UTC))


def no_environments(_kind: object) -> Environments:
    raise AssertionError("nothing is built here")


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    """Versions 1 to 5, of which 1, 2 and 3 were in production one after the other."""
    monkeypatch.setattr("headrace.lifecycle.production.promote.pass_production_door", lambda *_: None)
    clock = ManualClock(NOW)
    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    made = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    for number in range(1, 6):
        _version(made, number)
    for number in (1, 2, 3):
        assert promote(made, number, number - 1 or None) is State.PROMOTED
    return made


def _version(rooms: Rooms, number: int) -> None:
    source = rooms.settings.home / f"source-{number}"
    source.mkdir()
    (source / "MLmodel").write_text("x" * 100 * number)
    model = ModelStore(rooms.settings.models).admit(source)
    python = rooms.settings.environments / (f"{number}" * 64) / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (python.parents[1] / ".ready").write_text("{}")
    config = Component(component="digits").as_json()
    run = rooms.registry.start_run("digits", key=f"run-{number}", tags={})
    rooms.registry.register("digits", run_id=run.id, model=f"models:/m-{number}", key=f"v{number}", tags={})
    record = VersionRecord("digits", number, run.id, "models:/m", str(model), model.name, str(python), "b", "/", config)
    remember(rooms, record)
    rooms.ledger.append(Draft("digits", Action.REGISTERED, ADA, "made", f"r{number}", version=number))
    rooms.ledger.append(Draft("digits", Action.ACCEPTED, ADA, "fine", f"a{number}", version=number))


def promote(rooms: Rooms, version: int, expected: int | None) -> State:
    request = PromoteRequest("digits", version, expected, Trigger(Cause.PERSON, f"k{version}", "person:ada", "better"))
    return FLOWS["promote"](Undurable({}), rooms, request).state


def gone(rooms: Rooms, version: int) -> None:
    retire(rooms, "digits", version, actor=ADA, reason="wrong labels")


def model(rooms: Rooms, version: int) -> Path:
    record = json.loads((rooms.settings.home / "versions" / "digits" / f"v{version}" / "record.json").read_text())
    return Path(record["model"])


def test_a_retired_version_is_in_the_ledger_once_and_mlflow_is_told(rooms: Rooms) -> None:
    gone(rooms, 5)
    gone(rooms, 5)
    (entry,) = rooms.ledger.select("digits", {Action.RETIRED})
    assert (entry.version, entry.actor, entry.reason) == (5, ADA, "wrong labels")
    assert rooms.registry.version("digits", 5).tags[TAG] == "person:ada: wrong labels"


@pytest.mark.parametrize(
    ("version", "fact", "remedy"),
    [
        (3, "Version 3 of digits is in production", "headrace promote digits"),
        (2, "`headrace rollback digits` would go back to", "another version"),
        (4, "waits for approval", "headrace reject digits --version 4"),
    ],
)
def test_what_is_needed_is_not_retired(rooms: Rooms, version: int, fact: str, remedy: str) -> None:
    approvals.request(
        rooms, "digits", 4, Trigger(Cause.COMMIT, "c0ffee", "git:Ada", "a commit"), "approval is required", champion=3
    )
    with pytest.raises(Conflict, match=fact) as refusal:
        gone(rooms, version)
    assert remedy in refusal.value.remedy
    assert rooms.ledger.select("digits", {Action.RETIRED}) == []


def test_a_version_that_is_not_there_is_not_retired(rooms: Rooms) -> None:
    with pytest.raises(NotFound, match=r"no version 9 \(it has: 1, 2, 3, 4, 5\)"):
        gone(rooms, 9)


def test_a_retired_version_is_not_promoted(rooms: Rooms) -> None:
    gone(rooms, 4)
    assert promote(rooms, 4, 3) is State.REFUSED
    serving = rooms.ledger.serving("digits", Stage.PRODUCTION)
    assert serving is not None
    assert serving.version == 3


def test_a_version_that_is_retired_while_it_is_loaded_is_not_promoted(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.lifecycle.production.promote.pass_production_door", lambda *_: gone(rooms, 4))
    assert promote(rooms, 4, 3) is State.REFUSED
    assert rooms.ledger.select("digits", {Action.PROMOTED}, version=4) == []


def test_nobody_goes_back_to_a_retired_version(rooms: Rooms) -> None:
    gone(rooms, 1)
    with pytest.raises(Conflict, match="was retired by person:ada on 2026-11-21: wrong labels"):
        roll_back(rooms, "digits", to=1, actor=ADA, reason="back", key="a")
    roll_back(rooms, "digits", to=None, actor=ADA, reason="back", key="b")
    assert previous_champion(rooms, "digits") is None
    with pytest.raises(Conflict, match="nothing to go back to"):
        roll_back(rooms, "digits", to=None, actor=ADA, reason="again", key="c")


def collected(rooms: Rooms, asked: Asked = Asked(), *, running: tuple[str, ...] = ()) -> Collected:  # noqa: B008
    return collect(rooms, asked, running=running, ledger_of=lambda _: rooms.ledger)


def test_only_what_nobody_needs_is_removed(rooms: Rooms) -> None:
    gone(rooms, 1)
    rooms.ledger.append(Draft("digits", Action.REFUSED, ADA, "gate", "x4", version=4))
    rehearsed = collected(rooms, Asked(is_rehearsal=True))
    assert [(item.name, item.bytes) for item in rehearsed.items] == sorted(
        (model(rooms, number).name, 100 * number) for number in (1, 4)
    )
    assert all(model(rooms, number).exists() for number in range(1, 6)), "a rehearsal removes nothing"
    done = collected(rooms)
    assert done.items == rehearsed.items
    assert [number for number in range(1, 6) if model(rooms, number).exists()] == [2, 3, 5]
    assert not model(rooms, 1).with_suffix(".sha256").exists()
    assert collected(rooms).items == []


def test_what_waits_or_is_warm_stays_whatever_else_is_said(rooms: Rooms) -> None:
    for number in (4, 5):
        rooms.ledger.append(Draft("digits", Action.REFUSED, ADA, "gate", f"x{number}", version=number))
    approvals.request(
        rooms, "digits", 4, Trigger(Cause.COMMIT, "c0ffee", "git:Ada", "a commit"), "approval is required", champion=3
    )
    assert [item.name for item in collected(rooms).items] == [model(rooms, 5).name]


def test_models_wait_for_flows_that_may_be_making_one(rooms: Rooms) -> None:
    gone(rooms, 1)
    found = collected(rooms, running=("digits/person-1/1",))
    assert found.items == []
    assert found.left == ["Copies of models and data are left alone until 1 flows have ended (digits/person-1/1)."]


def test_copies_of_data_go_with_the_last_version_that_was_made_with_them(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def baseline_of(folder: Path) -> SimpleNamespace:
        version = folder.parent.name.removeprefix("v")
        return SimpleNamespace(data={"train": DataFacts("train.csv", version * 64), "holdout": DataFacts("h.csv", "h")})

    monkeypatch.setattr("headrace.lifecycle.upkeep.garbage.read_baseline", baseline_of)
    old, young = (NOW - timedelta(days=days) for days in (30, 1))
    for digest, made in (("1" * 64, old), ("2" * 64, old), ("h", old), ("failed", old), ("fresh", young)):
        copy = rooms.settings.kept_data / digest / "train.csv"
        copy.parent.mkdir(parents=True)
        copy.write_text("a\n1\n")
        copy.parent.chmod(0o500)
        os.utime(copy.parent, (made.timestamp(), made.timestamp()))
    gone(rooms, 1)
    found = [item.name for item in collected(rooms).items if item.kind is Kind.DATA]
    assert found == ["1" * 64, "failed"]
    assert sorted(path.name for path in rooms.settings.kept_data.iterdir()) == ["2" * 64, "fresh", "h"]


def test_copies_of_data_stay_where_nobody_knows_who_needs_them(rooms: Rooms) -> None:
    copy = rooms.settings.kept_data / "failed"
    copy.mkdir(parents=True)
    os.utime(copy, (0, 0))
    found = collected(rooms)  # No version of this house has a baseline.
    assert found.items == []
    assert "Copies of data are left alone" in found.left[0]
    assert copy.exists()


def test_an_unknown_component_is_told(rooms: Rooms) -> None:
    with pytest.raises(NotFound, match=r"no component `\.\./flows`"):
        collected(rooms, Asked("../flows"))


def test_of_ended_flows_events_and_logs_stay(rooms: Rooms) -> None:
    assert isinstance(rooms.clock, ManualClock)
    for flow, is_ended in (("digits/person-1/1", True), ("digits/person-2/1", False), ("digits/person-3/1", True)):
        folder = rooms.folder(flow)
        for path in ("checkout/log", "checkout/sub/x", "train/log", "train/exit.json", "train/model/data", "rows.npz"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("0123456789")
        (folder / "checkout" / "sub").chmod(0o500)
        if is_ended:
            rooms.journal(flow).write("flow", Mark.ENDED, "over")
        rooms.clock.advance(86400 * 4)
    (item,) = collected(rooms).items
    assert (item.kind, item.name, item.bytes) == (Kind.FLOW, "digits--person-1--1", 40)
    first = rooms.folder("digits/person-1/1")
    left = sorted(path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file())
    assert left == ["events.jsonl", "train/exit.json", "train/log"]
    for other in ("digits/person-2/1", "digits/person-3/1"):
        assert (rooms.folder(other) / "checkout" / "sub" / "x").exists()


def test_old_predictions_of_retired_versions_go_and_their_files_a_little_later(rooms: Rooms) -> None:
    assert isinstance(rooms.clock, ManualClock)
    folder = rooms.settings.predictions / "digits"
    segments = [
        Segment(f"segments/{version}-{last[:8]}.parquet", 10, 7, last, last, version, "2026-01-01")
        for version in (1, 3) for last in (OLD, YOUNG)
    ]  # fmt: skip
    for one in segments:
        (folder / one.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / one.path).write_bytes(b"1234567")
    write_manifest(folder, Manifest(tuple(segments), retired=(Retired("segments/long-gone.parquet", 0.0),)))
    assert collected(rooms).items == [], "nothing is retired, and the replaced file is not there"
    gone(rooms, 1)
    found = collected(rooms, Asked("digits"))
    assert [(item.kind, item.name, item.bytes) for item in found.items if item.kind is Kind.PREDICTIONS] == [
        (Kind.PREDICTIONS, "digits/v1", 7)
    ]
    assert [one.path for one in read_manifest(folder).predictions] == [one.path for one in segments[1:]]
    assert (folder / segments[0].path).exists(), "somebody may be reading it"
    rooms.clock.advance(3600)
    assert [item.why for item in collected(rooms).items] == ["replaced long ago"]
    assert not (folder / segments[0].path).exists()


def test_a_home_whose_ledger_cannot_be_read_needs_all_its_environments(rooms: Rooms) -> None:
    def unreadable(_: Settings) -> Ledger:
        raise HeadraceError("The ledger is away.")

    gone(rooms, 1)
    assert len(needed(rooms.settings, unreadable)) == 5


def test_a_retired_version_needs_no_environment(rooms: Rooms) -> None:
    gone(rooms, 1)
    kept = needed(rooms.settings, lambda _: rooms.ledger)
    assert sorted(digest[0] for digest in kept) == ["2", "3", "4", "5"]
