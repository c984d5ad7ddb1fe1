"""Requests for answers that go their way without a task."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.serving import generation as generations
from headrace.serving.app import App
from headrace.serving.batch import Job
from headrace.serving.control import Limits, Plan, VersionPlan
from headrace.serving.exchange import Exchange
from headrace.serving.frames import Outputs
from headrace.serving.metrics import Counts
from headrace.serving.recorder import Recorder
from headrace.serving.rejection import SLOW, Rejected
from headrace.types import Field, FieldKind, Signature

SIGNATURE = Signature((Field("age", FieldKind.COLUMN, "double"),))
ROW = b'{"instances": [{"age": 4}]}'


class Link:
    """A worker that answers when it is told to."""

    def __init__(self, pool: Any, address: str, stuck: Any) -> None:
        self.pool, self.working_on, self.begun = pool, list[Job](), 0.0
        self.connected = asyncio.Event()
        self.connected.set()

    @property
    def is_free(self) -> bool:
        return not self.working_on

    def send(self, jobs: list[Job], *, alone: bool) -> None:
        self.working_on = jobs

    def answer(self, values: list[Any]) -> None:
        jobs, self.working_on = self.working_on, []
        outputs = np.empty(len(values), object)
        outputs[:] = values
        self.pool.answered(jobs, Outputs("array", [("", outputs)]), 0.001)

    def hung(self) -> None: ...

    def close(self) -> None: ...


class Request:
    """A request as a connection hands it over, and what came of it."""

    def __init__(self, **headers: str) -> None:
        given = {"content-type": "application/json", "content-length": str(len(ROW))}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.exchange = Exchange(self, "POST", "/invocations", given)
        self.answers: list[tuple[int, Any]] = []

    def send_body(self) -> None:
        self.exchange.feed(ROW)
        self.exchange.is_whole = True
        self.exchange.look()

    def respond(self, _: Exchange, status: int, headers: str, body: bytes) -> None:
        self.answers.append((status, msgspec.json.decode(body)))

    def go_on(self) -> None: ...

    def resume(self) -> None: ...

    def hold(self, more: int) -> bool:
        return True


class Bench:
    """An application with one version and one worker."""

    app: App

    async def begin(self) -> "Bench":
        self.counts, recorder = Counts(), Recorder(None, "ages")
        self.app = App(recorder, self.counts, None)  # type: ignore[arg-type]  # no page is asked for
        plan = Plan(1, "ages", "dev", (VersionPlan(1, "m", "b", ("w",), by_row=True),), {1: 1.0}, Limits())
        self.app.generation = await generations.prepare(plan, {}, recorder, self.counts, lambda *_: None)
        return self

    @property
    def link(self) -> Link:
        assert self.app.generation is not None
        return self.app.generation.served[1].links[0]  # type: ignore[return-value]

    @property
    def is_quiet(self) -> bool:
        """Nothing waits or runs."""
        assert self.app.generation is not None
        pool = self.app.generation.served[1].pool
        return not pool.waiting and not pool._running and not self.app._tasks

    async def ask(self, *requests: Request) -> None:
        for request in requests:
            self.app.take(request.exchange)
            request.send_body()
        for _ in range(4):
            await asyncio.sleep(0)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(generations, "read_mlmodel", lambda _: SimpleNamespace(signature=SIGNATURE, folder=Path()))
    monkeypatch.setattr(generations, "Link", Link)
    return Bench()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def test_rows_are_answered_with_their_ids_and_counted(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        first, second = Request(), Request()
        await bench.ask(first, second)
        bench.link.answer([1, 2])
        [(status, one)], [(_, two)] = first.answers, second.answers
        assert (status, one["predictions"], two["predictions"]) == (200, [1], [2])
        assert one["prediction_ids"] != two["prediction_ids"]
        assert (bench.counts.of(1).requests, bench.is_quiet) == (2, True)

    run(story)


def test_an_output_that_json_cannot_say_fails_its_own_request_alone(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        strange, good = Request(), Request()
        await bench.ask(strange, good)
        bench.link.answer([object(), 2])
        assert [status for status, _ in strange.answers] == [500]
        assert [status for status, _ in good.answers] == [200]
        assert bench.is_quiet

    run(story)


def test_a_body_that_does_not_come_is_given_up_and_answered_once(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        request = Request()
        bench.app.take(request.exchange)
        request.exchange.fail(Rejected(SLOW, "The body did not come."))
        assert [status for status, _ in request.answers] == [408]
        request.send_body()
        await asyncio.sleep(0)
        assert len(request.answers) == 1
        assert (bench.is_quiet, bench.link.working_on) == (True, [])

    run(story)


def test_a_connection_that_breaks_within_the_body_harms_nobody(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        broken, good = Request(), Request()
        bench.app.take(broken.exchange)
        broken.exchange.lose()
        await bench.ask(good)
        bench.link.answer([1])
        assert [status for status, _ in good.answers] == [200]
        assert bench.is_quiet

    run(story)


def test_what_comes_behind_a_whole_body_is_no_more_of_it(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        request = Request()
        await bench.ask(request)
        request.exchange.look()  # As the connection does when the next request comes before the answer.
        assert request.answers == []
        bench.link.answer([1])
        assert [status for status, _ in request.answers] == [200]

    run(story)


def test_refusals_of_the_version_count_as_its_errors(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        assert bench.app.generation is not None
        pool = bench.app.generation.served[1].pool
        pool.limit(max_batch=1, queue_rows=1)
        running, waiting, refused = Request(), Request(), Request()
        for request in (running, waiting, refused):
            await bench.ask(request)
        assert [status for status, _ in refused.answers] == [503]
        bench.link.answer([object()])
        assert [status for status, _ in running.answers] == [500]
        counts = bench.counts.of(1)
        assert (counts.requests, counts.errors) == (0, 1), "a strange output is none of its answers"
        assert bench.counts.errors == {"503:": 1, "500:front": 1}

    run(story)


def test_who_leaves_is_taken_out_of_the_queue(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        running, waiting = Request(), Request()
        await bench.ask(running)
        await bench.ask(waiting)
        waiting.exchange.lose()
        assert bench.counts.cancelled == 1
        bench.link.answer([1])
        await asyncio.sleep(0)
        assert bench.link.working_on == [], "nobody waits for the other row"

    run(story)


def test_an_answered_request_leaves_nothing_to_the_garbage_collector(bench: Bench) -> None:
    async def story() -> None:
        await bench.begin()
        request = Request()
        await bench.ask(request)
        bench.link.answer([1])
        await asyncio.sleep(0)
        assert len(request.answers) == 1
        del request.exchange
        assert not [one for one in gc.get_objects() if type(one) is Exchange]

    gc.collect()
    gc.disable()
    try:
        run(story)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content_type": "text/html"}, 415), ({"content_encoding": "gzip"}, 415), ({"content_length": "99999999"}, 413)],
)
def test_what_is_wrong_with_the_headers_is_told_before_the_body_is_read(
    bench: Bench, headers: dict[str, str], status: int
) -> None:
    async def story() -> None:
        await bench.begin()
        # Who asks whether to go on sends no body that would have to be forgotten.
        request = Request(**headers, expect="100-continue")
        bench.app.take(request.exchange)
        assert [answered for answered, _ in request.answers] == [status]
        assert (bench.counts.errors, bench.is_quiet) == ({f"{status}:": 1}, True)

    run(story)
