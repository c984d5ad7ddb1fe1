"""Nights are compared with nights: a daily rhythm is no drift, and a night like a day is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from headrace.config.component import Monitor
from headrace.errors import InvalidConfig
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Consequence, Window
from headrace.monitoring.judge import judge
from headrace.monitoring.seasons import Seasons, load, profile, save, season_of, split
from headrace.predictions.base import Joined
from headrace.predictions.ids import Ids
from headrace.types import Prediction, Task

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
BY_HOUR = Monitor(window=300, time_column="asked_at", season="hour")


def is_night(moment: datetime) -> bool:
    return moment.hour < 8


def drawn(seed: int, moments: list[datetime], *, like_a_day: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load of a power line: low at night. The answer is right in nine of ten rows."""
    chance = np.random.default_rng(seed)
    night = np.array([is_night(one) and not like_a_day for one in moments])
    load_now = chance.normal(np.where(night, 0.0, 4.0), 1.0)
    truth = chance.integers(0, 2, len(moments))
    sure = np.clip(chance.normal(0.9, 0.05, len(moments)), 0.5, 0.999)
    right = chance.random(len(moments)) < sure
    score_of_one = np.where(truth == 1, np.where(right, sure, 1 - sure), np.where(right, 1 - sure, sure))
    return load_now, truth, np.stack([1 - score_of_one, score_of_one], axis=1)


def holdout(monitor: Monitor, *, shuffled: bool = False) -> Seasons:
    moments = [START + timedelta(minutes=4 * at) for at in range(15 * 24 * 20)]
    load_now, truth, scores = drawn(0, moments)
    order = np.random.default_rng(9).permutation(len(moments)) if shuffled else np.arange(len(moments))
    rows = Rows(order, truth[order], scores[order].argmax(axis=1), scores[order])
    table = pa.table({"asked_at": [moments[at] for at in order]})
    return profile(rows, {"load": load_now[order]}, task=Task.CLASSIFICATION, monitor=monitor, table=table)


def window(seed: int, hour: int, *, like_a_day: bool = False) -> Window:
    moments = [START + timedelta(days=90, hours=hour, seconds=10 * at) for at in range(300)]
    load_now, _, scores = drawn(seed, moments, like_a_day=like_a_day)
    ids = Ids().batch(300)
    answered = [
        Prediction(ids[at], "line", 1, moments[at], {"load": float(load_now[at])}, scores[at].tolist(), 1.0)
        for at in range(300)
    ]
    rows = [Joined(one, None, is_labelled=False) for one in answered]
    return Window("line", 1, rows)


def test_a_night_is_compared_with_nights(tmp_path: Path) -> None:
    usual = holdout(Monitor(window=300))
    assert judge(window(1, 3), usual, Monitor(window=300)).consequence is not Consequence.NONE
    save(holdout(BY_HOUR), tmp_path)
    seasonal = load(tmp_path)
    assert sorted(seasonal.by_name) == [f"{hour:02d}h" for hour in range(24)]
    for hour in (3, 12, 23):
        assert judge(window(hour, hour), seasonal, BY_HOUR).consequence is Consequence.NONE
    odd = judge(window(2, 3, like_a_day=True), seasonal, BY_HOUR)
    assert odd.consequence is not Consequence.NONE
    assert "load" in odd.sentence


def test_the_order_of_the_holdouts_rows_does_not_matter(tmp_path: Path) -> None:
    in_order, shuffled = holdout(BY_HOUR), holdout(BY_HOUR, shuffled=True)
    assert (
        shuffled.by_name["03h"].numbers["load"].counts.tolist()
        == in_order.by_name["03h"].numbers["load"].counts.tolist()
    )
    assert shuffled.overall.numbers["load"].correlation_time == in_order.overall.numbers["load"].correlation_time > 10
    assert shuffled.by_name["03h"].numbers["load"].correlation_time < 2


def test_a_window_over_many_hours_is_compared_with_the_whole() -> None:
    seasons = holdout(BY_HOUR)
    assert seasons.at([START + timedelta(hours=3, minutes=minute) for minute in range(50)]) is seasons.by_name["03h"]
    assert seasons.at([START + timedelta(hours=hour) for hour in range(24)]) is seasons.overall
    assert seasons.at([]) is seasons.overall


def test_a_season_with_few_rows_has_no_reference_of_its_own() -> None:
    moments = [START + timedelta(minutes=at) for at in range(60 * 5 - 10)]
    assert split(moments, "hour") == {}
    assert list(split(moments, "weekday")) == ["Mon"]
    assert season_of(START + timedelta(hours=26), "hour of weekday") == "Tue 02h"


@pytest.mark.parametrize(
    "values", [["2026-03-02T03:00:00+01:00"] * 2, [1772416800.0] * 2, [datetime(2026, 3, 2, 2, tzinfo=UTC)] * 2]
)
def test_moments_come_as_texts_seconds_or_timestamps(values: list[object]) -> None:
    from headrace.monitoring.seasons import moments_of

    assert moments_of(pa.table({"t": values}), "t") == [datetime(2026, 3, 2, 2, tzinfo=UTC)] * 2


def test_a_column_that_is_missing_or_no_moment_is_named() -> None:
    from headrace.monitoring.seasons import moments_of

    with pytest.raises(InvalidConfig, match=r"`when`.*it has: t"):
        moments_of(pa.table({"t": ["x"]}), "when")
    with pytest.raises(InvalidConfig, match="`t` holds something that is no moment"):
        moments_of(pa.table({"t": ["yesterday"]}), "t")
    with pytest.raises(ValidationError, match="needs `time_column`"):
        Monitor(season="hour")
