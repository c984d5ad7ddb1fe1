"""A front process: HTTP in, batches out to the workers. It does what the supervisor says over its control socket.

It imports neither torch nor mlflow nor pandas.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
from pathlib import Path
from typing import Any

import uvloop

from headrace.errors import HeadraceError
from headrace.serving import control
from headrace.serving.app import App
from headrace.serving.control import AskCounts, AskPage, Commit, Committed, Counted, Page, Prepare, Prepared, Problem
from headrace.serving.generation import Generation, Served, prepare
from headrace.serving.http1 import Listener
from headrace.serving.metrics import Counts
from headrace.serving.recorder import Recorder

log = logging.getLogger(__name__)
#: Tracebacks that go to the log in a minute: clients must not be able to fill the disk.
TRACEBACKS = 10
#: New objects until the collector looks: a full queue's worth, rather than a handful of requests'.
GARBAGE = 20_000


class Front:
    """One front: its application, its connections, and what it was told to prepare and commit."""

    def __init__(self, listener: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._listener = listener
        self._reader, self._writer = reader, writer
        self.counts = Counts()
        self._recorder: Recorder | None = None
        self._app: App | None = None
        self._connections: Listener | None = None
        self._pages: dict[int, asyncio.Future[Page]] = {}
        self._sequence = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Obey the supervisor until it says stop or is gone, then finish what is in flight."""
        while line := await control.read_line(self._reader):
            message = control.decode_to_front(line)
            if isinstance(message, control.Stop):
                break
            await self._obey(message)
        await self._drain()

    async def _obey(self, message: control.ToFront) -> None:
        if isinstance(message, Prepare):
            self._go(self._prepare(message.plan, message.is_first))
        elif isinstance(message, Commit):
            self._commit(message.generation)
        elif isinstance(message, AskCounts):
            self._say(Counted(message.sequence, self._counted()))
        elif isinstance(message, Page):
            waiting = self._pages.pop(message.sequence, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif isinstance(message, Problem):
            self._note(message)

    async def _prepare(self, plan: control.Plan, is_first: bool) -> None:
        app = self._app or self._start(plan)
        known: dict[int, Served] = {}
        for generation in (app.prepared, app.generation):
            known |= generation.served if generation else {}
        try:
            prepared = await prepare(plan, known, app.recorder, self.counts, self._stuck)
        except HeadraceError as error:
            self._say(Prepared(plan.generation, error.fact))
            return
        except Exception as error:  # The boundary of a message: whoever waits for the answer must hear of it.
            log.exception("generation %s", plan.generation)
            self._say(Prepared(plan.generation, f"The front failed: {error!r}."))
            return
        self._close_unused(app.prepared, keep=[app.generation, prepared])
        app.prepared = prepared
        if is_first:
            self._take_connections(app)
        self._say(Prepared(plan.generation))

    def _take_connections(self, app: App) -> None:
        if self._connections is None:
            self._connections = Listener(app, self._listener)
            self._connections.start()

    def _start(self, plan: control.Plan) -> App:
        self._recorder = Recorder(Path(plan.log) if plan.log else None, plan.component)
        self._app = App(self._recorder, self.counts, self._page)
        return self._app

    def _commit(self, number: int) -> None:
        app = self._app
        if app is None or app.prepared is None or app.prepared.plan.generation != number:
            return
        old, app.generation, app.prepared = app.generation, app.prepared, None
        app.generation.take_over()
        self._take_connections(app)
        # What is loaded by now stays; requests need not wait while the collector looks at it again and again.
        gc.freeze()
        self._say(Committed(number))
        self._go(self._release(old, app.generation))

    async def _release(self, old: Generation | None, new: Generation) -> None:
        """Let versions that left the route finish, then let go of their workers."""
        leaving = [one for one in old.served.values() if one not in new.served.values()] if old else []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(control.drain_s(old.plan.serve if old else control.Limits())):
                await asyncio.gather(*(one.pool.drain() for one in leaving))
        for one in leaving:
            one.close()
        self._say(control.Released(new.plan.generation))

    def _close_unused(self, old: Generation | None, *, keep: list[Generation | None]) -> None:
        kept = [one for generation in keep if generation for one in generation.served.values()]
        for one in old.served.values() if old else ():
            if one not in kept:
                one.close()

    def _note(self, message: Problem) -> None:
        if self._app is not None and self._app.generation is not None:
            served = self._app.generation.served.get(message.version)
            if served is not None:
                served.pool.problem = message.text

    def _stuck(self, version: int, address: str) -> None:
        log.warning("A worker of version %s is long past the deadline; it will be ended.", version)
        self._say(control.Stuck(version, address))

    def _counted(self) -> Counts:
        if self._recorder is not None:
            self.counts.log_written, self.counts.log_dropped = self._recorder.written, self._recorder.dropped
            self.counts.log_problem = self._recorder.problem
        retries = 0
        if self._app is not None and self._app.generation is not None:
            for served in self._app.generation.served.values():
                self.counts.of(served.version).queued_rows = served.pool.queued_rows
                retries += served.pool.retries
        self.counts.retries = max(self.counts.retries, retries)
        return self.counts

    async def _page(self) -> Page:
        self._sequence += 1
        waiting: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        sequence = self._sequence
        self._pages[sequence] = waiting
        self._say(AskPage(sequence))
        try:
            return await asyncio.wait_for(waiting, 5.0)
        finally:
            self._pages.pop(sequence, None)

    async def _drain(self) -> None:
        """Answer everything that was accepted, then write the rest of the log."""
        if self._connections is not None:
            generation = self._app.generation if self._app else None
            await self._connections.stop(control.drain_s(generation.plan.serve if generation else control.Limits()))
        if self._recorder is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._recorder.close)
        with contextlib.suppress(OSError):
            self._say(Counted(0, self._counted()))
            await self._writer.drain()

    def _say(self, message: control.FromFront) -> None:
        self._writer.write(control.encode_line(message))

    def _go(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class FewTracebacks(logging.Filter):
    """Lets so many tracebacks a minute into the log, and the number of those that it kept out."""

    def __init__(self) -> None:
        super().__init__()
        self._since, self._told, self._kept_out = 0.0, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info:
            return True
        if record.created - self._since >= 60:
            if self._kept_out:
                record.msg = f"{self._kept_out} more tracebacks were kept out of this log. {record.msg}"
            self._since, self._told, self._kept_out = record.created, 0, 0
        self._told += 1
        self._kept_out += self._told > TRACEBACKS
        return self._told <= TRACEBACKS


async def run(listen_fd: int, control_fd: int) -> None:
    """Be a front until told to stop."""
    listener = socket.socket(fileno=listen_fd)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=control_fd), limit=control.LINE_BYTES)
    front = Front(listener, reader, writer)
    # A plain kill of this process is a wish to stop too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reader.feed_eof)
    await front.run()


def main() -> None:
    parser = argparse.ArgumentParser(description="A front of a headrace endpoint; started by its supervisor.")
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s front %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(FewTracebacks())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(GARBAGE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options.listen_fd, options.control_fd))


if __name__ == "__main__":
    main()
