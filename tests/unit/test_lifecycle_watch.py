"""What an alarm starts: as much as `retrain.on` says, and never more often than the cooldown."""

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.config.component import Component, Retrain
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.ledger.base import Action
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.request import Cause, WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.lifecycle.watching.watch import Judged, act, watch
from headrace.lifecycle.watching.watchbook import failure
from headrace.monitoring.base import Consequence
from headrace.monitoring.signals import estimated, inputs, output, quality, sequential
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry


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
