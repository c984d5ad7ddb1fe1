"""A flow's journal says what happened, once, in order, and whole."""

from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.errors import TrainingFailed
from headrace.lifecycle.events import FILE, Journal, Mark, read_events


def test_a_step_is_told_from_start_to_end_with_its_time(tmp_path: Path) -> None:
    clock = ManualClock()
    journal = Journal(tmp_path, clock)
    with journal.step("train", "mlflow run") as note:
        clock.advance(12.5)
        journal.progress("train", "epoch 3")
        note.found = "accuracy 0.97"
        note.numbers = {"accuracy": 0.97}
    marks = [(event.mark, event.text) for event in read_events(tmp_path)]
    assert marks == [(Mark.STARTED, "mlflow run"), (Mark.PROGRESS, "epoch 3"), (Mark.DONE, "accuracy 0.97")]
    done = read_events(tmp_path, after=2)[0]
    assert done.seconds == 12.5
    assert done.numbers == {"accuracy": 0.97}


def test_a_failed_step_is_told_with_its_fact(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ManualClock())
    with pytest.raises(TrainingFailed), journal.step("train", "mlflow run"):
        raise TrainingFailed("Training ended with exit code 3.")
    assert read_events(tmp_path)[-1].mark is Mark.FAILED


def test_a_line_that_is_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ManualClock())
    journal.progress("train", "one")
    with (tmp_path / FILE).open("a") as file:
        file.write('{"at": "half')
    assert [event.text for event in read_events(tmp_path)] == ["one"]


def test_a_flow_that_has_not_begun_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == []
