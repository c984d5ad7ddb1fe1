"""The front's hot path into the prediction log: it may lose, bounded and counted, and it never blocks."""

import logging
import os
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from headrace.clock import Clock, SystemClock
from headrace.predictions.batch import UNFIT, Batch, Column, encode_piece, join
from headrace.predictions.ids import Ids
from headrace.predictions.journal import SUFFIX, Journal

log = logging.getLogger(__name__)
_FRAME_BYTES = 4 * 1024 * 1024
#: What the roller has to say, in the component's folder; begun anew when it is large.
_ROLLER_LOG, _ROLLER_LOG_BYTES = "roller.log", 1024 * 1024
#: How long after a write that failed the next is tried.
_AGAIN_S = 0.1


class PredictionWriter:
    """Writes one front's predictions of one component.

    `offer` puts a batch into a bounded buffer and returns; it is encoded at once, while its rows are in the processor's
    cache and so that the thread has little to do that needs the interpreter. The first one wakes the thread, which
    appends what is there `flush_s` later to a journal; the operating system has it from then on, so killing the process
    loses at most the last `flush_s`, and `close` loses nothing. A power cut can take what the system had not yet put on
    disk (journals are synced when they are sealed). Every
    `roll_s`, or `roll_bytes`, the journal is sealed and a short-lived, low-priority child turns it into Parquet, so
    that the front never pays for that; `SegmentLog` reads journals and Parquet alike, and rolls what a dead writer
    left.

    What is stored per row: id, time, version, latency, whether it was a shadow, and all inputs and outputs given.
    Redact and sample before offering.

    Attributes:
        dropped: rows that were lost because the buffer was full or they could not be encoded.
        written: rows that are in a journal.
    """

    def __init__(
        self,
        folder: Path,
        component: str,
        *,
        capacity_rows: int = 100_000,
        capacity_bytes: int = 256 * 1024 * 1024,
        flush_s: float = 0.02,
        roll_bytes: int = 64 * 1024 * 1024,
        roll_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        """Start the thread. `folder` is the folder of all components (`settings.predictions`)."""
        self._folder = folder / component
        self._clock = clock or SystemClock()
        self._names = Ids(self._clock)
        #: Batches: how many rows, and the rows encoded.
        self._pending: deque[tuple[int, bytes]] = deque()
        self._rows = self._bytes = 0
        self._capacity = (capacity_rows, capacity_bytes)
        self._flush_s, self._roll_bytes, self._roll_s = flush_s, roll_bytes, roll_s
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._started_s = 0.0
        self._roller: subprocess.Popen[bytes] | None = None
        self._write_problem = self._roll_problem = ""
        self._offered, self._closing = threading.Event(), threading.Event()
        self.dropped = self.written = 0
        self._thread = threading.Thread(target=self._run, name="prediction-writer", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Return why the last write failed, or else the last rolling; empty where neither did."""
        return self._write_problem or self._roll_problem

    def offer(
        self,
        ids: Sequence[str],
        *,
        at: datetime | float,
        version: int,
        inputs: Mapping[str, Column],
        outputs: Mapping[str, Column],
        latency_ms: float | list[float],
        shadow: bool = False,
    ) -> bool:
        """Take a batch of answered rows; no I/O, some microseconds and as many per 30 kB. Call it from any thread.

        Args:
            ids: one UUIDv7 per row (`Ids.batch`).
            at: when the rows were asked for; seconds since 1970 or a moment in UTC.
            inputs: by field name, shape (rows, …) or a list with one JSON value per row.
            outputs: like `inputs`; an unnamed answer goes by `types.UNNAMED`.
            latency_ms: of the whole batch, or one per row.
            shadow: a challenger's answers that were never returned.

        Returns:
            False where the rows were dropped (and counted): the buffer is full, or they cannot be kept.
        """
        seconds, rows = at.timestamp() if isinstance(at, datetime) else at, len(ids)
        batch = Batch(ids, seconds, version, dict(inputs), dict(outputs), latency_ms, shadow)
        try:
            content = encode_piece(batch)
        except UNFIT as cause:
            self._write_problem = f"rows that cannot be kept: {cause}"
            log.warning("The prediction log drops %s", self._write_problem)
            content = b""
        with self._lock:
            is_full = self._rows + rows > self._capacity[0] or self._bytes + len(content) > self._capacity[1]
            if not content or is_full or self._closing.is_set():
                self.dropped += rows
                return False
            self._pending.append((rows, content))
            self._rows += rows
            self._bytes += len(content)
        if not self._offered.is_set():
            self._offered.set()
        return True

    def close(self) -> None:
        """Write and sync all that was offered; the journal is rolled by whoever comes next."""
        self._closing.set()
        self._offered.set()
        self._thread.join()
        if self._roller is not None:
            self._roller.wait()

    def _run(self) -> None:
        while not self._closing.is_set():
            if not self._pending:
                self._offered.wait(self._seal_due_s())
            self._closing.wait(max(self._flush_s, _AGAIN_S) if self._write_problem else self._flush_s)
            self._offered.clear()
            self._round()
        self._round()
        self._drop_pending()
        self._close_journal()

    def _round(self) -> None:
        try:
            self._flush()
            self._seal_when_due()
        except Exception as cause:  # Without this thread every later row would be taken, and none written or counted.
            dropped = self._drop_pending()
            self._write_problem = f"{dropped} rows were dropped: {type(cause).__name__}: {cause}"
            log.exception("The prediction log of %s dropped %d rows", self._folder, dropped)

    def _drop_pending(self) -> int:
        with self._lock:
            rows = self._rows
            self.dropped += rows
            self._pending.clear()
            self._rows = self._bytes = 0
        return rows

    def _flush(self) -> None:
        with self._lock:
            batches = list(self._pending)
        start = 0
        while start < len(batches):
            stop = _frame_end(batches, start)
            if not self._write(batches[start:stop]):
                return  # The rows stay in the buffer; the next flush tries again.
            start = stop

    def _write(self, batches: list[tuple[int, bytes]]) -> bool:
        try:
            self._open().append(join([content for _, content in batches]))
        except OSError as cause:
            if str(cause) != self._write_problem:
                log.warning("The prediction log cannot write to %s: %s", self._folder, cause)
            self._write_problem = str(cause)
            return False
        with self._lock:
            for rows, content in batches:
                self._pending.popleft()
                self._rows -= rows
                self._bytes -= len(content)
                self.written += rows
        self._write_problem = ""
        return True

    def _open(self) -> Journal:
        if self._journal is None:
            # The name starts with a time, so that journals sort by age.
            name = f"{self._names.new()}-{os.getpid()}-{uuid.uuid4().hex[:6]}{SUFFIX}"
            self._journal = Journal(self._folder / "journals" / name)
            self._started_s = self._clock.monotonic_s()
        return self._journal

    def _seal_due_s(self) -> float | None:
        """Return in how many seconds the journal is old enough to be sealed; None where there is none."""
        if self._journal is None:
            return None
        return max(0.0, self._started_s + self._roll_s - self._clock.monotonic_s())

    def _seal_when_due(self) -> None:
        if self._journal is not None and (self._journal.size >= self._roll_bytes or not self._seal_due_s()):
            self._seal()

    def _close_journal(self) -> None:
        if self._journal is None:
            return
        try:
            self._journal.close()
        except OSError as cause:
            self._write_problem = str(cause)
        self._journal = None

    def _seal(self) -> None:
        self._close_journal()
        if self._roller is not None and self._roller.poll() is None:
            return  # The next round, or the next reader, takes this journal too.
        told = self._folder / _ROLLER_LOG
        if self._roller is not None:
            code = self._roller.returncode
            self._roll_problem = f"the last rolling ended with {code}; see {told}" if code else ""
        try:
            with told.open("ab") as file:
                if file.tell() > _ROLLER_LOG_BYTES:
                    file.truncate(0)
                self._roller = subprocess.Popen(
                    [sys.executable, "-m", "headrace.predictions.tend", str(self._folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                )
        except OSError as cause:  # No process or no disk to be had now; the journals wait for the next time.
            self._roll_problem = f"the roller cannot be started: {cause}"
            log.warning("The prediction log of %s is not rolled: %s", self._folder, self._roll_problem)


def _frame_end(batches: list[tuple[int, bytes]], start: int) -> int:
    size, stop = 0, start
    while stop < len(batches) and (stop == start or size < _FRAME_BYTES):
        size += len(batches[stop][1])
        stop += 1
    return stop
