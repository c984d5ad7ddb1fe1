"""Journals: append-only files of framed records that a crash can cut short but not spoil.

A frame is a magic number, a length, a CRC-32 and the payload. A reader passes over what is damaged and says how much
that was. A journal belongs to whoever holds its lock; one without a holder may be rolled into Parquet and removed.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.files import sync_folder

MAGIC = b"\xf1HR\x01"
_HEADER = struct.Struct("<4sII")
SUFFIX = ".journal"
#: Journals whose names this process has put on disk. Their writers open them anew for each frame.
_named: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Content:
    """What a journal holds.

    Attributes:
        frames: the payloads, in order of writing, as parts of the journal's bytes.
        damaged_bytes: what could not be read: a torn end, or a damaged middle.
    """

    frames: list[memoryview]
    damaged_bytes: int


class Journal:
    """One open journal. Not safe to share between threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = _open_owned(path)
        self.size = os.fstat(self._file).st_size

    def append(self, payload: bytes, *, sync: bool = False) -> None:
        """Write one frame whole, or leave the file as it was.

        With `sync`, the journal's name is on disk too: who wrote its first frame may have died before that.

        Raises:
            OSError: the disk is full or broken; nothing of the frame remains.
        """
        frame = memoryview(frame_of(payload))
        written = 0
        try:
            while written < len(frame):
                written += os.write(self._file, frame[written:])
            if sync:
                os.fsync(self._file)
                if not self.size or self.path not in _named:
                    self._sync_name()
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += written

    def _sync_name(self) -> None:
        """Put the file's name on disk, with those of its folder and of its component, which may be new."""
        for folder in list(self.path.parents)[:3]:
            sync_folder(folder)
        _named.add(self.path)

    def close(self) -> None:
        """Sync and give up the lock; a second call does nothing."""
        if self._file >= 0:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
                self._file = -1


def frame_of(payload: bytes) -> bytes:
    """Return the payload with its header."""
    return _HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def read_frames(raw: bytes) -> Content:
    """Return the whole frames of a journal's bytes, skipping what is damaged."""
    frames, damaged, position = [], 0, 0
    while position < len(raw):
        payload = _frame_at(raw, position)
        if payload is not None:
            frames.append(payload)
            position += _HEADER.size + len(payload)
            continue
        following = raw.find(MAGIC, position + 1)
        end = len(raw) if following < 0 else following
        damaged += end - position
        position = end
    return Content(frames, damaged)


def claim(path: Path) -> int | None:
    """Return a descriptor that holds the lock of an ownerless journal; None where somebody still writes it."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def journals(folder: Path) -> Iterator[Path]:
    """Yield the journals of a folder in order of their names, which is the order in which they were started."""
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)


def _frame_at(raw: bytes, position: int) -> memoryview | None:
    start = position + _HEADER.size
    if start > len(raw):
        return None
    magic, length, checksum = _HEADER.unpack_from(raw, position)
    if magic != MAGIC or start + length > len(raw):
        return None
    payload = memoryview(raw)[start : start + length]
    return payload if zlib.crc32(payload) == checksum else None


def _open_owned(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file
        # Between opening and locking, a roller took the empty file for a leftover.
        os.close(file)
