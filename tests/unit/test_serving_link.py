"""A front's connection to a worker: frames in pieces, and answers that cannot be understood."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from headrace.serving import frames
from headrace.serving.batch import Job, Part, Pool
from headrace.serving.layout import rows_of
from headrace.serving.link import Link
from headrace.serving.metrics import VersionCounts
from headrace.serving.rejection import Rejected
from headrace.types import UNNAMED, Field, FieldKind, Signature

SIGNATURE = Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 1)),))


class Wire:
    """The transport of a link; it keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None: ...


class Bench:
    """A pool whose one worker is a link to nobody."""

    def __init__(self) -> None:
        self.pool = Pool(
            max_batch=64,
            queue_rows=64,
            by_row=True,
            counts=VersionCounts(),
            ids=lambda rows: [f"id-{row}" for row in range(rows)],
            recorded=lambda jobs, answer, ids, now: None,
            describe=lambda failure: f"The model failed: {failure.type}.",
        )
        self.link = Link(self.pool, "no.sock", lambda _: None)
        self.link.connection_made(Wire())
        self.link.data_received(frames._frame({"ready": True}, ()))
        self.pool.workers = [self.link]

    async def ask(self) -> "asyncio.Future[Part]":
        now = self.pool.loop.time()
        rows = rows_of(SIGNATURE, {UNNAMED: np.zeros((1, 1), "float32")})
        done: asyncio.Future[Part] = self.pool.loop.create_future()
        self.pool.submit(Job(rows, None, done, now, now + 60))
        while not self.link.working_on:
            await asyncio.sleep(0)
        return done


def reply(number: int, dtype: str, content: bytes, shape: list[int]) -> bytes:
    return frames._frame({"id": number, "blocks": [["", dtype, shape, len(content)]]}, (content,))


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_frames_come_in_pieces_of_any_size(piece: int) -> None:
    async def story() -> None:
        bench = Bench()
        values = np.arange(500, dtype="float32")
        done = await bench.ask()
        data = reply(1, "float32", values.tobytes(), [1, 500])
        for start in range(0, len(data), piece):
            bench.link.data_received(data[start : start + piece])
        assert (await done).answer.columns() == [("", [values.tolist()])]
        bench.link.close()

    run(story)


def test_what_is_there_of_a_large_frame_is_not_copied_for_each_piece() -> None:
    async def story() -> None:
        bench = Bench()
        await bench.ask()
        data = reply(1, "float32", bytes(400_000), [1, 100_000])
        bench.link.data_received(data[:1000])
        buffer = bench.link._buffer
        for start in range(1000, 100_000, 1000):
            bench.link.data_received(data[start : start + 1000])
        assert bench.link._buffer is buffer
        bench.link.close()

    run(story)


@pytest.mark.parametrize(
    "answer",
    [
        reply(1, "float4096", bytes(4), [1]),
        reply(1, "float32", bytes(4), [7]),
        frames._frame({"id": 1, "error": {"stage": "predict", "type": "Odd", "message": "?"}}, ()).replace(
            b"?", b"\xff"
        ),
    ],
)
def test_answer_that_cannot_be_understood_fails_its_requests_alone(answer: bytes) -> None:
    async def story() -> None:
        bench = Bench()
        done = await bench.ask()
        bench.link.data_received(answer)
        with pytest.raises(Rejected, match="The model failed"):
            await done
        assert (bench.pool.flying_rows, bench.link.is_free) == (0, True)
        bench.link.close()

    run(story)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a socket's other end has not read")
def test_a_batch_is_begun_when_the_child_has_read_it() -> None:
    ours, child = socket.socketpair()

    async def story() -> None:
        bench = Bench()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: bench.link, sock=ours)
        child.sendall(frames._frame({"ready": True}, ()))
        await bench.link.connected.wait()
        await bench.ask()
        await asyncio.sleep(0)
        sent = bench.link.begun
        child.recv(8)
        waited = bench.link.begun
        assert waited > sent
        child.recv(65_536)
        assert bench.link.begun == waited
        bench.link.close()

    with child:
        asyncio.run(story())
