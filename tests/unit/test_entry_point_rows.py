"""What a component's own entry point writes is taken for what it says, or refused."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import TrainingFailed
from headrace.lifecycle.candidates.entry_point_rows import _read, _rows

GOOD = {"truth": [0, 1], "answer": [0, 1]}


def read(tmp_path: Path, **columns: list[object]) -> object:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({**GOOD, **columns}), file)
    return _rows(_read(file, "judge"), "judge", ()).scores


def test_probabilities_that_add_up_are_taken(tmp_path: Path) -> None:
    taken = read(tmp_path, probability_0=[0.9, 0.3333], probability_1=[0.1, 0.6666])
    assert taken.tolist() == [[0.9, 0.1], [0.3333, 0.6666]]  # type: ignore[attr-defined]


def test_the_positive_class_may_stand_alone(tmp_path: Path) -> None:
    assert read(tmp_path, probability_1=[0.2, 0.9]).tolist() == [[0.2], [0.9]]  # type: ignore[attr-defined]
    with pytest.raises(TrainingFailed, match="2 of 2 rows, 20"):
        read(tmp_path, probability_1=[20, 90])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"probability_0": [95.0, 5.0], "probability_1": [5.0, 95.0]}, "`probability_0`.*2 of 2 rows, 95"),
        ({"probability_0": [0.5, -0.5], "probability_1": [0.5, 1.5]}, "`probability_0`.*1 of 2 rows, -0.5"),
        ({"probability_0": [0.5, math.nan], "probability_1": [0.5, 1.0]}, "1 of 2 rows, nan"),
        ({"probability_0": [0.5, None], "probability_1": [0.5, 1.0]}, "1 of 2 rows, nan"),
        ({"probability_0": [0.5, math.inf], "probability_1": [0.5, 0.0]}, "1 of 2 rows, inf"),
        ({"probability_0": [0.5, 0.2], "probability_1": [0.5, 0.2]}, "do not add up to 1 in 1 of 2 rows, but to 0.4"),
        ({"probability_0": ["half", "a"], "probability_1": [0.5, 0.2]}, "no numbers"),
    ],
)
def test_what_are_no_probabilities_is_refused(tmp_path: Path, columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(TrainingFailed, match=words) as refused:
        read(tmp_path, **columns)
    assert "from 0 to 1" in refused.value.remedy
