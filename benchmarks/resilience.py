"""What an endpoint does while it is switched, rolled back, killed and flooded.

A steady load runs on loopback; clients send a request again only where its connection broke before an answer, which is
what an idempotent client does. Every 5xx, and every connection that broke where it must not, is a failed request.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import load
from benchmarks.report import Claim, report
from benchmarks.small_models import ROOT, bench_settings, component_python, made
from headrace.config.component import Serve
from headrace.deploy.base import Route, Status
from headrace.deploy.process import ProcessTarget
from headrace.types import ServedVersion, Stage

NAME = "resilience"
HEAD = b"\r\n\r\n"


@dataclass
class Seen:
    """What the clients saw."""

    good: int = 0
    resent: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        self.failed[why] = self.failed.get(why, 0) + 1


class Traffic:
    """A steady closed loop of clients in a thread of its own."""

    def __init__(self, port: int, request: bytes, *, clients: int = 4, pause_s: float = 0.005) -> None:
        self.seen = Seen()
        self._port, self._request, self._clients, self._pause_s = port, request, clients, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Traffic":
        self._thread.start()
        while self.seen.good < self._clients and not self.seen.failed:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def answers(self, more: int = 50) -> None:
        """Return when so many more requests were answered, or one failed. Raises TimeoutError."""
        until = self.seen.good + more
        wait_for(lambda: self.seen.good >= until or self.seen.failed)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            for attempt in range(20):
                try:
                    connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
                    await self._exchange(*connection)
                    break
                except (OSError, asyncio.IncompleteReadError):
                    if connection:
                        connection[1].close()
                    connection = None
                    self.seen.resent += 1
                    await asyncio.sleep(0.02 * attempt)
            else:
                self.seen.fail("no answer in 20 attempts")
            await asyncio.sleep(self._pause_s)
        if connection:
            connection[1].close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request)
        head = await reader.readuntil(HEAD)
        body = await reader.readexactly(load.content_length(head))
        status = int(head[9:12])
        if status != 200:
            self.seen.fail(f"{status} {body[:200].decode()}")
            return
        self.seen.good += 1
        at = head.find(b"x-headrace-version: ")
        version = head[at + 20 :].split(b"\r\n", 1)[0].decode()
        self.seen.versions[version] = self.seen.versions.get(version, 0) + 1


class Bench:
    """One endpoint and what is done to it."""

    def __init__(self, home: Path) -> None:
        self.settings = bench_settings(home)
        python = component_python(self.settings)
        folder = made(self.settings, ROOT / "tests" / "models" / "make.py", python=python)
        self.versions = [ServedVersion(NAME, number, folder / "sleepy", python) for number in (1, 2)]
        self.target = ProcessTarget(self.settings)
        self.body = json.dumps({"instances": [{"x": 1.5}]}).encode()
        self.request = load.request("/invocations", self.body)
        self.rows: list[dict[str, Any]] = []
        self.claims: list[Claim] = []

    def serve(self, version: int, *, only: bool = False, deadline_ms: float = 60_000, **serve: Any) -> Status:
        """Deploy; the deadline is so long that a busy machine breaks none, except in the flood, whose matter it is."""
        versions = [one for one in self.versions if not only or one.version == version]
        return self.target.apply(
            Route(NAME, Stage.PRODUCTION, versions, {version: 1.0}, Serve(deadline_ms=deadline_ms, **serve))
        )

    def claim_none_failed(self, name: str, seen: Seen, evidence: str) -> None:
        failed = sum(seen.failed.values())
        self.rows.append({"step": name, "good": seen.good, "resent": seen.resent, "failed": seen.failed})
        print(f"{name}: {seen.good} answered, {failed} failed", file=sys.stderr, flush=True)
        text = f"{evidence}; {seen.good} answered, {seen.resent} sent again, failed: {seen.failed or 'none'}"
        self.claims.append(Claim(f"{name}_failed_requests", failed, "== 0", failed == 0, text))

    # Steps

    def switches(self, times: int) -> None:
        status = self.serve(1)
        with Traffic(port_of(status), self.request) as traffic:
            for turn in range(times):
                self.serve(2 - turn % 2)
                traffic.answers()
        self.claim_none_failed("switch", traffic.seen, f"{times} switches between two warm versions")

    def rollbacks(self, times: int) -> None:
        """Time from the order to the first answer of the old version."""
        slowest = 0.0
        status = self.serve(2)
        with Traffic(port_of(status), self.request) as traffic, httpx.Client(trust_env=False) as client:
            for _ in range(times):
                self.serve(2)
                traffic.answers()
                start = time.perf_counter()
                self.serve(1)
                while version_of(client, status, self.body) != "1":
                    pass
                slowest = max(slowest, time.perf_counter() - start)
        self.claim_none_failed("rollback", traffic.seen, f"{times} rollbacks to a warm version")
        text = "from the order to the first answer of the old version, the slowest"
        self.claims.append(Claim("rollback_s", round(slowest, 3), "< 1", slowest < 1, text))

    def worker_kills(self, times: int, *, workers: int) -> None:
        status = self.serve(1, only=True, workers=workers)
        port, pid = port_of(status), status.endpoint.pid
        with Traffic(port, self.request) as traffic:
            for _ in range(times):
                end_one(pid, "worker_child", workers, signal.SIGKILL)
                # The next one dies when this one's rows are answered, so that none meets two kills.
                traffic.answers()
        evidence = f"{times} workers killed (-9) with {workers} replica(s)"
        self.claim_none_failed(f"worker_kill_{workers}", traffic.seen, evidence)

    def front_joins(self) -> None:
        """A second front takes connections from the listener that the first one serves."""
        status = self.serve(1, only=True, fronts=1)
        with Traffic(port_of(status), self.request, clients=16) as traffic:
            self.serve(2, fronts=2)
            traffic.answers(100)
        self.claim_none_failed("front_join", traffic.seen, "a second front started together with a second version")

    def front_ends(self, times: int) -> None:
        for name, how in (("front_stop", signal.SIGTERM), ("front_kill", signal.SIGKILL)):
            status = self.serve(1, only=True, fronts=2)
            with Traffic(port_of(status), self.request) as traffic:
                for _ in range(times):
                    traffic.answers()
                    end_one(status.endpoint.pid, "serving.front", 2, how)
                wait_for(lambda pid=status.endpoint.pid: len(children(pid, "serving.front")) == 2)
            self.claim_none_failed(name, traffic.seen, f"{times} fronts ended by {how.name} of two")

    def flood(self, seconds: float) -> None:
        """Open loop at three times the capacity: what is accepted is in time, the rest is told to come again."""
        # Far above what eight clients wait for on a busy machine, far below what a flood's queue would cost.
        deadline_ms, queue = 2000.0, 256
        status = self.serve(1, only=True, deadline_ms=deadline_ms, queue=queue)
        port, pid = port_of(status), status.endpoint.pid
        calm_s = min(seconds / 3, 5.0)
        capacity = load.run(port, [self.request], connections=8, seconds=calm_s).rate
        before = load.memory_mb(pid)
        seen = asyncio.run(open_loop(port, self.request, rate=3 * capacity, seconds=seconds))
        after = load.memory_mb(pid)
        time.sleep(1.0)
        again = load.run(port, [self.request], connections=8, seconds=calm_s)
        self.rows.append(
            {
                "step": "flood", "capacity": capacity, "accepted": len(seen.latencies_ms), "errors": seen.errors,
                "p99_ms": seen.percentile_ms(99), "memory_mb": [before, after], "rate_after": again.rate,
                "errors_after": again.errors,
            }
        )  # fmt: skip
        other = {code: number for code, number in seen.errors.items() if code not in (503, 504)}
        refused = seen.errors.get(503, 0)
        p99 = round(seen.percentile_ms(99), 1)
        # A late answer is noticed by a sweep, and then has to reach a client on a busy machine.
        bar = deadline_ms + 250
        text = f"3 × {capacity:.0f}/s for {seconds:g} s: {len(seen.latencies_ms)} accepted, errors {seen.errors}"
        self.claims += [
            Claim("flood_accepted_p99_ms", p99, f"<= {bar:g}", p99 <= bar, text),
            Claim("flood_refused", refused, "> 0", refused > 0, text),
            Claim("flood_other_than_503_504", sum(other.values()), "== 0", not other, text),
            Claim("flood_memory_growth_mb", round(after - before, 1), "<= 64", after - before <= 64, text),
            Claim("flood_rate_1s_after", round(again.rate / capacity, 2), ">= 0.8", again.rate >= 0.8 * capacity, text),
            Claim("flood_failed_after", again.failed, "== 0", again.failed == 0, text),
        ]


JSON = {"content-type": "application/json"}


def version_of(client: httpx.Client, status: Status, body: bytes) -> str:
    answer = client.post(f"{status.endpoint.url}/invocations", content=body, headers=JSON)
    return answer.headers.get("x-headrace-version", "")


def port_of(status: Status) -> int:
    return int(status.endpoint.url.rpartition(":")[2])


def children(pid: int, word: str) -> list[psutil.Process]:
    """Return a supervisor's running children whose command has a word in it."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE and any(word in part for part in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def end_one(pid: int, word: str, of: int, how: signal.Signals) -> None:
    """Send a signal to one of `of` children, once all are there, and wait until another is in its place."""
    wait_for(lambda: len(children(pid, word)) == of)
    victim = children(pid, word)[0]
    os.kill(victim.pid, how)

    def is_replaced() -> bool:
        there = [one.pid for one in children(pid, word)]
        return victim.pid not in there and len(there) == of

    wait_for(is_replaced)


def wait_for(met: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    """Return the first true value. Raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = met()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError("the endpoint did not get there")


async def open_loop(port: int, request: bytes, *, rate: float, seconds: float) -> load.Window:
    """Send at a rate that does not wait for answers, over 256 connections; a request without a free one is a 0."""
    window = load.Window()
    free: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(256):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start = time.perf_counter()
        try:
            writer.write(request)
            head = await reader.readuntil(HEAD)
            await reader.readexactly(load.content_length(head))
            status = int(head[9:12])
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        if status == 200:
            window.latencies_ms.append(1000 * (time.perf_counter() - start))
        else:
            window.errors[status] = window.errors.get(status, 0) + 1
        free.put_nowait((reader, writer))

    tasks: set[asyncio.Task[None]] = set()
    start = time.perf_counter()
    due = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        while due < elapsed * rate and not free.empty():
            due += 1
            task = asyncio.ensure_future(one(*free.get_nowait()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        due = max(due, int(elapsed * rate) - 256)
        await asyncio.sleep(0.002)
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    window.seconds = time.perf_counter() - start
    while not free.empty():
        free.get_nowait()[1].close()
    return window


def measure(*, smoke: bool) -> str:
    """Run all steps and return the document."""
    with tempfile.TemporaryDirectory(prefix="headrace-resilience-") as home:
        bench = Bench(Path(home))
        try:
            bench.switches(6 if smoke else 20)
            bench.rollbacks(4 if smoke else 20)
            bench.front_joins()
            bench.front_ends(1 if smoke else 5)
            bench.worker_kills(1 if smoke else 20, workers=2)
            bench.worker_kills(1 if smoke else 20, workers=1)
            bench.flood(6 if smoke else 60)
        finally:
            bench.target.remove(NAME, Stage.PRODUCTION)
        return report(NAME, bench.rows, bench.claims)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document (the only form there is)")
    parser.add_argument("--smoke", action="store_true", help="the same claims on smaller numbers")
    print(measure(smoke=parser.parse_args().smoke))


if __name__ == "__main__":
    main()
