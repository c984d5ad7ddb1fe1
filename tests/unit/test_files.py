"""Files are whole or absent, and documents have one text."""

import errno
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from headrace.dashboard.post import cut_logs
from headrace.errors import HeadraceError, Unavailable
from headrace.files import (
    append_line,
    canonical_json,
    disk_trouble,
    read_lines,
    rotate,
    sha256_file,
    use_wal,
    write_atomically,
)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_atomically(target, "old")
    with pytest.raises(TypeError):
        write_atomically(target, 5)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_canonical_json_is_the_same_for_any_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})


def test_canonical_json_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_digest_of_a_file_is_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_line_that_a_crash_left_unfinished_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_lines(path) == []
    append_line(path, {"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": ')
    assert read_lines(path) == [{"n": 1}]
    append_line(path, {"n": 3})
    assert read_lines(path) == [{"n": 1}, None, {"n": 3}]
    assert read_lines(path, after=2) == [{"n": 3}]


def test_what_was_told_of_a_full_disk_is_found_in_a_ring_of_causes() -> None:
    full = OSError(28, "No space left on device", "there")
    told = Unavailable("The checkout cannot be written.", "Make room.")
    told.__cause__ = full
    full.__context__ = told
    assert disk_trouble(told) is told
    ring = ValueError("no disk in it")
    ring.__cause__ = KeyError("b")
    ring.__cause__.__cause__ = ring
    assert disk_trouble(ring) is None
    assert isinstance(told, HeadraceError)


def test_a_log_is_put_aside_once_it_has_grown(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert rotate(log, most=4) == log
    assert not log.exists()
    log.write_text("1234")
    rotate(log, most=4)
    assert log.exists()
    log.write_text("12345")
    rotate(log, most=4)
    assert (log.exists(), (tmp_path / "worker.log.1").read_text()) == (False, "12345")


def test_a_file_that_may_not_be_read_is_not_said_to_be_unwritable() -> None:
    told = disk_trouble(PermissionError(errno.EACCES, "Permission denied", "rows.csv"))
    assert told is not None
    assert told.fact == "rows.csv cannot be opened: Permission denied."
    assert "ls -ld" in told.remedy
    full = disk_trouble(OSError(errno.ENOSPC, "No space left on device", "ledger.db"))
    assert full is not None
    assert full.fact == "ledger.db cannot be written: No space left on device."


def test_a_log_is_cut_while_its_writer_lives(tmp_path: Path) -> None:
    """As a worker's is that writes a line for every request, for months."""
    (tmp_path / "digits-production").mkdir()
    log = tmp_path / "digits-production" / "worker-1.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        cut_logs(tmp_path, most=200)
        assert log.stat().st_size == 100
        writer.write(b"y" * 200)
        cut_logs(tmp_path, most=200)
        writer.write(b"later")
    assert log.read_bytes() == b"later"
    assert log.with_name("worker-1.log.1").stat().st_size == 300


def test_a_database_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other,
        closing(sqlite3.connect(path, timeout=0)) as mine,
    ):
        other.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(0.2, other.execute, ["COMMIT"])
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            use_wal(mine, most_s=0)
        ending.start()
        use_wal(mine)
        ending.join()
        assert mine.execute("PRAGMA journal_mode").fetchone() == ("wal",)
