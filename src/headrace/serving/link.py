"""A front's connection to one worker child: one batch at a time, found again after the child was restarted."""

import asyncio
import contextlib
import fcntl
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

from headrace.serving import frames
from headrace.serving.batch import Job, Pool

FIRST_WAIT_S = 0.01
LONGEST_WAIT_S = 0.25


class Link(asyncio.Protocol):
    """The Unix socket to one child. It reconnects by itself until it is closed."""

    def __init__(self, pool: Pool, address: str, stuck: Callable[[str], None]) -> None:
        self.pool = pool
        self._stuck = stuck
        self._is_told = False
        self.address = address
        self.connected = asyncio.Event()
        self._transport: Any = None
        self._is_up = False
        self._jobs: list[Job] = []
        self._sequence = 0
        self._sent = self._begun = 0.0
        self._buffer = bytearray()
        self._closed = False
        self._task = asyncio.ensure_future(self._connect())

    @property
    def is_free(self) -> bool:
        return self._is_up and not self._jobs

    @property
    def working_on(self) -> Sequence[Job]:
        return self._jobs

    @property
    def begun(self) -> float:
        # The child reads one frame at a time; what it has not read lies in the socket. Other kernels than Linux do not
        # tell, and there it counts as read.
        unread = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, unread)
        if any(unread):
            self._begun = time.monotonic()
        return self._begun

    def hung(self) -> None:
        # Once: the supervisor kills the child, and the connection with it.
        if not self._is_told:
            self._is_told = True
            self._stuck(self.address)

    def send(self, jobs: list[Job], *, alone: bool) -> None:
        self._jobs = jobs
        self._sequence += 1
        self._sent = self._begun = time.monotonic()
        rows = [job.rows for job in jobs]
        self._transport.write(frames.request(self._sequence, "predict", rows, jobs[0].params, alone=alone))

    def close(self) -> None:
        self._closed = True
        self._task.cancel()
        if self._transport is not None:
            self._transport.close()

    async def _connect(self) -> None:
        wait_s = FIRST_WAIT_S
        loop = asyncio.get_running_loop()
        while not self._closed:
            with contextlib.suppress(OSError):
                await loop.create_unix_connection(lambda: self, self.address)
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        # The child's greeting makes it usable: a dying child's socket still takes connections for a moment.
        self._transport = transport
        self._is_told = False
        self._buffer.clear()

    def data_received(self, data: bytes) -> None:
        content: bytes | bytearray = data  # Most frames come whole, and need no copy.
        if self._buffer:
            self._buffer += data
            content = self._buffer
        start = 0
        while len(content) - start >= frames.PREFIX.size:
            length, header_length = frames.PREFIX.unpack_from(content, start)
            end = start + 4 + length
            if len(content) < end:
                break
            self._take(memoryview(bytes(content[start:end])), header_length)
            start = end
        if start or content is not self._buffer:
            self._buffer = bytearray(content[start:])

    def _take(self, frame: memoryview, header_length: int) -> None:
        start = frames.PREFIX.size + header_length
        try:
            reply = frames.decode_reply(frame[frames.PREFIX.size : start])
            answer = reply.error or frames.outputs(reply, frame[start:])
        except Exception as error:  # noqa: BLE001 - whatever a worker says, the requests in it are answered
            reply = frames.Reply(self._sequence)
            answer = frames.Failure("predict", type(error).__name__, str(error))
        if reply.ready:
            self._is_up = True
            self.connected.set()
            self.pool.wake()
            return
        jobs, self._jobs = self._jobs, []
        if reply.id != self._sequence or not jobs:
            return
        if isinstance(answer, frames.Failure):
            self.pool.failed(jobs, answer)
        else:
            own_s = reply.ms / 1000
            self.pool.answered(jobs, answer, own_s, max(time.monotonic() - self._sent - own_s, 0.0))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._is_up = False
        self.connected.clear()
        jobs, self._jobs = self._jobs, []
        if jobs:
            self.pool.lost(jobs, "The model's worker died on this row, twice.")
        if not self._closed:
            self._task = asyncio.ensure_future(self._connect())
