"""Prediction ids rise and carry their time."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.clock import ManualClock
from headrace.errors import InvalidInput
from headrace.predictions.ids import Ids, lowest, time_of


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 20)), min_size=1, max_size=20))
def test_ids_rise_whatever_the_clock_does(steps: list[tuple[float, int]]) -> None:
    clock = ManualClock()
    ids = Ids(clock)
    made: list[str] = []
    for seconds, rows in steps:
        clock.advance(seconds)
        made += ids.batch(rows)
    assert made == sorted(set(made))
    assert all(uuid.UUID(text).version == 7 and uuid.UUID(text).variant == uuid.RFC_4122 for text in made)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)))
def test_the_time_is_read_back_to_the_millisecond(naive: datetime) -> None:
    at = naive.replace(tzinfo=UTC)
    identity = Ids(ManualClock(at)).new()
    assert timedelta(0) <= at - time_of(identity) < timedelta(milliseconds=1)
    assert lowest(at) <= identity


def test_a_clock_that_steps_back_is_counted() -> None:
    clock = ManualClock()
    ids = Ids(clock)
    first = ids.new()
    clock.advance(-3600)
    assert ids.new() > first
    assert ids.steps_back == 1


def test_a_full_tail_moves_to_the_next_millisecond() -> None:
    ids = Ids(ManualClock())
    first = ids.new()
    ids._tail = (1 << 74) - 1
    assert ids.new() > first
    assert time_of(ids.new()) == time_of(first) + timedelta(milliseconds=1)


@pytest.mark.parametrize("text", ["", "nonsense", str(uuid.UUID(int=5 << 76, version=4))])
def test_what_is_no_prediction_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        time_of(text)
    assert "prediction_ids" in refused.value.remedy
