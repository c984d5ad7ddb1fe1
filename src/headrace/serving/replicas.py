"""The workers of one version inside the supervisor: started, warmed up, watched, started again."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError, ModelRefused
from headrace.serving import crash
from headrace.serving.control import Limits, VersionPlan
from headrace.serving.frames import Warmth
from headrace.serving.warmup import example_rows
from headrace.serving.worker import Threads, Worker, start_worker
from headrace.types import ServedVersion

log = logging.getLogger(__name__)
LOAD_S = 300.0
WARM_S = 120.0
LONGEST_WAIT_S = 30.0
#: A worker that lived this long starts its back-off anew.
STEADY_S = 60.0
#: A forward longer than this is worth more processes.
HEAVY_MS = 5.0


def workers_of(serve: Limits, forward_ms: float, cores: int) -> int:
    """Return how many workers `workers` means here: `auto` is one, or as many as cores for a heavy model."""
    if isinstance(serve.workers, str):
        return cores if forward_ms >= HEAVY_MS else 1
    return max(serve.workers, 1)


def threads_of(serve: Limits, cores: int) -> Threads:
    """Return what `threads` means here: with `auto` a heavy model shares the cores among its workers that are busy."""
    if not isinstance(serve.threads, str):
        return Threads(serve.threads)
    workers = cores if isinstance(serve.workers, str) else max(serve.workers, 1)
    return Threads(1, max(cores // workers, 1), cores)


@dataclass(slots=True, eq=False)
class Replicas:
    """All workers of one version.

    Attributes:
        names: gives each worker an address of its own, relative to the run folder.
        changed: is told of a problem (or of its end) of the version.
        warmth: what the first worker found out; the others take over what it kept, so that all do alike.
    """

    version: ServedVersion
    serve: Limits
    variables: Mapping[str, str]
    folder: Path
    cores: int
    names: Callable[[], str]
    changed: Callable[[int, str], None]
    workers: list[Worker] = field(default_factory=list)
    warmth: Warmth | None = None
    restarts: int = 0
    problem: str = ""
    is_golden: bool = False
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _is_closing: bool = False

    async def start(self) -> None:
        """Start all workers and wait until they are warm. Raises ModelRefused."""
        try:
            await self._start_one(self.names())
            workers = workers_of(self.serve, self._forward_ms(), self.cores)
            await _all_or_none([self._start_one(self.names()) for _ in range(workers - 1)])
        except BaseException:
            await self.stop()
            raise
        self._tasks = [asyncio.ensure_future(self._watch(place)) for place in range(len(self.workers))]

    def plan(self) -> VersionPlan:
        """Return what fronts need to know."""
        return VersionPlan(
            self.version.version,
            str(self.version.model),
            self.version.baseline,
            tuple(worker.address for worker in self.workers),
            self.warmth.by_row if self.warmth else True,
        )

    def measured(self) -> dict[str, Any]:
        """Return what loading and the first answers took: load_s, peak_mb, forward_ms by number of rows."""
        ready = self.workers[0].ready if self.workers else None
        found: dict[str, Any] = {"load_s": ready.load_s, "peak_mb": ready.peak_mb} if ready else {}
        if self.warmth is not None:
            found |= {"forward_ms": dict(self.warmth.forward_ms), "peak_mb": self.warmth.peak_mb}
        return found

    def kill(self, address: str) -> None:
        """End a worker that hangs; the watch starts another."""
        for worker in self.workers:
            if worker.address == address:
                worker.process.kill()

    async def stop(self) -> None:
        """End all workers and wait until they are gone."""
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self.workers:
            await asyncio.to_thread(worker.stop)
        self.workers.clear()

    def _forward_ms(self) -> float:
        return self.warmth.forward_ms.get("1", 0.0) if self.warmth else 0.0

    async def _start_one(self, address: str) -> Worker:
        # Started on this thread: the kernel ends a child with the thread that started it.
        worker = start_worker(
            self.version,
            variables=self.variables,
            cwd=self.folder,
            log=self.folder / f"worker-{self.version.version}.log",
            threads=threads_of(self.serve, self.cores),
            address=address,
        )
        try:
            await asyncio.to_thread(self._warm, worker)
        except BaseException:
            await asyncio.to_thread(worker.stop)
            raise
        self.workers.append(worker)
        return worker

    def _warm(self, worker: Worker) -> None:
        worker.wait_ready(LOAD_S)
        rows, is_sure = example_rows(self.version)
        try:
            kept = self.warmth.kept if self.warmth else None
            reply, _ = worker.ask("warm", rows, timeout_s=WARM_S, kept=kept)
            self.warmth = self.warmth or reply.warm
        except ModelRefused as error:
            if is_sure or worker.process.poll() is not None:
                raise
            log.warning("Version %s refuses made-up rows: %s", self.version.version, error)
        worker.open()

    async def _watch(self, place: int) -> None:
        """Start a worker again when it ends, with growing pauses where it keeps ending."""
        wait_s = 0.0
        while not self._is_closing:
            worker = self.workers[place]
            born = time.monotonic()
            code = await _ended(worker)
            found = crash.of_exit(code, self.version, peak_mb=worker.ready.peak_mb)
            log.warning("%s %s", found.fact, found.remedy)
            self._tell(f"{found.fact} Another is being loaded.")
            self.restarts += 1
            wait_s = 0.0 if time.monotonic() - born > STEADY_S else wait_s
            while not self._is_closing:
                await asyncio.sleep(wait_s)
                wait_s = min(max(wait_s * 2, 0.25), LONGEST_WAIT_S)
                if await self._again(place, worker):
                    break

    async def _again(self, place: int, worker: Worker) -> bool:
        try:
            fresh = await self._start_one(worker.address)
        except HeadraceError as error:
            log.warning("%s", error)
            self._tell(error.fact, error.remedy)
            return False
        except Exception as error:  # The boundary of a worker's life: nobody else would start it again.
            log.exception("version %s", self.version.version)
            self._tell(f"A worker of version {self.version.version} could not be started: {error!r}.")
            return False
        await asyncio.to_thread(worker.stop)
        self.workers.remove(fresh)
        self.workers[place] = fresh
        self._tell("")
        return True

    def _tell(self, problem: str, remedy: str = "") -> None:
        """Say what is wrong, to whoever asks for the status with the remedy, and to clients that wait without."""
        told = f"{problem.rstrip('.')}. {remedy}" if remedy else problem
        if told != self.problem:
            self.problem = told
            self.changed(self.version.version, problem)


async def _all_or_none(starting: Sequence[Coroutine[Any, Any, Worker]]) -> None:
    """Wait until all have started; where one fails, the others are ended before its error is raised."""
    tasks = [asyncio.ensure_future(one) for one in starting]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _ended(worker: Worker) -> int:
    """Wait until a worker's process has ended, and return its exit code."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    # The child never speaks unasked: its socket becomes readable when it ends.
    loop.add_reader(worker.control, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(worker.control)
    return await asyncio.to_thread(worker.process.wait)
