"""The writer loses nothing that it need not lose, and counts the rest."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from headrace.predictions import journal as journals
from headrace.predictions.batch import Batch, encode
from headrace.predictions.ids import Ids
from headrace.predictions.journal import Journal, frame_of, read_frames
from headrace.predictions.manifest import read_manifest
from headrace.predictions.roll import roll
from headrace.predictions.segments import SegmentLog
from headrace.predictions.writer import PredictionWriter

AT = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


def offer(writer: PredictionWriter, ids: list[str], *, shadow: bool = False) -> bool:
    rows = len(ids)
    return writer.offer(
        ids,
        at=AT,
        version=3,
        inputs={"": np.arange(rows * 4, dtype=np.float32).reshape(rows, 2, 2), "title": ["a"] * rows},
        outputs={"": np.full((rows, 2), 0.5)},
        latency_ms=2.0,
        shadow=shadow,
    )


def test_close_keeps_every_offered_row(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits", flush_s=60)
    ids = Ids().batch(300)
    for start in range(0, 300, 100):
        assert offer(writer, ids[start : start + 100])
    writer.close()
    assert (writer.written, writer.dropped, writer.problem) == (300, 0, "")
    assert roll(tmp_path / "digits") == 300
    assert sum(segment.rows for segment in read_manifest(tmp_path / "digits").predictions) == 300
    assert not list((tmp_path / "digits" / "journals").iterdir())
    found = SegmentLog(tmp_path).joined("digits")
    assert [one.prediction.id for one in found] == ids
    assert found[1].prediction.inputs == {"": [4.0, 5.0, 6.0, 7.0], "title": "a"}
    assert found[1].prediction.output == [0.5, 0.5]


def test_what_was_offered_may_change_at_once(tmp_path: Path) -> None:
    writer, values = PredictionWriter(tmp_path, "digits", flush_s=60), np.ones((1, 3))
    writer.offer(Ids().batch(1), at=AT, version=1, inputs={"": values}, outputs={"": np.zeros(1)}, latency_ms=1)
    values[:] = 7
    writer.close()
    assert SegmentLog(tmp_path).joined("digits")[0].prediction.inputs == {"": [1.0, 1.0, 1.0]}


def test_a_full_buffer_drops_and_counts(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits", capacity_rows=10, flush_s=60)
    assert offer(writer, Ids().batch(8))
    assert not offer(writer, Ids().batch(3))
    assert offer(writer, Ids().batch(2))
    writer.close()
    assert (writer.written, writer.dropped) == (10, 3)


def test_a_row_that_cannot_be_kept_takes_no_other_with_it(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits", flush_s=60)
    offer(writer, Ids().batch(2))
    writer.offer(Ids().batch(1), at=AT, version=1, inputs={"a": [object()]}, outputs={}, latency_ms=1)  # type: ignore[list-item]
    offer(writer, Ids().batch(2))
    writer.close()
    assert (writer.written, writer.dropped) == (4, 1)
    assert len(SegmentLog(tmp_path).joined("digits")) == 4


def test_a_full_disk_keeps_rows_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = PredictionWriter(tmp_path, "digits", flush_s=60)
    real, full = os.write, [True, True]

    def write(file: int, content: bytes) -> int:
        if full.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content)

    monkeypatch.setattr(journals.os, "write", write)
    offer(writer, Ids().batch(5))
    writer._flush()
    assert "No space" in writer.problem
    full[:] = [False] * 10
    writer.close()
    assert (writer.written, writer.dropped, writer.problem) == (5, 0, "")


def test_rows_offered_after_close_are_counted_as_dropped(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits")
    writer.close()
    assert not offer(writer, Ids().batch(2))
    assert writer.dropped == 2


def test_an_open_journal_is_read_and_not_rolled(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits", flush_s=60)
    offer(writer, Ids().batch(4))
    writer._flush()
    assert roll(tmp_path / "digits") == 0
    assert len(SegmentLog(tmp_path).joined("digits")) == 4
    writer.close()


def test_a_dead_writers_journal_is_recovered_up_to_the_torn_frame(tmp_path: Path) -> None:
    path = tmp_path / "digits" / "journals" / "a.journal"
    journal = Journal(path)
    for identity in Ids().batch(3):
        journal.append(encode([Batch([identity], AT, 1, {"a": [1]}, {"": ["x"]}, 1.0)]))
    journal.close()
    os.truncate(path, path.stat().st_size - 5)
    log = SegmentLog(tmp_path)
    assert len(log.joined("digits")) == 2
    assert log.roll("digits") == 2
    assert log.roll("digits") == 0
    assert len(log.joined("digits")) == 2
    assert read_manifest(tmp_path / "digits").damaged_bytes > 0


def test_a_damaged_middle_costs_its_own_frame_only() -> None:
    frames = [frame_of(bytes([number]) * 100) for number in range(3)]
    spoiled = bytearray(b"".join(frames))
    spoiled[150] ^= 1
    content = read_frames(bytes(spoiled))
    assert content.frames == [bytes(100), b"\x02" * 100]
    assert content.damaged_bytes == len(frames[1])


def test_senseless_rows_are_counted_and_do_not_stop_the_rolling(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "digits" / "journals" / "a.journal")
    (good,) = Ids().batch(1)
    batches = [
        Batch(["no id"], AT, 1, {"a": [1]}, {"": ["x"]}, 1.0),
        Batch([good], AT, 1, {"a": [1]}, {"": ["x"]}, 1.0),
        Batch(Ids().batch(1), AT, 1, {"a": [1, 2]}, {"": ["x"]}, 1.0),
    ]
    journal.append(encode(batches))
    journal.close()
    assert roll(tmp_path / "digits") == 1
    assert read_manifest(tmp_path / "digits").senseless_rows == 2


def test_a_crash_between_segment_and_manifest_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "digits" / "journals" / "a.journal")
    journal.append(encode([Batch(Ids().batch(1), AT, 1, {"a": [1]}, {"": ["x"]}, 1.0)]))
    journal.close()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("headrace.predictions.roll.write_manifest", crash)
        with pytest.raises(KeyboardInterrupt):
            roll(tmp_path / "digits")
    assert roll(tmp_path / "digits") == 1
    assert len(list((tmp_path / "digits" / "segments").rglob("*.parquet"))) == 1
    assert len(SegmentLog(tmp_path).joined("digits")) == 1


def test_actuals_are_refused_whole_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.errors import Unavailable
    from headrace.types import Actual

    log = SegmentLog(tmp_path)
    log.append_actuals("digits", [Actual("a", 1, datetime.now(UTC))])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(journals.os, "write", full)
        with pytest.raises(Unavailable, match="No space left"):
            log.append_actuals("digits", [Actual("b", 1, datetime.now(UTC))])
    log.append_actuals("digits", [Actual("c", 1, datetime.now(UTC))])
    assert log.counts("digits").orphans == 2


def test_rolling_on_a_full_disk_keeps_the_journal_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "digits" / "journals" / "a.journal")
    journal.append(encode([Batch(Ids().batch(3), AT, 1, {"a": [1, 2, 3]}, {"": ["x", "y", "z"]}, 1.0)]))
    journal.close()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("headrace.predictions.tables.pq.write_table", full)
        with pytest.raises(OSError, match="No space left"):
            roll(tmp_path / "digits")
        assert len(SegmentLog(tmp_path).joined("digits")) == 3
    assert roll(tmp_path / "digits") == 3
    assert len(SegmentLog(tmp_path).joined("digits")) == 3
    assert not list(tmp_path.rglob("*.tmp"))
