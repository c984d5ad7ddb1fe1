"""Files that are never seen half-written, and their digests."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError, Unavailable
from headrace.types import Json

#: A log that is larger than this is put aside.
LOG_BYTES = 16 * 1024 * 1024
#: What the system says where a disk takes nothing more, and what the user can do about it.
DISK_REMEDIES = {
    errno.ENOSPC: "Make room on that disk, or put headrace on another with HEADRACE_HOME.",
    errno.EDQUOT: "Make room within your quota, or put headrace on another disk with HEADRACE_HOME.",
    errno.EROFS: "Mount it writable, or put headrace elsewhere with HEADRACE_HOME.",
    errno.EACCES: "Give yourself the right to it (`ls -ld` shows who has it); what is headrace's own can be put "
    "elsewhere with HEADRACE_HOME.",
}
#: The same in SQLite's words.
SQLITE_WORDS = {"disk is full": errno.ENOSPC, "readonly database": errno.EROFS}


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`: synced to disk and renamed, so that a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that all processes of a home see, on whatever machine they run; a dead holder's is free at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def append_line(path: Path, document: Json) -> None:
    """Add a document to a file of JSON lines, below a line that a crash or a full disk may have left unfinished."""
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        is_torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * is_torn + json.dumps(document).encode() + b"\n")


def read_lines(path: Path, *, after: int = 0) -> list[Any]:
    """Return the documents of a file of JSON lines from number `after` on, with None in place of a torn one.

    A last line that is being written is left for the next call; a file that is absent has no lines.
    """
    try:
        *complete, _unfinished = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [_parsed(line) for line in complete[after:]]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def rotate(log: Path, *, most: int = LOG_BYTES) -> Path:
    """Put a log aside as `NAME.1` where it has grown beyond `most` bytes, and return it; call it before it is opened.

    Who has it open goes on in the one that was put aside.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > most:
            os.replace(log, log.with_name(f"{log.name}.1"))
    return log


def cut(log: Path, *, most: int = LOG_BYTES) -> None:
    """Copy a log to `NAME.1` and empty it where it has grown beyond `most` bytes, for writers that live for months.

    They must append (`O_APPEND`). What they write between the copy and the cut is lost.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > most:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def use_wal(database: sqlite3.Connection, *, most_s: float = 30.0) -> None:
    """Set a database's journal to WAL: readers then never wait for a writer.

    Of several processes that do so at once on a new file, SQLite lets one and tells the others at once that it is busy,
    whatever their timeout; they ask again.

    Raises:
        sqlite3.Error: it could not be set within `most_s` seconds.
    """
    until = time.monotonic() + most_s
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(document: Json) -> bytes:
    """Return the one JSON text of a document: keys sorted, no spaces, UTF-8, NaN and infinity refused."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(document: Json) -> str:
    """Return the SHA-256 of a document's canonical JSON, as hex."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def disk_trouble(error: BaseException) -> HeadraceError | None:
    """Return what to tell where a full, unwritable or forbidden disk is behind an error; None where it is not.

    What somebody has told already on the way, with more knowledge of what was being written, is told again.
    """
    for one in _behind(error):
        number, place = _disk_error(one)
        if number:
            told = next((each for each in _behind(error) if isinstance(each, HeadraceError)), None)
            # The system does not say whether that was to be read or written.
            what = "opened" if number == errno.EACCES else "written"
            fact = f"{place or 'The disk'} cannot be {what}: {os.strerror(number)}."
            return told or Unavailable(fact, DISK_REMEDIES[number])
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    seen = set[int]()
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or one.__context__


def _disk_error(error: BaseException) -> tuple[int, str]:
    if isinstance(error, OSError) and error.errno in DISK_REMEDIES:
        return error.errno, str(error.filename or "")
    if isinstance(error, sqlite3.Error):
        return next((number for words, number in SQLITE_WORDS.items() if words in str(error)), 0), ""
    return 0, ""
