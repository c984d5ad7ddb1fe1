"""A front that goes from one generation of the route to the next."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.predictions.ids import Ids
from headrace.predictions.query import connect
from headrace.predictions.snapshot import take
from headrace.serving import generation as generations
from headrace.serving.batch import Job, Part
from headrace.serving.control import Limits, Plan, Prepared, VersionPlan
from headrace.serving.frames import Outputs
from headrace.serving.front import TRACEBACKS, FewTracebacks, Front
from headrace.serving.layout import rows_of
from headrace.serving.rejection import Rejected
from headrace.types import Field, FieldKind, Signature

SIGNATURE = Signature((Field("age", FieldKind.COLUMN, "double"), Field("ssn", FieldKind.COLUMN, "double")))


class Answering:
    """A link to a worker that answers at once."""

    def __init__(self, pool: Any, address: str, stuck: Any) -> None:
        self.pool = pool
        self.connected = asyncio.Event()
        self.connected.set()
        self.is_free, self.is_closed, self.begun = True, False, 0.0
        self.working_on: list[Job] = []

    def send(self, jobs: list[Job], *, alone: bool) -> None:
        rows = sum(job.rows.count for job in jobs)
        self.pool.answered(jobs, Outputs("array", [("", np.zeros(rows))]), 0.001)

    def hung(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """A front without sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
        self.log = log
        self.said: list[Any] = []
        monkeypatch.setattr(generations, "read_mlmodel", lambda _: SimpleNamespace(signature=SIGNATURE))
        monkeypatch.setattr(generations, "Link", Answering)
        monkeypatch.setattr(Front, "_take_connections", lambda *_: None)
        monkeypatch.setattr(Front, "_say", lambda _, message: self.said.append(message))
        self.front = Front(None, None, None)  # type: ignore[arg-type]  # nothing of it is used here

    async def release(self, number: int, limits: Limits, versions: tuple[int, ...] = (1,)) -> None:
        plans = tuple(VersionPlan(one, "model", "baseline", (f"w{one}.sock",), by_row=True) for one in versions)
        plan = Plan(number, "digits", "production", plans, {versions[-1]: 1.0}, limits, log=str(self.log))
        await self.front._prepare(plan, number == 1)
        assert self.said[-1] == Prepared(number)
        self.front._commit(number)
        await asyncio.gather(*self.front._tasks)

    @property
    def generation(self) -> generations.Generation:
        app = self.front._app
        assert app is not None
        assert app.generation is not None
        return app.generation

    async def ask(self, version: int = 1) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Part] = loop.create_future()
        rows = rows_of(SIGNATURE, {"age": np.array([4.0]), "ssn": np.array([7.0])})
        pool = self.generation.served[version].pool
        pool.submit(Job(rows, None, done, loop.time(), loop.time() + 60))
        await done
        await asyncio.sleep(0)

    def kept(self) -> list[tuple[Any, ...]]:
        recorder = self.front._recorder
        assert recorder is not None
        recorder.close()
        with connect(take(self.log / "digits")) as database:
            return database.execute("SELECT in_age, in_ssn FROM predictions ORDER BY id").fetchall()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def test_what_a_release_redacts_is_logged_no_more(bench: Bench) -> None:
    async def story() -> None:
        await bench.release(1, Limits())
        await bench.ask()
        await bench.release(2, Limits(redact=("ssn",)))
        await bench.ask()

    run(story)
    assert bench.kept() == [(4.0, 7.0), (4.0, None)]


def test_a_release_that_samples_nothing_logs_nothing_and_the_next_one_does_again(bench: Bench) -> None:
    async def story() -> None:
        for number, sample in enumerate((0.0, 1.0, 0.0), start=1):
            await bench.release(number, Limits(log_sample=sample))
            await bench.ask()

    run(story)
    assert len(bench.kept()) == 1


def test_loaded_versions_go_by_the_limits_of_the_release(bench: Bench) -> None:
    async def story() -> None:
        await bench.release(1, Limits(queue=4))
        before = bench.generation.served[1]
        await bench.release(2, Limits(queue=1, max_batch=1), versions=(1, 2))
        assert bench.generation.served[1] is before, "it is taken over, not loaded again"
        loop = asyncio.get_running_loop()
        rows = rows_of(SIGNATURE, {"age": np.zeros(2), "ssn": np.zeros(2)})
        for served in bench.generation.served.values():
            assert served.scoring.most_rows == 1
            with pytest.raises(Exception, match="2 rows; the limit is 1"):
                served.pool.submit(Job(rows, None, loop.create_future(), loop.time(), loop.time() + 60))

    run(story)


def test_versions_that_leave_finish_together_and_let_go_of_their_workers(bench: Bench) -> None:
    async def story() -> None:
        await bench.release(1, Limits(), versions=(1, 2))
        leaving = bench.generation.served
        await bench.release(2, Limits(), versions=(3,))
        assert all(link.is_closed for served in leaving.values() for link in served.links)  # type: ignore[attr-defined]

    run(story)


def test_a_version_is_pinned_by_a_number_and_anything_else_is_not_found(bench: Bench) -> None:
    async def story() -> None:
        await bench.release(1, Limits())
        assert bench.generation.pinned("1").version == 1
        for text in ("\u00b2", "\u0661", "1" * 5000, "-1", ""):
            with pytest.raises(Rejected) as refusal:
                bench.generation.pinned(text)
            assert refusal.value.status == 404

    run(story)


def test_ids_go_into_the_header_up_to_what_proxies_take(bench: Bench) -> None:
    async def story() -> None:
        await bench.release(1, Limits())
        headers, ids = bench.generation.served[1].headers, Ids().batch(101)
        assert f"x-headrace-prediction-id: {ids[0]}\r\n" in headers(ids[:1])
        assert f"x-headrace-prediction-id: {','.join(ids[:100])}\r\n" in headers(ids[:100])
        assert "prediction-id" not in headers(ids)
        assert "x-headrace-version: 1\r\n" in headers(ids)

    run(story)


def test_a_page_that_nobody_waits_for_any_more_is_forgotten(bench: Bench) -> None:
    async def story() -> None:
        waiting = asyncio.ensure_future(bench.front._page())
        await asyncio.sleep(0)
        assert len(bench.front._pages) == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not bench.front._pages

    run(story)


class SlowRequest:
    """A request whose body is still coming."""

    method, path, start = "POST", "/invocations", 0.0

    def __init__(self) -> None:
        self.headers = {"content-type": "application/json"}
        self.is_awaited, self.has_come = asyncio.Event(), asyncio.Event()
        self.answered: list[str] = []

    async def body(self, limit: int) -> bytes:
        self.start = asyncio.get_running_loop().time()
        self.is_awaited.set()
        await self.has_come.wait()
        return b'{"instances": [{"age": 4, "ssn": 7}]}'

    def answer(self, status: int, headers: str, body: bytes) -> None:
        self.answered.append(headers)


def test_a_request_whose_body_comes_when_its_version_has_left_is_answered_by_the_next(bench: Bench) -> None:
    async def story() -> None:
        await bench.release(1, Limits(), versions=(1,))
        request = SlowRequest()
        reading = bench.front._app._invoke_long(request, is_csv=False)  # type: ignore[union-attr, arg-type]
        asking = asyncio.ensure_future(reading)
        await request.is_awaited.wait()
        await bench.release(2, Limits(), versions=(2,))
        request.has_come.set()
        await asking
        assert ["x-headrace-version: 2\r\n" in headers for headers in request.answered] == [True]

    run(story)


def test_a_plan_that_a_front_cannot_understand_is_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Any:
        raise KeyError("signature")

    monkeypatch.setattr(generations, "read_mlmodel", broken)

    async def story() -> None:
        plan = Plan(1, "digits", "dev", (VersionPlan(1, "m", "b", ("w",), by_row=True),), {1: 1.0}, Limits())
        await bench.front._prepare(plan, is_first=True)

    run(story)
    assert "KeyError" in bench.said[-1].problem


def test_log_gets_so_many_tracebacks_a_minute() -> None:
    kept = FewTracebacks()

    def shown(at: float, *, has_trace: bool = True) -> logging.LogRecord | None:
        info = (ValueError, ValueError(), None) if has_trace else None
        record = logging.LogRecord("front", logging.ERROR, "", 1, "POST /invocations", None, info)
        record.created = at
        return record if kept.filter(record) else None

    assert [shown(1000.0) is not None for _ in range(TRACEBACKS + 5)] == [True] * TRACEBACKS + [False] * 5
    assert shown(1001.0, has_trace=False) is not None, "lines without one are short"
    later = shown(1061.0)
    assert later is not None
    assert later.getMessage() == "5 more tracebacks were kept out of this log. POST /invocations"
