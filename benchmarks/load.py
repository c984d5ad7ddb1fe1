"""A closed loop of HTTP/1.1 clients on loopback: each connection sends its next request when it has its answer."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil


@dataclass
class Window:
    """What one window of load saw.

    Attributes:
        latencies_ms: of good answers.
        errors: status (0 for a broken connection) to count.
        cpu_s: what the server's process tree used, where it was measured.
    """

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: dict[int, int] = field(default_factory=dict)
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s / max(len(self.latencies_ms), 1)

    def percentile_ms(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share)) if self.latencies_ms else float("nan")


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, next_request: Callable[[], bytes], window: Window, end: float) -> None:
        self.next_request, self.window, self.end = next_request, window, end
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.transport: Any = None
        self.sent = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        now = time.perf_counter()
        if now >= self.end:
            self.transport.close()
            return
        self.sent = now
        self.transport.write(self.next_request())

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found or len(rest) < content_length(head):
            return
        self.buffer = b""
        status = int(head[9:12])
        if status < 300:
            self.window.latencies_ms.append(1000 * (time.perf_counter() - self.sent))
        else:
            self.window.errors[status] = self.window.errors.get(status, 0) + 1
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self.end:
            self.window.errors[0] = self.window.errors.get(0, 0) + 1
        if not self.done.done():
            self.done.set_result(None)


def content_length(head: bytes) -> int:
    """Return the length of the body that a response's head announces."""
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def request(path: str, body: bytes, *, kind: str = "application/json", headers: str = "") -> bytes:
    """Return a POST request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{headers}\r\n".encode() + body


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started, itself first."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process tree, with those of children that have ended and were waited for."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


def memory_mb(pid: int) -> float:
    """Return the memory of a process tree: proportional where the system says so, resident elsewhere."""
    total = 0.0
    for process in tree(pid):
        try:
            full = process.memory_full_info()
            total += getattr(full, "pss", full.rss)
        except psutil.Error:
            continue
    return total / 2**20


def run(port: int, requests: Sequence[bytes], *, connections: int, seconds: float, pid: int | None = None) -> Window:
    """Load a port for some seconds; with `pid`, measure what the server's tree uses meanwhile."""
    return asyncio.run(_run(port, requests, connections, seconds, pid))


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float, pid: int | None) -> Window:
    window = Window()
    turn = 0

    def following() -> bytes:
        nonlocal turn
        turn += 1
        return requests[turn % len(requests)]

    loop = asyncio.get_running_loop()
    before = cpu_of(pid) if pid else 0.0
    start = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(following, window, start + seconds), "127.0.0.1", port)
        clients.append(client)
    await asyncio.wait([client.done for client in clients], timeout=seconds + 30)
    window.seconds = time.perf_counter() - start
    if pid:
        window.cpu_s = cpu_of(pid) - before
    return window
