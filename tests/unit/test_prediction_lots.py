"""The sample for labelling is uniform, the same everywhere, and leaves and comes back as a file."""

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from headrace.cli.traffic import from_file
from headrace.clock import ManualClock
from headrace.errors import InvalidInput
from headrace.lifecycle.candidates.retrain import is_kept_out
from headrace.monitoring.labelling import as_lines, as_sheet, sampled
from headrace.predictions import snapshot
from headrace.predictions.ids import Ids
from headrace.predictions.lots import is_to_be_labelled
from headrace.predictions.query import connect
from headrace.predictions.segments import SegmentLog
from headrace.types import Actual, Prediction

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: Ids are random: a test of them fails by chance this often.
CHANCE = 1e-6


def ids_of(clock: ManualClock, rows: int) -> list[str]:
    """Ids as an endpoint gives them out: batches, single rows, a step of the clock between."""
    ids, found = Ids(clock), []
    while len(found) < rows:
        found += ids.batch(64) + ids.batch(1)
        clock.advance(0.25)
    return found[:rows]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_the_sample_has_the_share_that_was_asked_for_at_all_times(rate: float) -> None:
    ids = ids_of(ManualClock(START), 40_000)
    chosen = np.array([is_to_be_labelled(one, rate) for one in ids])
    assert binomtest(int(chosen.sum()), len(chosen), rate).pvalue > CHANCE
    by_time = chosen.reshape(10, -1).sum(axis=1)
    assert chisquare(by_time).pvalue > CHANCE
    by_place_in_batch = [int(chosen[at::65].sum()) for at in range(65)]
    whole = [len(chosen[at::65]) for at in range(65)]
    assert chisquare(by_place_in_batch, np.array(whole) * chosen.sum() / len(chosen)).pvalue > CHANCE
    # Whether a chosen row's neighbour is chosen says nothing about it. Pairs that share a row would not be independent.
    both = int((chosen[::2] & chosen[1::2]).sum())
    assert binomtest(both, len(chosen) // 2, rate * rate).pvalue > CHANCE


def test_the_sample_is_no_other_share_of_the_same_ids() -> None:
    ids = ids_of(ManualClock(START), 20_000)
    kept = sum(is_kept_out(one, 0.3) for one in ids if is_to_be_labelled(one, 0.1))
    assert binomtest(kept, sum(is_to_be_labelled(one, 0.1) for one in ids), 0.3).pvalue > CHANCE


def test_a_higher_rate_takes_what_a_lower_one_takes() -> None:
    ids = ids_of(ManualClock(START), 5000)
    low, high = ({one for one in ids if is_to_be_labelled(one, rate)} for rate in (0.05, 0.2))
    assert low < high
    assert [one for one in ids if is_to_be_labelled(one, 0.0)] == []
    assert [one for one in ids if is_to_be_labelled(one, 1.0)] == ids


@pytest.fixture
def log(tmp_path: Path) -> SegmentLog:
    """Two versions with rows in segments, a shadow's rows, and labels for some."""
    made, clock = SegmentLog(tmp_path), ManualClock(START)
    for version, shadow in ((1, False), (2, False), (3, True)):
        ids = Ids(clock).batch(400)
        clock.advance(60)
        rows = [
            Prediction(one, "churn", version, clock.now(), {"n": at, "pixels": [0.5, 1.0]}, "yes", 1.0, shadow)
            for at, one in enumerate(ids)
        ]
        made.append(rows)
        made.append_actuals("churn", [Actual(one, "no", clock.now()) for one in ids[:100]])
    return made


def test_sql_marks_the_same_rows_each_version_at_its_own_rate(log: SegmentLog, tmp_path: Path) -> None:
    rates = {1: 0.1, 2: 1.0, 3: 1.0}
    with connect(snapshot.take(tmp_path / "churn"), label_rates=rates) as connection:
        marked = connection.execute("SELECT id::VARCHAR FROM predictions WHERE to_label ORDER BY id").fetchall()
        of_joined = connection.execute("SELECT count(*) FROM joined WHERE to_label").fetchone()
    rows = [row.prediction for row in log.joined("churn")]
    expected = [one.id for one in rows if is_to_be_labelled(one.id, rates[one.version])]
    assert [one for (one,) in marked] == expected
    assert of_joined == (len(expected),)
    with connect(snapshot.take(tmp_path / "churn")) as connection:
        assert connection.execute("SELECT count(*) FROM predictions WHERE to_label").fetchone() == (0,)


def test_what_is_not_labelled_yet_is_written_for_labelling_tools(log: SegmentLog) -> None:
    found = list(sampled(log, "churn", {2: 0.1}))
    assert found
    assert all(one.row.prediction.version == 2 and not one.row.is_labelled for one in found)
    lines = [json.loads(line) for line in as_lines(found).splitlines()]
    assert [line["data"]["prediction_id"] for line in lines] == [one.row.prediction.id for one in found]
    assert lines[0]["data"]["pixels"] == [0.5, 1.0]
    assert lines[0]["meta"] == {"reason": "in the uniform sample of 0.1", "actual": None}


def test_a_filled_in_sheet_goes_back_as_feedback(log: SegmentLog, tmp_path: Path) -> None:
    found = list(sampled(log, "churn", {1: 0.1}))
    rows = list(csv.DictReader(io.StringIO(as_sheet(found))))
    assert [row["in_n"] for row in rows] == [str(one.row.prediction.inputs["n"]) for one in found]
    rows[1]["actual"], rows[3]["actual"] = "yes", "7"
    sheet = tmp_path / "sheet.csv"
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert from_file(sheet) == [
        {"prediction_id": found[1].row.prediction.id, "actual": "yes"},
        {"prediction_id": found[3].row.prediction.id, "actual": 7},
    ]


def test_a_sheet_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("id,label\n1,2\n")
    with pytest.raises(InvalidInput, match="prediction_id and actual"):
        from_file(tmp_path / "sheet.csv")
