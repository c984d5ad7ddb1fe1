"""New training data is what training reads already: the same columns, and a CSV file stays one."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from headrace.config.component import DataInput
from headrace.data.tables import read_table
from headrace.lifecycle.retrain import whole_table, write_table


@pytest.mark.parametrize(("kind", "read"), [(".csv", pa_csv.read_csv), (".parquet", pq.read_table)])
def test_a_table_is_written_as_training_reads_it_under_its_digest(tmp_path: Path, kind: str, read: object) -> None:
    table = pa.table({"text": ["a, b", 'say "so"', ""], "x": [1.5, 2.0, 3.0]})
    first = write_table(table, tmp_path, "train", kind=kind)
    assert write_table(table, tmp_path, "train", kind=kind) == first
    assert Path(first).suffix == kind
    assert callable(read)
    assert read(first).to_pydict() == table.to_pydict()
    assert [path.name for path in tmp_path.iterdir()] == [Path(first).name]


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_the_old_training_file_keeps_its_labels_and_ids(tmp_path: Path, kind: str) -> None:
    table = pa.table({"id": [1, 2], "x": [0.5, 1.5], "label": ["a", "b"]})
    path = write_table(table, tmp_path, "train", kind=kind)
    old = read_table(DataInput(uri=path, label="label", id="id"), tmp_path)
    assert whole_table(old).to_pydict() == table.to_pydict()
