"""The front processes inside the supervisor: started, told what to serve, watched, started again."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import Unavailable
from headrace.files import rotate
from headrace.serving import control
from headrace.serving.control import AskCounts, AskPage, Commit, Committed, Counted, Plan, Prepare, Prepared, Released
from headrace.serving.metrics import Counts, total

log = logging.getLogger(__name__)
PREPARE_S = 60.0
COMMIT_S = 5.0
COUNT_S = 2.0
#: How much longer than a front may take to answer what it has, until it is given up.
GRACE_S = 5.0
AGAIN_S = 1.0


@dataclass(slots=True, eq=False)
class FrontProcess:
    """One front, from the supervisor's side.

    Attributes:
        serving, ready: what it serves, and what it could serve at once.
    """

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    waiting: dict[tuple[str, int], "asyncio.Future[Any]"] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    task: "asyncio.Task[None] | None" = None
    serving: Plan | None = None
    ready: Plan | None = None

    def say(self, message: control.ToFront) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(control.encode_line(message))

    async def ask(self, message: control.ToFront, answer: type[Any], number: int, timeout_s: float) -> Any:
        """Say something and wait for its answer. Raises TimeoutError or ConnectionError."""
        waiting = asyncio.get_running_loop().create_future()
        self.waiting[(answer.__name__, number)] = waiting
        self.say(message)
        try:
            return await asyncio.wait_for(waiting, timeout_s)
        finally:
            self.waiting.pop((answer.__name__, number), None)


class Fronts:
    """All front processes of an endpoint.

    Attributes:
        restarts: fronts that ended unasked and were started again.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        folder: Path,
        variables: Mapping[str, str],
        page: Callable[[int], Any],
        stuck: Callable[[int, str], None],
    ) -> None:
        self._listener, self._folder, self._variables = listener, folder, variables
        self._page, self._stuck = page, stuck
        self._fronts: list[FrontProcess] = []
        self._gone = Counts()
        self._sequence = 0
        self._committed: Plan | None = None
        self._prepared: Plan | None = None
        self._is_closing = False
        #: A front gets ready for one plan at a time: a new one for what is served, before it does for what will be.
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.restarts = 0

    def __len__(self) -> int:
        return len(self._fronts)

    async def prepare(self, plan: Plan, number: int) -> None:
        """Get every front ready for a plan, starting those that are missing.

        Raises:
            Unavailable: a front cannot; the others stay as they were.
        """
        async with self._turn:
            while len(self._fronts) < number:
                fresh = await self._start()
                self._fronts.append(fresh)
                await self._catch_up(fresh)
            self._prepared = plan
            problems = await asyncio.gather(*(self._prepare(front, plan) for front in self._fronts))
        for problem in filter(None, problems):
            self._prepared = None
            raise Unavailable(f"A front of the endpoint could not get ready: {problem}")

    async def commit(self, plan: Plan) -> None:
        """Have every front serve the prepared plan. A front that does not answer is ended and started anew.

        One that was started since catches up by itself.
        """
        self._committed, self._prepared = plan, None
        await asyncio.gather(*(self._commit(front, plan) for front in self._fronts if front.ready is plan))

    def discard(self) -> None:
        """The prepared plan will not come: its workers are about to end, and no new front can get ready for it."""
        self._prepared = None

    def released(self, plan: Plan) -> "asyncio.Future[Any]":
        """Return what ends when no front uses older generations; ask for it before the commit."""
        ends_within_s = self._ends_within_s
        return asyncio.gather(
            *(asyncio.ensure_future(self._released(front, plan.generation, ends_within_s)) for front in self._fronts)
        )

    async def counts(self) -> Counts:
        """Return the sum over all fronts, those that are gone included."""
        self._sequence += 1
        number = self._sequence
        asks = [front.ask(AskCounts(number), Counted, number, COUNT_S) for front in self._fronts]
        await asyncio.gather(*asks, return_exceptions=True)
        return total([self._gone, *(front.counts for front in self._fronts)])

    @property
    def _ends_within_s(self) -> float:
        return control.drain_s(self._committed.serve if self._committed else control.Limits()) + GRACE_S

    @property
    def log_problem(self) -> str:
        """Return why a front could not keep predictions when it was last asked for its counts; empty where it could."""
        return next((front.counts.log_problem for front in self._fronts if front.counts.log_problem), "")

    def tell(self, message: control.ToFront) -> None:
        """Say something to all fronts."""
        for front in self._fronts:
            front.say(message)

    async def stop(self) -> None:
        """Let all fronts finish what they have, and wait until they are gone."""
        self._is_closing = True
        self.tell(control.Stop())
        for front in self._fronts:
            await asyncio.to_thread(_wait, front.process, self._ends_within_s)
        tasks = [front.task for front in self._fronts if front.task]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self) -> FrontProcess:
        ours, theirs = socket.socketpair()
        fds = (self._listener.fileno(), theirs.fileno())
        command = [
            sys.executable,
            "-m",
            "headrace.serving.front",
            "--listen-fd",
            str(fds[0]),
            "--control-fd",
            str(fds[1]),
        ]
        with theirs, rotate(self._folder / "fronts.log").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=dict(self._variables),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=control.LINE_BYTES)
        front = FrontProcess(process, reader, writer)
        front.task = asyncio.ensure_future(self._listen(front))
        return front

    async def _prepare(self, front: FrontProcess, plan: Plan) -> str:
        try:
            message = Prepare(plan, is_first=self._committed is None)
            answer = await front.ask(message, Prepared, plan.generation, PREPARE_S)
        except (TimeoutError, ConnectionError):
            return "it does not answer; see fronts.log."
        if not answer.problem:
            front.ready = plan
        return str(answer.problem)

    async def _catch_up(self, fresh: FrontProcess) -> str:
        """Have a new front serve what the others serve and get ready for what they will; return why it cannot."""
        while True:
            serving, prepared = self._committed, self._prepared
            plan = prepared if fresh.serving is serving else serving
            if plan is None or (plan is prepared and fresh.ready is prepared):
                return ""
            problem = await self._prepare(fresh, plan)
            if problem and (plan is self._committed or plan is self._prepared):
                return problem
            if plan is self._committed and not await self._commit(fresh, plan):
                return "it does not answer; see fronts.log."

    async def _commit(self, front: FrontProcess, plan: Plan) -> bool:
        try:
            await front.ask(Commit(plan.generation), Committed, plan.generation, COMMIT_S)
        except (TimeoutError, ConnectionError):
            front.process.kill()
            return False
        front.serving = plan
        return True

    async def _released(self, front: FrontProcess, number: int, ends_within_s: float) -> None:
        waiting = asyncio.get_running_loop().create_future()
        front.waiting[(Released.__name__, number)] = waiting
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(waiting, ends_within_s)

    async def _listen(self, front: FrontProcess) -> None:
        """Hear a front out until it ends, then start another unless the endpoint ends too."""
        try:
            while line := await control.read_line(front.reader):
                self._hear(front, control.decode_from_front(line))
        except Exception:  # The boundary of a front's life: one that cannot be understood is ended and replaced.
            log.exception("A front said something that was not understood.")
            front.process.kill()
        for waiting in front.waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the front ended"))
        await asyncio.to_thread(_wait, front.process, self._ends_within_s)
        self._gone = total([self._gone, front.counts])
        self._gone.log_problem = ""
        if not self._is_closing:
            await self._replace(front)

    def _hear(self, front: FrontProcess, message: control.FromFront) -> None:
        if isinstance(message, AskPage):
            self._go(self._send_page(front, message.sequence))
        elif isinstance(message, control.Stuck):
            self._stuck(message.version, message.address)
        elif isinstance(message, Counted):
            front.counts = message.counts
            self._answer(front, message, message.sequence)
        else:
            self._answer(front, message, message.generation)

    async def _replace(self, front: FrontProcess) -> None:
        log.warning("A front ended with %s and is started again.", front.process.returncode)
        self.restarts += 1
        started = time.monotonic()
        while True:
            try:
                fresh = await self._start()
                break
            except OSError:  # No process or no descriptor to be had: later there may be one.
                log.exception("A front could not be started.")
                await asyncio.sleep(AGAIN_S)
            if self._is_closing:
                return
        if front in self._fronts:
            self._fronts[self._fronts.index(front)] = fresh
        async with self._turn:
            problem = await self._catch_up(fresh)
        if problem:
            log.warning("The new front could not get ready: %s", problem)
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - started)))
            fresh.process.kill()

    def _answer(self, front: FrontProcess, message: Any, number: int) -> None:
        waiting = front.waiting.get((type(message).__name__, number))
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _send_page(self, front: FrontProcess, sequence: int) -> None:
        front.say(await self._page(sequence))

    def _go(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
