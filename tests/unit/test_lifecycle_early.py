"""A full window whose labels are awaited is judged at once by what needs none, and nothing is said or counted twice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.cli import watching
from headrace.clock import ManualClock
from headrace.config.component import Component, Monitor, Retrain
from headrace.config.settings import Settings
from headrace.deploy.base import Status
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.evaluation.base import Rows
from headrace.ledger.base import Action, Draft, Entry
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.request import EarlyRequest, Outcome
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember, version_folder
from headrace.lifecycle.watching import service_facts
from headrace.lifecycle.watching.due import standing
from headrace.lifecycle.watching.early import act_early, look_at
from headrace.lifecycle.watching.looks import looks_of
from headrace.lifecycle.watching.watchbook import remembered, tallies, windows
from headrace.monitoring.reference import build
from headrace.monitoring.seasons import Seasons, save
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.rollout.observed import Tally
from headrace.types import Actor, Actual, Endpoint, Json, Prediction, Stage, Task

WINDOW, WAIT_S = 200, 6 * 3600.0
MONITOR = Monitor(window=WINDOW, label_delay=WAIT_S)


def no_environments(_kind: object) -> Environments:
    raise AssertionError("the watch builds no environment")


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """Version 1 of `digits` in production, answering one number each, without predictions yet."""
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    made = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    promote(made, 1, None)
    return made


def promote(rooms: Rooms, version: int, expected: int | None) -> None:
    config = Component(component="digits", monitor=MONITOR, retrain=Retrain(on=("quality",))).as_json()
    model, python = rooms.settings.home / "model", rooms.settings.home / "python"
    model.mkdir(exist_ok=True)
    python.touch()
    record = VersionRecord("digits", version, "r", "m-1", str(model), "seal", str(python), "baseline", "f", config)
    remember(rooms, record)
    draft = Draft("digits", Action.PROMOTED, Actor("ada"), "best", f"p{version}", Stage.PRODUCTION, version)
    if rooms.ledger.find(draft.key) is not None:
        draft = replace(draft, key=f"{draft.key}-again")
    rooms.ledger.move(draft, expected=expected)
    size, truth, scores = answered(0, 2000)
    profile = build(
        Rows(np.arange(2000), truth, scores.argmax(axis=1), scores), task=Task.CLASSIFICATION, inputs={"size": size}
    )
    save(Seasons(profile), version_folder(rooms, "digits", version) / "reference")


def answered(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    scores = chance.dirichlet((0.2, 0.2, 0.2), rows)
    drawn = (scores.cumsum(axis=1) > chance.random((rows, 1))).argmax(axis=1)
    return chance.normal(0, 1, rows), drawn, scores


def predict(rooms: Rooms, *, seed: int = 1, shift: float = 0.0, column: str = "size", version: int = 1) -> list[Actual]:
    """Answer a window of rows, and return what will turn out to be true."""
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    size, truth, scores = answered(seed, WINDOW)
    ids, at = Ids(clock).batch(WINDOW), clock.now()
    values = (size + shift).tolist()
    rooms.predictions.append(
        [
            Prediction(one, "digits", version, at, {column: value}, score, 1.0)
            for one, value, score in zip(ids, values, scores.tolist(), strict=True)
        ]
    )
    clock.advance(1)
    return [Actual(one, actual, at) for one, actual in zip(ids, truth.tolist(), strict=True)]


def label(rooms: Rooms, actuals: Sequence[Actual], *, wrong: bool = False) -> None:
    def told(value: Json) -> Json:
        return (value + 1) % 3 if wrong and isinstance(value, int) else value

    rooms.predictions.append_actuals("digits", [replace(one, value=told(one.value)) for one in actuals])


def look(rooms: Rooms) -> Outcome:
    """Make the early look that is due."""
    request = standing(rooms, "digits").request
    assert isinstance(request, EarlyRequest)
    return FLOWS[request.flow](Undurable({}), rooms, request)


def verdict(rooms: Rooms) -> Outcome:
    """Make the verdict that is due."""
    request = standing(rooms, "digits").request
    assert request is not None
    assert not isinstance(request, EarlyRequest)
    return FLOWS[request.flow](Undurable({}), rooms, request)


def alarms(rooms: Rooms) -> list[Entry]:
    """Return the alarms, oldest first."""
    return list(reversed(rooms.ledger.select("digits", {Action.ALARM}, limit=100)))


def test_a_break_after_a_change_of_version_takes_it_back_without_any_label(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_facts, "tallies", lambda _url, **_: {})
    predict(rooms)
    assert look(rooms).evidence["consequence"] == "none"
    promote(rooms, 2, 1)
    truths = predict(rooms, column="length", version=2)
    outcome = look(rooms)
    assert outcome.evidence["consequence"] == "roll back"
    assert outcome.fact.startswith("The input `size` is gone")
    back = rooms.ledger.serving("digits", Stage.PRODUCTION)
    assert back is not None
    assert (back.version, back.action, back.actor.name) == (1, Action.ROLLED_BACK, "monitor")
    (told,) = alarms(rooms)
    assert (told.version, told.evidence["consequence"]) == (2, "roll back")
    # Whoever serves it again decides for it; the window's verdict takes nothing back a second time.
    promote(rooms, 2, 1)
    waiting = standing(rooms, "digits")
    assert waiting.request is None
    assert "What needs no labels was judged at " in waiting.sentence
    label(rooms, truths)
    verdict(rooms)
    assert alarms(rooms) == [told]
    assert len(rooms.ledger.select("digits", {Action.ROLLED_BACK}, limit=10)) == 1


def test_a_drift_is_told_once_and_counts_as_one_window(rooms: Rooms) -> None:
    truths = predict(rooms, shift=1)
    assert look(rooms).evidence["consequence"] == "warn"
    assert standing(rooms, "digits").request is None
    label(rooms, truths)
    assert verdict(rooms).evidence["consequence"] == "warn"
    (told,) = alarms(rooms)
    assert told.reason.startswith("`size` went from ")
    assert told.reason.endswith("Its labels are awaited.")
    memory = remembered(rooms, "digits")
    assert (memory.windows, memory.streaks["input drift"]) == (1, 1)
    predict(rooms, seed=2, shift=1)
    assert look(rooms).fact.endswith("the window before said the same.")
    assert alarms(rooms) == [told]


def test_labels_that_never_come_change_nothing_of_it(rooms: Rooms) -> None:
    predict(rooms, shift=1)
    look(rooms)
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(WAIT_S)
    assert "Only 0 of 200 predictions have their labels" in verdict(rooms).fact
    assert len(alarms(rooms)) == 1
    assert standing(rooms, "digits").sentence.startswith("0 of the next window's")


def test_a_verdict_that_is_near_is_not_forestalled(rooms: Rooms) -> None:
    predict(rooms, shift=1)
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(WAIT_S - 60)
    waiting = standing(rooms, "digits")
    assert (waiting.request, waiting.sentence[:26]) == (None, "0 of 200 actuals are in; t")


def test_windows_that_fill_while_others_wait_are_looked_at_too(rooms: Rooms) -> None:
    truths = [predict(rooms)]
    look(rooms)
    truths += [predict(rooms, seed=seed, column="length") for seed in (2, 3, 4)]
    assert [look(rooms).evidence["consequence"] for _ in range(3)] == ["warn", "rebuild", "rebuild"]  # It lasts.
    assert [one.evidence["consequence"] for one in alarms(rooms)] == ["warn", "rebuild"], "told once"
    assert windows(rooms, "digits") == []
    for actuals in truths:
        label(rooms, actuals)
    for _ in truths:
        verdict(rooms)
    # One break is one window for the verdicts too, though each was seen twice.
    assert [one["consequence"] for one in windows(rooms, "digits")] == ["none", "warn", "rebuild", "rebuild"]
    assert len(alarms(rooms)) == 2
    assert looks_of(rooms, "digits", 1) == []


def test_what_the_labels_show_is_told_without_what_was_told_before(rooms: Rooms) -> None:
    label(rooms, predict(rooms, shift=1)[:150], wrong=True)
    early = look(rooms)
    assert early.evidence["consequence"] == "warn"  # The labels that come first may be the odd ones.
    assert "Accuracy" not in early.fact
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(WAIT_S)
    outcome = verdict(rooms)
    assert outcome.evidence["consequence"] == "retrain"
    assert outcome.next_flow
    _, told = alarms(rooms)
    assert told.reason.startswith("Accuracy fell from ")
    assert "`size`" not in told.reason
    assert "Told before the labels were in: input drift." in told.reason


def test_a_class_that_only_labels_show_waits_for_all_of_them(rooms: Rooms) -> None:
    unknown = [replace(one, value=9) for one in predict(rooms)[:150]]
    label(rooms, unknown)
    assert look(rooms).evidence["consequence"] == "none"
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(WAIT_S)
    assert "of a class that the model does not know" in verdict(rooms).fact


def break_off(rooms: Rooms, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"headrace.lifecycle.watching.early.{step}", full_disk)
        with pytest.raises(OSError, match="No space"):
            look(rooms)


@pytest.mark.parametrize("step", ["look_at", "act_early", "keep"])
def test_a_look_that_broke_off_is_made_again(rooms: Rooms, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    truths = predict(rooms, shift=1)
    break_off(rooms, monkeypatch, step)
    assert standing(rooms, "digits").sentence.startswith("The window could not be judged; it is tried again at ")
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(60)
    look(rooms)
    label(rooms, truths)
    verdict(rooms)
    assert len(alarms(rooms)) == 1
    assert remembered(rooms, "digits").streaks["input drift"] == 1


def test_a_look_that_broke_off_before_the_labels_came_is_not_told_again(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    truths = predict(rooms, shift=1)
    break_off(rooms, monkeypatch, "keep")
    label(rooms, truths)
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(60)
    assert verdict(rooms).evidence["consequence"] == "warn"
    assert len(alarms(rooms)) == 1


def test_a_look_that_goes_on_after_the_verdict_says_nothing(rooms: Rooms) -> None:
    truths = predict(rooms, shift=1)
    request = standing(rooms, "digits").request
    assert isinstance(request, EarlyRequest)
    looked = look_at(rooms, request)
    label(rooms, truths)
    verdict(rooms)
    act_early(rooms, request, looked.judged)
    assert len(alarms(rooms)) == 1


def test_a_replay_says_what_the_verdicts_said(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, shift in enumerate((0.0, 1.0, 1.0, 0.0), 1):
        truths = predict(rooms, seed=seed, shift=shift)
        look(rooms)
        label(rooms, truths, wrong=seed == 3)
        verdict(rooms)
    monkeypatch.setattr(watching, "here", lambda: rooms.settings)
    monkeypatch.setattr(watching.wiring, "rooms", lambda _settings: rooms)
    found = watching.replayed("digits", 0, 0.0)
    assert found.labels.endswith(" is 6 hours. What needs none is judged as soon as it is full.")
    said = [(one["consequence"], one["sentence"]) for one in windows(rooms, "digits")]
    assert [(seen.alarm.consequence.value, seen.alarm.sentence) for seen in found.windows] == said
    assert [consequence for consequence, _ in said] == ["none", "warn", "retrain", "none"]


def test_counters_are_read_once_for_each_window(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {1: Tally(1000, 0)}
    monkeypatch.setattr(service_facts, "tallies", lambda _url, **_: dict(now))
    endpoint = Endpoint("digits", Stage.PRODUCTION, "http://127.0.0.1:1", 0)
    monkeypatch.setattr(MemoryTarget, "status", lambda *_: Status(endpoint, 1, {1: 1.0}, (1,)))
    truths = predict(rooms)
    look(rooms)
    now[1] = Tally(2000, 500)
    label(rooms, truths)
    assert verdict(rooms).evidence["consequence"] == "none"
    assert tallies(rooms, "digits") == {"1": [1000, 0]}
    predict(rooms, seed=2)
    assert "500 of 1000 requests failed" in look(rooms).fact


def test_a_row_that_comes_late_is_judged_with_its_window(rooms: Rooms) -> None:
    truths = predict(rooms, shift=1)
    look(rooms)
    tenth = rooms.predictions.joined("digits")[10].prediction
    rooms.predictions.append([replace(tenth, id=tenth.id[:-1] + "~")])
    label(rooms, truths)
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(WAIT_S)
    assert verdict(rooms).evidence["rows"] == WINDOW + 1
    assert len(alarms(rooms)) == 1
    assert standing(rooms, "digits").sentence.startswith("0 of the next window's")
