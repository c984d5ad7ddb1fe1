"""What of the answered rows reaches the prediction log, whatever the model's answers look like."""

import logging
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.predictions.segments import SegmentLog
from headrace.serving import recorder as recorders
from headrace.serving.batch import BatchAnswer, Job
from headrace.serving.frames import Outputs
from headrace.serving.layout import Rows
from headrace.serving.recorder import Keeping, Recorder
from headrace.serving.scoring import scoring_of
from headrace.types import UNNAMED, Field, FieldKind, Prediction, Signature

NUMBERS = scoring_of(Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 1)),)))
TEXTS = scoring_of(Signature((Field(UNNAMED, FieldKind.TENSOR, "str", (-1, -1)),)))
THREE = {"inputs": [[1], [2], [3]]}


class Bench:
    """A recorder, and what its log holds in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder(folder, "ages")
        self.recorder.open()

    def record(
        self, rows: Rows, values: Any, container: str = "array", keeping: Keeping | None = None, golden: int = 0
    ) -> None:
        now = time.monotonic()
        jobs = [Job(rows, None, None, now, now + 1)]
        jobs += [Job(rows, None, None, now, now + 1, kept=False) for _ in range(golden)]
        count = rows.count * len(jobs)
        answer = BatchAnswer(Outputs(container, [("", values)]), count)
        ids = self.recorder.ids(count)
        self.recorder.record(1, jobs, answer, ids, now, keeping=keeping or Keeping(), shadow=False)

    def kept(self) -> list[Prediction]:
        self.recorder.close()
        return [one.prediction for one in SegmentLog(self.folder).joined("ages")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def read(scoring: Any, document: Any) -> Rows:
    rows: Rows = scoring.read(msgspec.json.encode(document)).rows
    return rows


def texts(*values: str) -> Any:
    return np.array(values, object)


@pytest.mark.parametrize("sample", [1.0, 0.9999999])
@pytest.mark.parametrize(
    ("values", "container", "output"),
    [
        (np.array([7.0]), "array", [7.0]),
        (np.array([7.0, 8.0, 9.0, 10.0]), "array", [7.0, 8.0, 9.0, 10.0]),
        (np.array(7.0), "array", 7.0),
        (texts('{"all": 6}'), "value", '{"all": 6}'),
    ],
)
def test_an_answer_to_a_batch_as_a_whole_is_kept_with_each_row(
    bench: Bench, values: Any, container: str, output: Any, sample: float
) -> None:
    bench.record(read(NUMBERS, THREE), values, container, Keeping(sample))
    assert [one.output for one in bench.kept()] == [output] * 3
    assert (bench.recorder.written, bench.recorder.dropped) == (3, 0)


def test_answers_by_row_stay_with_their_rows(bench: Bench) -> None:
    bench.record(read(NUMBERS, THREE), np.arange(6.0), golden=1)
    assert [(one.inputs[""], one.output) for one in bench.kept()] == [([1.0], 0.0), ([2.0], 1.0), ([3.0], 2.0)]


def test_rows_that_cannot_be_recorded_are_counted_and_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorders, "WHOLE_BYTES", 20)
    with caplog.at_level(logging.ERROR):
        bench.record(read(NUMBERS, THREE), np.array([7.0, 8.0]))
    bench.record(read(NUMBERS, THREE), np.arange(3.0))
    assert len(bench.kept()) == 3
    assert (bench.recorder.written, bench.recorder.dropped) == (3, 3)
    (told,) = caplog.records
    assert told.exc_info


def test_columns_with_numbers_for_names_are_kept_and_redacted(bench: Bench) -> None:
    rows = read(scoring_of(None), {"dataframe_split": {"columns": [0, 1], "data": [["secret", 2]]}})
    bench.record(rows, np.zeros(1), keeping=Keeping(redact=frozenset({"0"})))
    assert [one.inputs for one in bench.kept()] == [{"1": 2}]


def test_rows_without_any_text_are_kept(bench: Bench) -> None:
    bench.record(read(TEXTS, {"instances": [[], []]}), np.zeros(2))
    assert [one.inputs for one in bench.kept()] == [{"": []}] * 2
    assert bench.recorder.dropped == 0
