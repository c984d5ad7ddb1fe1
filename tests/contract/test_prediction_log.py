"""What every prediction log does."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.bucket import Bucket
from headrace.clock import ManualClock
from headrace.predictions.base import Counts, Delays, PredictionLog
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.predictions.segments import SegmentLog
from headrace.predictions.shipping import ship
from headrace.types import Actual, Json, Prediction

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class TwoNodes(SegmentLog):
    """Written on one node, shipped at once, read on another that has the store alone."""

    def __init__(self, folder: Path) -> None:
        store = Bucket(f"file://{folder / 'store'}")
        super().__init__(folder / "reader", store=store)
        self._writer = SegmentLog(folder / "writer", store=store)

    def append(self, predictions: Sequence[Prediction]) -> None:
        self._writer.append(predictions)
        self._ship({one.component for one in predictions})

    def append_actuals(self, component: str, actuals: Sequence[Actual]) -> None:
        self._writer.append_actuals(component, actuals)
        self._ship({component})

    def _ship(self, components: set[str]) -> None:
        for name in components:
            remote = self._writer.remote(name)
            assert remote is not None
            assert ship(remote).left == 0


@pytest.fixture(params=["memory", "segments", "store"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> PredictionLog:
    made: dict[str, Callable[[], PredictionLog]] = {
        "memory": MemoryLog,
        "segments": lambda: SegmentLog(tmp_path / "predictions"),
        "store": lambda: TwoNodes(tmp_path),
    }
    return made[str(request.param)]()


def rows(count: int, *, version: int = 1, output: Json = "yes", shadow: bool = False) -> list[Prediction]:
    clock = ManualClock(START + timedelta(hours=version))
    ids = Ids(clock)
    made = []
    for number in range(count):
        clock.advance(1)
        inputs: dict[str, Json] = {"n": number, "text": f"row {number}", "pixels": [0.5, float(number)]}
        made.append(Prediction(ids.new(), "churn", version, clock.now(), inputs, output, 1.5, shadow))
    return made


def test_a_row_comes_back_as_it_went_in(log: PredictionLog) -> None:
    (row,) = rows(1, output=[0.25, 0.75])
    log.append([row])
    (found,) = log.joined("churn")
    assert found.prediction == row
    assert found.actual is None
    assert not found.is_labelled


def test_outputs_of_every_kind_come_back(log: PredictionLog) -> None:
    outputs: list[Json] = ["yes", 3, 0.5, [0.1, 0.9], {"label": "a", "score": 0.9}, None, True]
    made = [rows(1, version=number + 1, output=output)[0] for number, output in enumerate(outputs)]
    log.append(made)
    assert [found.prediction.output for found in log.joined("churn")] == outputs


def test_rows_come_oldest_first_after_an_id_up_to_a_limit(log: PredictionLog) -> None:
    made = rows(10)
    for row in reversed(made):
        log.append([row])
    assert [found.prediction.id for found in log.joined("churn", after=made[3].id, limit=4)] == [
        row.id for row in made[4:8]
    ]


def test_versions_are_told_apart_and_shadows_left_out(log: PredictionLog) -> None:
    first, second, shadow = rows(3), rows(2, version=2), rows(4, version=3, shadow=True)
    log.append([*first, *second, *shadow])
    assert [found.prediction.id for found in log.joined("churn", version=2)] == [row.id for row in second]
    assert len(log.joined("churn")) == 5
    assert log.counts("churn").predictions == 5


def test_the_first_actual_counts_and_the_rest_is_accounted_for(log: PredictionLog) -> None:
    made = rows(4)
    log.append(made)
    late = made[-1].at + timedelta(days=1)
    log.append_actuals("churn", [Actual(made[0].id, "no", late), Actual(made[1].id, 7, late)])
    log.append_actuals("churn", [Actual(made[0].id, "no", late), Actual(made[0].id, "maybe", late)])
    log.append_actuals("churn", [Actual(made[2].id, False, START - timedelta(days=1))])
    log.append_actuals("churn", [Actual("unknown", "no", late), Actual(Ids(ManualClock(START)).new(), "no", late)])
    assert [(found.actual, found.is_labelled) for found in log.joined("churn")] == [
        ("no", True), (7, True), (False, True), (None, False),
    ]  # fmt: skip
    assert log.counts("churn") == Counts(4, 3, orphans=2, duplicates=1, conflicts=1, early=1)


def test_an_actual_before_its_prediction_finds_it_later(log: PredictionLog) -> None:
    (row,) = rows(1)
    log.append_actuals("churn", [Actual(row.id, "yes", row.at)])
    assert log.counts("churn") == Counts(0, 0, orphans=1)
    log.append([row])
    assert log.counts("churn") == Counts(1, 1)


def test_an_actual_that_no_answer_can_be_compared_with_is_counted(log: PredictionLog) -> None:
    made = rows(5)
    log.append(made)
    values: list[Json] = [None, [1, 2], {"label": "yes"}, "yes", "[yes]"]
    log.append_actuals("churn", [Actual(row.id, value, row.at) for row, value in zip(made, values, strict=True)])
    assert [found.actual for found in log.joined("churn")] == values
    assert log.counts("churn") == Counts(5, 5, mistyped=3)


def test_rows_of_a_clock_that_stepped_back_keep_their_order_and_are_counted(log: PredictionLog) -> None:
    clock = ManualClock(START)
    ids = Ids(clock)
    made = []
    for step in (1, 1, -3600, 1, 1):
        clock.advance(step)
        made.append(Prediction(ids.new(), "churn", 1, clock.now(), {"n": len(made)}, "yes", 1.0))
    log.append(made)
    log.append_actuals("churn", [Actual(made[4].id, "no", clock.now())])
    assert [found.prediction.inputs["n"] for found in log.joined("churn")] == [0, 1, 2, 3, 4]
    assert [found.is_labelled for found in log.joined("churn")] == [False] * 4 + [True]
    assert log.counts("churn") == Counts(5, 1, behind=3)


def test_counts_since_leave_out_what_is_older(log: PredictionLog) -> None:
    made = rows(10)
    log.append(made)
    log.append_actuals("churn", [Actual(row.id, "yes", row.at) for row in made[:5]])
    assert log.counts("churn", since=made[3].at) == Counts(7, 2)


def test_an_unknown_component_has_no_rows(log: PredictionLog) -> None:
    assert list(log.joined("nobody")) == []
    assert log.counts("nobody") == Counts(0, 0)


def test_delays_are_told_from_the_predictions_that_are_old_enough(log: PredictionLog) -> None:
    now = datetime.now(UTC)
    later, yesterday = now + timedelta(minutes=20), now - timedelta(days=1)
    assert log.delays("churn", since=yesterday, now=later) == Delays()
    for hours in (2, 1):
        at = now - timedelta(hours=hours)
        ids = Ids(ManualClock(at)).batch(60)
        log.append([Prediction(one, "churn", 1, at, {"n": 1}, "yes", 1.0) for one in ids])
        log.append_actuals("churn", [Actual(one, "yes", now) for one in ids])
        log.append_actuals("churn", [Actual(one, "no", later) for one in ids])  # Only the first one counts.
    found = log.delays("churn", since=yesterday, now=later)
    assert found.labels == 60  # Those of an hour ago could not have taken two.
    assert found.within_s == pytest.approx(7200, abs=600)
    assert log.delays("churn", since=now - timedelta(hours=1.5), now=later).within_s == pytest.approx(3600, abs=600)
