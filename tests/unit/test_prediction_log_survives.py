"""No row, no crash and no full disk stops a component's prediction log, or makes it tell a row twice or not at all."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.predictions import snapshot
from headrace.predictions.batch import Batch, encode
from headrace.predictions.ids import Ids
from headrace.predictions.journal import SUFFIX, Journal, read_frames
from headrace.predictions.manifest import read_manifest
from headrace.predictions.query import connect
from headrace.predictions.roll import decode_journal, roll
from headrace.predictions.segments import SegmentLog

AT = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
IDS = Ids()


def batch(values: Any, *, version: int = 1, at: float = AT) -> Batch:
    rows = len(values)
    return Batch(IDS.batch(rows), at, version, {"a": values}, {"": ["x"] * rows}, 1.0)


def leave(folder: Path, *batches: Batch, name: str = "") -> Path:
    """Leave a dead writer's journal with one frame per batch."""
    journal = Journal(folder / "journals" / f"{name or IDS.new()}{SUFFIX}")
    for one in batches:
        journal.append(encode([one]))
    journal.close()
    return journal.path


def inputs(folder: Path) -> list[Any]:
    return [row.prediction.inputs["a"] for row in SegmentLog(folder.parent).joined(folder.name)]


@pytest.mark.parametrize(
    "value",
    [2**63, [1, 2**64 - 1], {}, {"a": {}}, [{}], {"a": 2**63}, [], None],
    ids=["uint64", "uint64 in a list", "no field", "no field below", "in a list", "uint64 below", "no item", "null"],
)
def test_every_json_value_is_read_and_rolled_as_it_came(tmp_path: Path, value: object) -> None:
    folder = tmp_path / "digits"
    leave(folder, batch([1]), batch([value]), batch([3]))
    assert inputs(folder) == [1, value, 3]
    assert roll(folder) == 3
    assert inputs(folder) == [1, value, 3]
    assert read_manifest(folder).senseless_rows == 0


@pytest.mark.parametrize("width", [3, 0])
@pytest.mark.parametrize("dtype", [">f4", "f2", "longdouble", "datetime64[h]", "datetime64[Y]", "datetime64"])
def test_every_array_is_read_rolled_and_asked_about(tmp_path: Path, dtype: str, width: int) -> None:
    folder = tmp_path / "digits"
    leave(folder, batch(np.zeros((2, width), "i8").astype(dtype)))
    for rows in (2, 0):
        with connect(snapshot.take(folder)) as connection:
            assert connection.execute("SELECT count(in_a) FROM predictions").fetchall() == [(2,)]
        assert roll(folder) == rows
    assert [len(value) for value in inputs(folder)] == [width, width]


def test_rows_that_no_column_takes_are_set_aside_and_stop_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    raw = msgspec.msgpack.Ext(-1, bytes(4))  # A moment beside a number: neither Arrow nor JSON takes both.
    strange = [batch([1, raw]), batch([1], version=2**40), batch([1], at=1e300)]
    leave(folder, batch([1]), *strange, batch([2]), name="a")
    leave(folder, batch([3]), name="b")
    assert inputs(folder) == [1, 2, 3]
    assert (roll(folder), roll(folder)) == (3, 0)
    assert inputs(folder) == [1, 2, 3]
    assert read_manifest(folder).senseless_rows == 4
    kept = decode_journal((folder / "damaged" / f"a{SUFFIX}").read_bytes()).batches
    assert sorted(one.ids[0] for one in kept) == sorted(one.ids[0] for one in strange)


def test_a_part_that_parquet_does_not_take_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "digits"
    monkeypatch.setattr("headrace.predictions.tables._is_childless", lambda _: False)
    leave(folder, batch([1]), batch([{}], version=2), name="a")
    assert roll(folder) == 1
    assert read_manifest(folder).senseless_rows == 1
    assert len(read_frames((folder / "damaged" / f"a{SUFFIX}").read_bytes()).frames) == 1
    assert not list((folder / "journals").iterdir())


def test_an_empty_journal_that_was_rolled_may_be_begun_again(tmp_path: Path) -> None:
    """Between opening and locking, a roller takes a writer's file, and the writer opens one of the same name."""
    folder = tmp_path / "digits"
    path = folder / "journals" / f"a{SUFFIX}"
    path.parent.mkdir(parents=True)
    path.touch()
    assert roll(folder) == 0
    assert not path.exists()
    leave(folder, batch([1, 2]), name="a")
    assert inputs(folder) == [1, 2]
    assert roll(folder) == 2
    assert inputs(folder) == [1, 2]
