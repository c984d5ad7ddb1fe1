"""SQL over the log works where a field's type changed, between versions and between rows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.errors import InvalidInput, Unavailable
from headrace.predictions import snapshot
from headrace.predictions.batch import Batch, encode
from headrace.predictions.ids import Ids
from headrace.predictions.journal import SUFFIX, Journal
from headrace.predictions.manifest import read_manifest
from headrace.predictions.query import COUNTS, connect
from headrace.predictions.roll import roll

AT = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
IDS = Ids()
VALUES: dict[str, Any] = {
    "number": [1],
    "text": ["abc"],
    "moment": np.array(["2026-03-01"], "datetime64[s]"),
    "list": [[1.5, 2.5]],
    "array": np.ones((1, 4), "f4"),
    "longer array": np.ones((1, 8), "f4"),
    "struct": [{"a": 1}],
    "another struct": [{"b": "x"}],
}


def put(folder: Path, version: int, values: Any) -> None:
    journal = Journal(folder / "journals" / f"{IDS.new()}{SUFFIX}")
    journal.append(encode([Batch(IDS.batch(1), AT, version, {"a": values}, {"": ["x"]}, 1.0)]))
    journal.close()


def ask(folder: Path, sql: str) -> list[Any]:
    with connect(snapshot.take(folder)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("rolls", [0, 1, 2], ids=["open", "one rolled", "both rolled"])
@pytest.mark.parametrize(
    ("old", "new"), [("text", "list"), ("array", "longer array"), ("list", "struct"), ("moment", "number")]
)
def test_two_types_can_be_asked_about(tmp_path: Path, old: str, new: str, rolls: int) -> None:
    for version, name in enumerate((old, new)):
        put(tmp_path, version, VALUES[name])
        if version < rolls:
            roll(tmp_path)
    with connect(snapshot.take(tmp_path)) as connection:
        assert len(connection.execute("SELECT * FROM joined").fetchall()) == 2
        assert connection.execute(COUNTS).fetchall()[0][0] == 2


def test_what_does_not_go_together_is_text_and_json(tmp_path: Path) -> None:
    for version, name in enumerate(("text", "list", "number", "struct")):
        put(tmp_path, version, VALUES[name])
        roll(tmp_path)
    assert ask(tmp_path, "SELECT in_a FROM predictions ORDER BY version") == [
        ("abc",), ("[1.5,2.5]",), ("1",), ('{"a":1}',),
    ]  # fmt: skip


def test_what_goes_together_keeps_its_type(tmp_path: Path) -> None:
    for version, name in enumerate(("array", "longer array", "list")):
        put(tmp_path, version, VALUES[name])
    assert ask(tmp_path, "SELECT len(in_a), list_sum(in_a) FROM predictions ORDER BY version") == [
        (4, 4.0), (8, 8.0), (2, 4.0),
    ]  # fmt: skip
    roll(tmp_path)
    put(tmp_path / "b", 1, VALUES["struct"])
    put(tmp_path / "b", 2, VALUES["another struct"])
    assert ask(tmp_path / "b", "SELECT in_a.a, in_a.b FROM predictions ORDER BY version") == [(1, None), (None, "x")]


@pytest.mark.parametrize(
    "sql", ["SELECT in_a::INTEGER FROM predictions", "SELECT nothing FROM joined", "SELEC", "SELECT 1 FROM nothing"]
)
def test_a_query_that_cannot_be_run_says_what_to_type_next(tmp_path: Path, sql: str) -> None:
    put(tmp_path / "churn", 1, VALUES["text"])
    with pytest.raises(InvalidInput, match="DuckDB cannot run this") as refused:
        ask(tmp_path / "churn", sql)
    assert 'headrace predictions query churn "DESCRIBE joined"' in refused.value.remedy


def test_a_damaged_segment_is_told_with_the_command_that_finds_it(tmp_path: Path) -> None:
    folder = tmp_path / "churn"
    put(folder, 1, VALUES["text"])
    roll(folder)
    (folder / read_manifest(folder).predictions[0].path).write_bytes(b"no Parquet")
    with pytest.raises(Unavailable, match="cannot be read") as told:
        ask(folder, "SELECT * FROM joined")
    assert "headrace predictions check churn" in told.value.remedy


def test_values_that_hardly_come_twice_are_written_without_a_dictionary(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journals" / f"{IDS.new()}{SUFFIX}")
    inputs = {
        "image": np.ones((2, 4), "f4"),
        "pixels": np.ones((2, 4), "i4"),
        "town": ["Bern", "Bern"],
        "age": [4.5, 5],
    }
    inputs |= {"nested.name": [{"a": [1.5], "b": "x"}] * 2}
    journal.append(encode([Batch(IDS.batch(2), AT, 1, inputs, {"": np.zeros((2, 3))}, [1.0, 2.0])]))
    journal.close()
    roll(tmp_path)
    [segment] = read_manifest(tmp_path).predictions
    group = pq.read_metadata(tmp_path / segment.path).row_group(0)
    columns = {one.path_in_schema: set(one.encodings) for one in map(group.column, range(group.num_columns))}
    by_byte = {path for path, encodings in columns.items() if "BYTE_STREAM_SPLIT" in encodings}
    assert by_byte == {"in_image.list.element", "out_.list.element", "latency_ms"}
    without = {path for path, encodings in columns.items() if "RLE_DICTIONARY" not in encodings}
    assert without == {*by_byte, "id", "shadow"}
    rows = ask(tmp_path, 'SELECT in_image, in_pixels, in_town, in_age, "in_nested.name".a, latency_ms FROM predictions')
    assert rows[0] == ([1.0] * 4, [1] * 4, "Bern", 4.5, [1.5], 1.0)
