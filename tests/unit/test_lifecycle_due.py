"""A window is judged when it is due, by whoever asks, once; what could not be judged is tried again."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from headrace.cli import judging
from headrace.cli.main import app
from headrace.clock import ManualClock
from headrace.config.component import Component, Monitor, Retrain
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import NotFound
from headrace.evaluation.base import Rows
from headrace.ledger.base import Action, Draft
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.request import EarlyRequest, Outcome, State
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.book import Book
from headrace.lifecycle.versions import VersionRecord, remember, version_folder
from headrace.lifecycle.watching.due import Standing, standing
from headrace.lifecycle.watching.watchbook import windows
from headrace.monitoring.reference import build
from headrace.monitoring.seasons import Seasons, save
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Actual, Prediction, Stage, Task

WINDOW = 100


def no_environments(_kind: object) -> Environments:
    raise AssertionError("the watch builds no environment")


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """Version 1 of `digits` in production, without predictions yet."""
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    made = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    monitor = Monitor(window=WINDOW, label_delay=3600.0)
    config = Component(component="digits", monitor=monitor, retrain=Retrain(on=("quality",))).as_json()
    remember(made, VersionRecord("digits", 1, "run-1", "m-1", "model", "seal", "python", "baseline", "folder", config))
    made.ledger.move(Draft("digits", Action.PROMOTED, Actor("ada"), "best", "p", Stage.PRODUCTION, 1), expected=None)
    keep_reference(made)
    return made


def keep_reference(rooms: Rooms) -> None:
    truth, scores = answered(0, 1000)
    profile = build(Rows(np.arange(1000), truth, scores.argmax(axis=1), scores), task=Task.CLASSIFICATION)
    save(Seasons(profile), version_folder(rooms, "digits", 1) / "reference")


def answered(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    scores = chance.dirichlet((0.2, 0.2, 0.2), rows)
    drawn = (scores.cumsum(axis=1) > chance.random((rows, 1))).argmax(axis=1)
    return drawn, scores


def predict(rooms: Rooms, rows: int, *, seed: int = 1, wrong: bool = False, labelled: int | None = None) -> None:
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    truth, scores = answered(seed, rows)
    actuals = (truth + 1) % 3 if wrong else truth
    ids = Ids(clock).batch(rows)
    at = clock.now()
    made = [
        Prediction(one, "digits", 1, at, {"n": 1}, score, 1.0) for one, score in zip(ids, scores.tolist(), strict=True)
    ]
    rooms.predictions.append(made)
    known = list(zip(ids, actuals.tolist(), strict=True))[:labelled]
    rooms.predictions.append_actuals("digits", [Actual(one, actual, at) for one, actual in known])
    clock.advance(1)


def judged(rooms: Rooms) -> Outcome:
    request = standing(rooms, "digits", is_asked=True).request
    assert request is not None
    return FLOWS["watch"](Undurable({}), rooms, request)


def looked(rooms: Rooms) -> Standing:
    """Make the early look that is due, and return what the window waits for after it."""
    request = standing(rooms, "digits").request
    assert isinstance(request, EarlyRequest)
    assert FLOWS["look"](Undurable({}), rooms, request).state is State.DONE
    return standing(rooms, "digits")


def test_what_is_not_due_says_what_it_waits_for(rooms: Rooms) -> None:
    assert standing(rooms, "letters").sentence == "No version of letters is in production."
    predict(rooms, WINDOW - 1)
    assert standing(rooms, "digits").sentence == "99 of the next window's 100 predictions of v1 are in."
    predict(rooms, 1, labelled=0)
    waiting = looked(rooms)
    assert waiting.request is None
    assert waiting.sentence.startswith("99 of 100 actuals are in; the others may come until ")
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(3600)
    assert standing(rooms, "digits").sentence == "100 predictions of v1 are due."


def answered_in(rooms: Rooms, seconds: float, *, rows: int = WINDOW, labelled: int = WINDOW) -> None:
    """Predict, and let time pass until the actuals are in; they bear the moment at which they came."""
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    truth, scores = answered(1, rows)
    ids, at = Ids(clock).batch(rows), clock.now()
    rooms.predictions.append(
        [
            Prediction(one, "digits", 1, at, {"n": 1}, score, 1.0)
            for one, score in zip(ids, scores.tolist(), strict=True)
        ]
    )
    clock.advance(seconds)
    known = list(zip(ids, truth.tolist(), strict=True))[:labelled]
    rooms.predictions.append_actuals("digits", [Actual(one, actual, clock.now()) for one, actual in known])


def watch_with(rooms: Rooms, monitor: Monitor) -> None:
    config = Component(component="digits", monitor=monitor).as_json()
    remember(rooms, VersionRecord("digits", 1, "run-1", "m-1", "model", "seal", "python", "baseline", "folder", config))


def test_a_window_waits_as_long_as_labels_took_so_far(rooms: Rooms) -> None:
    watch_with(rooms, Monitor(window=WINDOW))
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    predict(rooms, WINDOW, labelled=0)
    first = looked(rooms)
    assert first.request is None
    assert "(0 actuals do not say yet how long they take). What needs no labels was judged at " in first.sentence
    clock.advance(3600)
    assert judged(rooms).state is State.DONE  # Nothing is known of labels: an hour.
    answered_in(rooms, 2.5 * 3600)
    clock.advance(3 * 3600)
    assert judged(rooms).state is State.DONE
    predict(rooms, WINDOW, labelled=0)
    clock.advance(2 * 3600)
    waiting = looked(rooms)
    assert waiting.request is None
    assert "(99 of 100 actuals came within 2.5 hours)." in waiting.sentence
    clock.advance(1800)
    assert standing(rooms, "digits").request is not None


def test_labels_that_take_too_long_are_not_waited_for_and_that_is_said(rooms: Rooms) -> None:
    watch_with(rooms, Monitor(window=WINDOW, label_delay_at_most=600.0))
    answered_in(rooms, 7200)
    assert judged(rooms).state is State.DONE
    predict(rooms, WINDOW, labelled=0)
    sentence = looked(rooms).sentence
    assert "longer than `monitor.label_delay_at_most`, 10 minutes: windows are judged without the rest" in sentence
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(600)
    assert standing(rooms, "digits").request is not None


def test_each_window_is_judged_once_and_leaves_its_verdict(rooms: Rooms) -> None:
    predict(rooms, WINDOW)
    assert judged(rooms).state is State.DONE
    assert standing(rooms, "digits").sentence.startswith("0 of the next window's")
    (verdict,) = windows(rooms, "digits")
    assert (verdict["version"], verdict["rows"], verdict["consequence"]) == (1, WINDOW, "none")


def test_a_window_that_could_not_be_judged_is_tried_again_later_or_when_asked(rooms: Rooms) -> None:
    predict(rooms, WINDOW)
    profile = version_folder(rooms, "digits", 1) / "reference" / "reference.json"
    profile.rename(profile.with_suffix(".away"))
    failed = judged(rooms)
    assert failed.state is State.FAILED
    assert "no reference profile" in failed.fact
    assert standing(rooms, "digits").sentence.startswith("The window could not be judged; it is tried again at ")
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(60)
    again = standing(rooms, "digits").request
    assert again is not None
    assert again.flow_id != failed.flow_id  # The engine never runs a flow that has ended.
    assert judged(rooms).state is State.FAILED
    rooms.clock.advance(60)
    assert standing(rooms, "digits").request is None  # Twice as long after the second failure.
    profile.with_suffix(".away").rename(profile)
    assert judged(rooms).state is State.DONE
    assert len(windows(rooms, "digits")) == 1


def test_an_alarm_asks_for_its_candidate_once_however_often_the_window_was_tried(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("no room")

    predict(rooms, WINDOW, wrong=True)
    with monkeypatch.context() as patched:
        patched.setattr("headrace.lifecycle.watching.watch.mark", full_disk)
        with pytest.raises(OSError, match="no room"):
            judged(rooms)
    outcome = judged(rooms)
    assert outcome.evidence["consequence"] == "retrain"
    assert outcome.next_flow
    assert [entry.action for entry in rooms.ledger.history("digits")].count(Action.ALARM) == 1
    assert len(Book(rooms, "digits").waiting()) == 1


def test_without_a_control_process_the_command_judges_by_itself(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging.control, "find", lambda _settings: None)
    monkeypatch.setattr(judging.wiring, "rooms", lambda _settings: rooms)
    for seed in range(3):
        predict(rooms, WINDOW, seed=seed + 1)
    predict(rooms, 20)
    found = judging.Judging("digits")
    assert [outcome["state"] for outcome in found.outcomes()] == ["done"] * 3
    assert found.waits_for == "20 of the next window's 100 predictions of v1 are in."
    assert list(judging.Judging("digits").outcomes()) == []
    with pytest.raises(NotFound, match="no component `letters`"):
        list(judging.Judging("letters").outcomes())
    shown = CliRunner().invoke(app, ["monitor", "run", "digits"])
    assert (shown.exit_code, shown.output.strip()) == (0, found.waits_for)


def test_the_first_prediction_of_an_alarm_is_kept_over_windows(rooms: Rooms) -> None:
    for seed in (1, 2):
        predict(rooms, WINDOW, seed=seed, wrong=True)
        judged(rooms)
    one, two = windows(rooms, "digits")
    assert one["since"] == two["since"] == one["first"]


def test_what_comes_after_a_clock_that_was_ahead_is_judged(rooms: Rooms) -> None:
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    clock.advance(365 * 86400)
    predict(rooms, WINDOW)
    assert judged(rooms).state is State.DONE
    clock.advance(-365 * 86400)
    told = standing(rooms, "digits").sentence
    assert told.startswith("The clock was ahead: predictions of v1 that bear times up to 2027-01-01")
    assert told.endswith("0 of the next window's 100 predictions of v1 are in.")
    clock.advance(60)
    for number in range(1, 3):
        predict(rooms, WINDOW, seed=number, wrong=True)
        assert judged(rooms).evidence["rows"] == WINDOW
        assert standing(rooms, "digits").request is None
    assert [one["consequence"] for one in windows(rooms, "digits")] == ["none", "retrain", "retrain"]
    clock.advance(366 * 86400)
    assert standing(rooms, "digits").sentence == "0 of the next window's 100 predictions of v1 are in."


def test_a_process_whose_ids_stay_ahead_is_judged_beside_one_that_starts_anew(rooms: Rooms) -> None:
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    stuck = Ids(ManualClock(clock.now() + timedelta(days=30)))
    _, scores = answered(1, 4 * WINDOW)

    def answer(ids: list[str]) -> None:
        rooms.predictions.append(
            [Prediction(one, "digits", 1, clock.now(), {"n": 1}, scores[0].tolist(), 1.0) for one in ids]
        )
        rooms.predictions.append_actuals("digits", [Actual(one, 0, clock.now()) for one in ids])
        clock.advance(1)

    answer(stuck.batch(WINDOW))
    assert judged(rooms).evidence["rows"] == WINDOW
    assert standing(rooms, "digits").request is None
    clock.advance(1)
    answer(Ids(clock).batch(WINDOW // 2))
    assert standing(rooms, "digits").request is None
    answer(stuck.batch(WINDOW // 2))
    assert judged(rooms).evidence["rows"] == WINDOW
    answer(stuck.batch(WINDOW))
    assert judged(rooms).evidence["rows"] == WINDOW
    assert standing(rooms, "digits").request is None


def test_a_look_that_was_made_ahead_of_the_present_holds_up_no_other(rooms: Rooms) -> None:
    clock = rooms.clock
    assert isinstance(clock, ManualClock)
    clock.advance(365 * 86400)
    predict(rooms, WINDOW, labelled=0)
    assert looked(rooms).request is None
    clock.advance(-365 * 86400)
    assert looked(rooms).request is None, "its rows are looked at once more, now"
    clock.advance(3600)
    assert judged(rooms).evidence["rows"] == WINDOW
    assert standing(rooms, "digits").sentence.startswith("The clock was ahead")
    clock.advance(1)
    predict(rooms, WINDOW)
    assert judged(rooms).evidence["rows"] == WINDOW
