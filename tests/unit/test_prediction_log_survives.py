"""No row, no crash and no full disk stops a component's prediction log, or makes it tell a row twice or not at all."""

import errno
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.errors import InvalidInput, Unavailable
from headrace.predictions import actuals, snapshot
from headrace.predictions.actuals import roll_actuals
from headrace.predictions.batch import Batch, encode
from headrace.predictions.ids import Ids
from headrace.predictions.journal import SUFFIX, Journal, read_frames
from headrace.predictions.manifest import Manifest, read_manifest
from headrace.predictions.query import connect
from headrace.predictions.roll import decode_journal, roll
from headrace.predictions.segments import SegmentLog
from headrace.predictions.tend import tend
from headrace.predictions.upkeep import compact, rebuild, repair
from headrace.predictions.writer import PredictionWriter
from headrace.types import Actual, Prediction

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


def offer(writer: PredictionWriter, rows: int = 1) -> bool:
    ids = IDS.batch(rows)
    return writer.offer(ids, at=AT, version=1, inputs={"a": [1] * rows}, outputs={"": ["x"] * rows}, latency_ms=1.0)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def inputs(folder: Path) -> list[Any]:
    return [row.prediction.inputs["a"] for row in SegmentLog(folder.parent).joined(folder.name)]


@pytest.mark.parametrize(
    "value",
    [2**63, [1, 2**64 - 1], {}, {"a": {}}, [{}], {"a": 2**63}, [], None],
    ids=["uint64", "uint64 in a list", "no field", "no field below", "in a list", "uint64 below", "no item", "null"],
)
def test_every_json_value_is_read_and_rolled_as_it_came(tmp_path: Path, value: object) -> None:
    folder = tmp_path / "digits"
    leave(folder, batch([value]), batch([value]))
    leave(folder, batch([1]), batch([value]), batch(["x"]))
    for rows in (5, 0):
        assert inputs(folder) == [value, value, 1, value, "x"]
        assert roll(folder) == rows
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


def test_a_crash_after_the_actuals_are_rolled_doubles_none_and_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "digits"

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def told() -> int:
        seen = snapshot.take(folder)
        return sum(one.rows for one in seen.manifest.actuals) + len(seen.actuals)

    actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC)) for _ in range(10)])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            roll_actuals(folder)
    assert told() == 10
    actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC)) for _ in range(3)])
    assert told() == 13
    roll(folder)
    assert told() == 13
    assert roll_actuals(folder) == 3
    assert told() == 13
    assert not list((folder / "actuals").glob(f"*{SUFFIX}"))


def test_a_roller_that_cannot_be_started_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("headrace.predictions.writer.subprocess.Popen", busy)
    writer = PredictionWriter(tmp_path, "digits", flush_s=0.005, roll_s=0)
    for rows in (1, 2, 3):
        offer(writer)
        until(lambda rows=rows: writer.written == rows)  # type: ignore[misc]
        until(lambda: "temporarily unavailable" in writer.problem)
    writer.close()
    assert (writer.written, writer.dropped) == (3, 0)
    assert inputs(tmp_path / "digits") == [1, 1, 1]


def test_what_goes_wrong_in_one_round_is_counted_and_the_next_round_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = PredictionWriter._write, [MemoryError("no room"), RuntimeError("a mistake")]

    def write(self: PredictionWriter, batches: list[Batch]) -> bool:
        if faults:
            raise faults.pop()
        return real(self, batches)

    monkeypatch.setattr(PredictionWriter, "_write", write)
    writer = PredictionWriter(tmp_path, "digits", flush_s=0.005)
    for dropped, told in ((2, "2 rows were dropped: RuntimeError: a mistake"), (4, "MemoryError: no room")):
        offer(writer, 2)
        until(lambda dropped=dropped: writer.dropped == dropped)  # type: ignore[misc]
        until(lambda told=told: told in writer.problem)  # type: ignore[misc]
    offer(writer)
    writer.close()
    assert (writer.written, writer.dropped, writer.problem) == (1, 4, "")


def test_an_idle_writer_sleeps_and_still_seals_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, real = list[None](), PredictionWriter._round

    def round_(self: PredictionWriter) -> None:
        rounds.append(None)
        real(self)

    monkeypatch.setattr(PredictionWriter, "_round", round_)
    writer = PredictionWriter(tmp_path, "digits", flush_s=0.001, roll_s=0.2)
    writer._thread.join(0.1)
    assert not rounds
    offer(writer)
    until(lambda: writer._roller is not None)
    # One writes, one seals, where a round each millisecond would be two hundred.
    assert len(rounds) < 10
    writer.close()
    assert writer.written == 1


def test_what_could_not_be_written_is_tried_again_without_a_further_offer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = PredictionWriter._open, [OSError(errno.ENOSPC, "No space left on device")] * 2

    def open_(self: PredictionWriter) -> Journal:
        if faults:
            raise faults.pop()
        return real(self)

    monkeypatch.setattr(PredictionWriter, "_open", open_)
    writer = PredictionWriter(tmp_path, "digits", flush_s=0.001)
    offer(writer)
    until(lambda: writer.written == 1)
    writer.close()
    assert (writer.dropped, writer.problem) == (0, "")


def test_a_roller_that_fails_says_so_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roller = tmp_path / "roller"
    roller.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    roller.chmod(0o700)
    monkeypatch.setattr("headrace.predictions.writer.sys.executable", str(roller))
    writer = PredictionWriter(tmp_path, "digits", flush_s=60, roll_s=0)
    for _ in range(2):
        offer(writer)
        writer._round()
        assert writer._roller is not None
        assert writer._roller.wait(300) == 3
    log = tmp_path / "digits" / "roller.log"
    assert writer.problem == f"the last rolling ended with 3; see {log}"
    assert log.read_text() == "broken\nbroken\n"
    writer.close()


def test_a_batch_that_is_none_costs_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    strange = batch([2])
    strange.inputs = {1: [2]}  # type: ignore[dict-item]
    journal = Journal(folder / "journals" / f"a{SUFFIX}")
    journal.append(encode([batch([1]), strange, batch([3])]))
    journal.close()
    assert inputs(folder) == [1, 3]
    assert roll(folder) == 2
    assert inputs(folder) == [1, 3]
    assert 0 < read_manifest(folder).damaged_bytes < 200


def test_kept_rows_are_not_refused_because_the_disk_was_full_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    row = Prediction(IDS.new(), "digits", 1, datetime.now(UTC), {"a": 1}, "x", 1.0)
    with monkeypatch.context() as patched:
        patched.setattr("headrace.predictions.tables.pq.write_table", full)
        SegmentLog(tmp_path).append([row])
    assert roll(tmp_path / "digits") == 1
    assert inputs(tmp_path / "digits") == [1]


def test_a_crash_before_rolled_actuals_are_named_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    actuals.append(tmp_path, [Actual(IDS.new(), 1, datetime.now(UTC))])
    with monkeypatch.context() as patched:
        patched.setattr("headrace.predictions.actuals.write_manifest", crash)
        with pytest.raises(KeyboardInterrupt):
            roll_actuals(tmp_path)
    assert roll_actuals(tmp_path) == 1
    roll(tmp_path)
    (named,) = read_manifest(tmp_path).actuals
    assert [path.name for path in (tmp_path / "truths").iterdir()] == [Path(named.path).name]


def test_damaged_actuals_are_counted(tmp_path: Path) -> None:
    actuals.append(tmp_path, [Actual(IDS.new(), 1, datetime.now(UTC))])
    (path,) = (tmp_path / "actuals").glob(f"*{SUFFIX}")
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    assert roll_actuals(tmp_path) == 0
    assert read_manifest(tmp_path).damaged_bytes == len(raw) - 1


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"predictions": 1}', '{"retired": [], "rolled": [], "new": 1}'])
def test_a_manifest_that_is_none_is_told_with_its_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Unavailable, match="damaged") as told:
        snapshot.take(tmp_path)
    assert "headrace predictions rebuild" in told.value.remedy


@pytest.mark.parametrize("step", [roll, roll_actuals, compact, tend, snapshot.take])
def test_nothing_is_removed_while_a_manifest_is_missing(tmp_path: Path, step: Callable[[Path], object]) -> None:
    folder = tmp_path / "digits"
    leave(folder, batch([1, 2]))
    actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC))])
    roll(folder)
    roll_actuals(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(Unavailable, match=r"manifest\.json is missing") as told:
        step(folder)
    assert "headrace predictions rebuild digits" in told.value.remedy
    assert (len(rebuild(folder).predictions), len(rebuild(folder).actuals)) == (1, 1)
    assert inputs(folder) == [1, 2]


@pytest.mark.parametrize("step", [roll, roll_actuals])
def test_a_crash_in_the_first_rolling_is_no_lost_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Path], int]
) -> None:
    folder = tmp_path / "digits"
    leave(folder, batch([1, 2]))
    actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC)) for _ in range(2)])

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "next", crash)
        with pytest.raises(KeyboardInterrupt):
            step(folder)
    assert len(list(folder.rglob("*.parquet"))) == 1
    assert inputs(folder) == [1, 2]
    assert step(folder) == 2
    assert inputs(folder) == [1, 2]


def test_a_manifest_is_made_anew_beside_a_damaged_segment(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    for value in (1, 2):
        leave(folder, batch([value]))
        roll(folder)
    (folder / read_manifest(folder).predictions[0].path).write_bytes(b"no Parquet")
    (folder / "manifest.json").unlink()
    assert [one.rows for one in rebuild(folder).predictions] == [1]
    assert inputs(folder) == [2]
    assert [path.read_bytes() for path in (folder / "damaged").iterdir()] == [b"no Parquet"]


def test_an_acknowledged_actual_has_its_name_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, folder = list[Path](), tmp_path / "digits"
    monkeypatch.setattr("headrace.predictions.journal.sync_folder", synced.append)
    for _ in range(2):
        actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC))])
        assert synced == [folder / "actuals", folder, tmp_path], "the component may be new as well"


def test_a_name_that_a_dead_writer_left_unsynced_is_on_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, folder = list[Path](), tmp_path / "digits"
    actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC))])
    monkeypatch.setattr("headrace.predictions.journal._named", set())  # As in another process.
    monkeypatch.setattr("headrace.predictions.journal.sync_folder", synced.append)
    actuals.append(folder, [Actual(IDS.new(), 1, datetime.now(UTC))])
    assert synced == [folder / "actuals", folder, tmp_path]


def test_a_file_that_this_process_may_not_open_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    leave(tmp_path / "digits", batch([1]))
    roll(tmp_path / "digits")
    with monkeypatch.context() as patched:
        patched.setattr("headrace.predictions.upkeep.pq.ParquetFile", busy)
        with pytest.raises(Unavailable, match="Too many open files"):
            repair(tmp_path / "digits")
    assert inputs(tmp_path / "digits") == [1]


@pytest.mark.parametrize("value", [2**64, "\ud800"])
def test_an_actual_that_has_no_place_is_refused_with_its_remedy(tmp_path: Path, value: int | str) -> None:
    given = [Actual(IDS.new(), one, datetime.now(UTC)) for one in (1, value)]
    with pytest.raises(InvalidInput, match="cannot be kept"):
        actuals.append(tmp_path, given)
    assert len(snapshot.take(tmp_path).actuals) == 0


def nested(levels: int, value: Any = 1) -> Any:
    for level in range(levels):
        value = [value, level] if level % 2 else {"a": value}
    return value


def below(frames: int, what: Callable[[], Any]) -> Any:
    """Return what comes of a call from a deeper stack, such as a server's or a test runner's."""
    return what() if not frames else below(frames - 1, what)


def test_an_actual_nested_too_deep_for_some_reader_is_refused(tmp_path: Path) -> None:
    actuals.append(tmp_path, [Actual(IDS.new(), nested(32), datetime.now(UTC))])
    for levels in (33, 400, 20_000):
        with pytest.raises(InvalidInput, match="deeper than 32"):
            actuals.append(tmp_path, [Actual(IDS.new(), one, datetime.now(UTC)) for one in (1, nested(levels))])
    assert len(snapshot.take(tmp_path).actuals) == 1


def test_a_row_nested_too_deep_for_some_reader_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits")
    columns: list[Any] = [
        [nested(32)],
        [1, nested(33)],
        [nested(400)],
        np.array([None, nested(33)], object),
        np.array([nested(32)], object),
        np.zeros((1, *[1] * 31)),
    ]
    for column in columns:
        writer.offer(IDS.batch(len(column)), at=AT, version=1, inputs={"a": column}, outputs={}, latency_ms=1.0)
    writer.close()
    assert (writer.written, writer.dropped) == (3, 5)
    row = Prediction(IDS.new(), "digits", 1, datetime.now(UTC), {"a": 1}, {"out": nested(33)}, 1.0)
    with pytest.raises(InvalidInput, match=r"`out`.*deeper than 32"):
        SegmentLog(tmp_path).append([row])
    assert below(400, lambda: len(SegmentLog(tmp_path).joined("digits"))) == 3


@pytest.mark.parametrize("levels", [33, 600, 900])
@pytest.mark.parametrize("frames", [0, 400])
def test_a_log_that_holds_something_nested_too_deep_is_read_around_it(tmp_path: Path, levels: int, frames: int) -> None:
    folder, ids = tmp_path / "digits", IDS.batch(3)
    at = datetime.now(UTC).timestamp()
    leave(folder, batch([1]), batch([nested(levels)]))
    journal = Journal(folder / "actuals" / f"a{SUFFIX}")
    for identity, value in zip(ids, (1, nested(levels), 2), strict=True):
        journal.append(msgspec.msgpack.encode([actuals.Record(identity, value, at, at)]))
    journal.close()
    log = SegmentLog(tmp_path)

    def told() -> tuple[int, int]:
        return len(log.joined("digits")), log.counts("digits").orphans

    assert below(frames, told) == (1, 2)
    below(frames, lambda: roll(folder))
    assert below(frames, lambda: roll_actuals(folder)) == 2
    assert below(frames, told) == (1, 2)
    kept = read_manifest(folder)
    assert kept.damaged_bytes > levels  # It takes a byte for each level, at least.
    assert kept.senseless_rows == (0 if levels + frames > 950 else 1)


@pytest.mark.parametrize("frames", [0, 400])
def test_what_was_rolled_before_it_was_refused_is_read_around(tmp_path: Path, frames: int) -> None:
    (identity,) = IDS.batch(1)
    leave(tmp_path / "digits", Batch([identity], AT, 1, {"a": [1]}, {"": ["x"]}, 1.0))
    actuals.append(tmp_path / "digits", [Actual(identity, [1], datetime.now(UTC))])
    deep = "[" * 900 + "]" * 900
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("headrace.predictions.actuals.json", SimpleNamespace(dumps=lambda _: deep))
        roll_actuals(tmp_path / "digits")
    (row,) = below(frames, lambda: SegmentLog(tmp_path).joined("digits"))
    assert row.prediction.inputs == {"a": 1}
