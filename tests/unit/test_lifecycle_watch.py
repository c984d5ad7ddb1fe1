"""What an alarm starts: as much as `retrain.on` says, and never more often than the cooldown."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from headrace.clock import ManualClock
from headrace.config.component import Component, Monitor, Retrain
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.evaluation.base import Rows
from headrace.ledger.base import Action
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.request import Cause, WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.lifecycle.watching.service_facts import Facts
from headrace.lifecycle.watching.watch import Judged, act, judged_of, watch
from headrace.lifecycle.watching.watchbook import failure
from headrace.monitoring import judge
from headrace.monitoring.base import Alarm, Consequence, Signal, Window
from headrace.monitoring.memory import Memory
from headrace.monitoring.reference import build
from headrace.monitoring.seasons import Seasons
from headrace.monitoring.signals import estimated, inputs, output, quality, sequential
from headrace.monitoring.signals.service import Service
from headrace.predictions.base import Joined
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Prediction, Task


def no_environments(_kind: object) -> Environments:
    raise AssertionError("the watch builds no environment")


def watched(folder: Path, *on: str) -> Rooms:
    clock = ManualClock()
    settings = Settings(state=folder / "state", home=folder / "home").prepare()
    made = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    config = Component(component="digits", retrain=Retrain(on=on)).as_json()
    (folder / "model").mkdir()
    (folder / "python").touch()
    remember(
        made,
        VersionRecord(
            "digits", 1, "run-1", "models:/m-1", str(folder / "model"), "seal", str(folder / "python"), "baseline",
            str(folder), config,
        ),
    )  # fmt: skip
    return made


def judged(consequence: Consequence, *fired: str) -> Judged:
    signals = [{"name": name, "fired": True, "p_value": 0.0, "effect": 1.0, "sentence": name} for name in fired]
    return Judged(consequence.value, "what was seen", list(signals), 300)


WINDOW = WatchRequest("digits", 1, "first", "last")
LABELLED = judged(Consequence.RETRAIN, quality.NAME, output.NAME)
ADDED_UP = judged(Consequence.RETRAIN, sequential.NAME)
ESTIMATED = judged(Consequence.RETRAIN, estimated.NAME, output.NAME, inputs.NAME)


@pytest.mark.parametrize(
    ("on", "found", "starts"),
    [
        ((), LABELLED, False),
        (("quality",), LABELLED, True),
        (("quality",), ADDED_UP, True),
        (("quality",), ESTIMATED, False),
        (("drift",), ESTIMATED, True),
        (("drift",), LABELLED, False),
        (("drift", "quality"), LABELLED, True),
        (("drift", "quality"), ESTIMATED, True),
        (("drift", "quality"), judged(Consequence.WARN, inputs.NAME), False),
        (("drift", "quality"), judged(Consequence.WARN, output.NAME, inputs.NAME), False),
        (("drift", "quality"), judged(Consequence.REBUILD, quality.NAME), False),
    ],
)
def test_an_alarm_starts_what_the_configuration_wants_of_it(
    tmp_path: Path, on: tuple[str, ...], found: Judged, starts: bool
) -> None:
    rooms = watched(tmp_path, *on)
    request = act(rooms, WINDOW, found)
    assert (request is not None) is starts
    if request is not None:
        assert (request.trigger.cause, request.trigger.reason) == (Cause.ALARM, found.sentence)
        assert request.with_production_rows
    (entry,) = rooms.ledger.history("digits")
    assert entry.action is Action.ALARM


def test_an_alarm_that_started_nothing_does_not_hold_the_next_one_up(tmp_path: Path) -> None:
    rooms = watched(tmp_path, "quality")
    assert act(rooms, WINDOW, ESTIMATED) is None
    assert act(rooms, WatchRequest("digits", 1, "next", "later"), LABELLED) is not None


def test_the_same_alarm_within_the_cooldown_starts_nothing(tmp_path: Path) -> None:
    rooms = watched(tmp_path, "quality")
    assert act(rooms, WINDOW, LABELLED) is not None
    assert act(rooms, WINDOW, LABELLED) is not None  # a repeat of the same step
    assert act(rooms, WatchRequest("digits", 1, "next", "later"), LABELLED) is None
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(7 * 3600)
    assert act(rooms, WatchRequest("digits", 1, "much", "later still"), LABELLED) is not None


@pytest.mark.parametrize("consequence", [Consequence.WARN, Consequence.RETRAIN, Consequence.REBUILD])
def test_what_the_window_before_told_is_not_told_again(tmp_path: Path, consequence: Consequence) -> None:
    rooms = watched(tmp_path, "quality")
    act(rooms, WINDOW, judged(consequence, quality.NAME))
    for number in range(1, 4):
        again = replace(judged(consequence, quality.NAME), repeats=number)
        assert act(rooms, WatchRequest("digits", 1, f"next {number}", f"later {number}"), again) is None
    assert [entry.key for entry in rooms.ledger.history("digits")] == [f"{WINDOW.window_id}/alarm"]
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(7 * 3600)
    after = act(rooms, WatchRequest("digits", 1, "much", "later still"), again)
    assert (after is not None) is (consequence is Consequence.RETRAIN), "it starts a candidate, which is new"


@pytest.mark.parametrize("step", ["judge_window", "act", "knock", "mark"])
def test_a_window_whose_judging_broke_off_anywhere_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    rooms = watched(tmp_path, "quality")
    monkeypatch.setattr("headrace.lifecycle.watching.watch.judge_window", lambda *_: LABELLED)

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"headrace.lifecycle.watching.watch.{step}", broken)
    with pytest.raises(OSError, match="No space"):
        watch(Undurable({}), rooms, WINDOW)
    found = failure(rooms, "digits", "first")
    assert found is not None
    assert found.times == 1
    assert "No space left" in found.fact


FACTS = Facts(Service(), {})


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_labels_beyond_any_sense_keep_no_alarm_from_being_written(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    usual = chance.normal(0, 1, 400)
    profile = build(Rows(np.arange(400), usual, usual + chance.normal(0, 0.1, 400)), task=Task.REGRESSION)
    truth = [1.7e308, 1.7e308, *chance.normal(0, 1, 298).tolist()]
    at, rows = datetime(2026, 3, 1, tzinfo=UTC), zip(Ids().batch(300), truth, strict=True)
    window = Window(
        "digits", 1, [Joined(Prediction(one, "digits", 1, at, {}, 9.0, 1.0), actual, True) for one, actual in rows]
    )
    watched_window = judge.watch(window, Seasons(profile), Monitor(window=300), Memory())
    rooms = watched(tmp_path, "quality")
    assert act(rooms, WINDOW, judged_of(watched_window.alarm, watched_window.memory, FACTS, 300)) is not None
    (entry,) = rooms.ledger.history("digits")
    assert "The mean absolute error rose from 0.0" in entry.reason
    assert "to 1.13e+306 over the last 300 labelled predictions" in entry.reason
    assert not {"inf", "nan"} & set(re.findall(r"\w+", entry.reason))


def test_a_number_that_no_ledger_takes_is_left_out_of_the_evidence(tmp_path: Path) -> None:
    rooms = watched(tmp_path)
    odd = [
        Signal(inputs.NAME, True, "it moved", float("nan"), float("inf")),
        Signal(output.NAME, True, "so", None, 2.0),
    ]
    act(rooms, WINDOW, judged_of(Alarm(Consequence.WARN, "it moved", odd), Memory(), FACTS, 300))
    (entry,) = rooms.ledger.history("digits")
    kept = entry.evidence["signals"]
    assert isinstance(kept, list)
    assert [(one["p_value"], one["effect"]) for one in kept if isinstance(one, dict)] == [(None, None), (None, 2.0)]
