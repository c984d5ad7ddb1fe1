"""The queue of a version: greedy batches, deadlines, and rows that are not harmed by their neighbours."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from headrace.serving.batch import QUIET, Job, Part, Pool
from headrace.serving.frames import Failure, Outputs
from headrace.serving.layout import layout_of, rows_of
from headrace.serving.metrics import BOUNDS, VersionCounts
from headrace.serving.rejection import Rejected
from headrace.types import UNNAMED, Field, FieldKind, Signature

SIGNATURE = Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 1)),))


class Hands:
    """A worker that answers when told to, and keeps what it got."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.is_free = True
        self.batches: list[list[Job]] = []
        self.alone: list[bool] = []
        self.is_elsewhere = False
        self.is_ended = False
        pool.workers.append(self)

    @property
    def working_on(self) -> list[Job]:
        return [] if self.is_free else self.batches[-1]

    @property
    def begun(self) -> float:
        return time.monotonic() if self.is_elsewhere else 0.0

    def hung(self) -> None:
        self.is_ended = True

    def send(self, jobs: list[Job], *, alone: bool) -> None:
        self.is_free = False
        self.batches.append(jobs)
        self.alone.append(alone)

    def answer(self, seconds: float = 1e-6, apart_s: float = 0.0) -> None:
        jobs = self.batches[-1]
        values = np.concatenate([np.frombuffer(job.rows.parts[0], "float32") for job in jobs])
        self.is_free = True
        self.pool.answered(jobs, Outputs("array", [("", values * 2)]), seconds, apart_s)

    def raise_error(self) -> None:
        self.is_free = True
        self.pool.failed(self.batches[-1], Failure("predict", "ValueError", "no"))

    def die(self) -> None:
        self.is_free = True
        self.pool.lost(self.batches[-1], "It died on this row, twice.")


class Bench:
    """A pool with one worker."""

    def __init__(self, **changes: Any) -> None:
        options: dict[str, Any] = {"max_batch": 4, "queue_rows": 8, "by_row": True, **changes}
        self.pool = Pool(
            counts=VersionCounts(),
            ids=lambda rows: [f"id-{row}" for row in range(rows)],
            recorded=lambda jobs, answer, ids, now: None,
            describe=lambda failure: f"The model failed: {failure.type}.",
            **options,
        )
        self.hands = Hands(self.pool)

    def copy(self, value: float) -> None:
        """Have a shadow's copy answered."""
        now = self.pool.loop.time()
        rows = rows_of(SIGNATURE, {UNNAMED: np.array([[value]], "float32")})
        self.pool.submit(Job(rows, None, None, now, now + 60))

    def ask(self, *values: float, deadline_s: float = 60.0, length: int = 0) -> "asyncio.Future[Part]":
        now = self.pool.loop.time()
        rows = rows_of(SIGNATURE, {UNNAMED: np.array(values, "float32")[:, None]})
        assert rows.layout is layout_of(SIGNATURE.inputs, frozenset())
        done: asyncio.Future[Part] = self.pool.loop.create_future()
        self.pool.submit(Job(rows, None, done, now, now + deadline_s, length))
        return done

    def sizes(self) -> list[int]:
        return [sum(job.rows.count for job in batch) for batch in self.hands.batches]


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


async def a_quiet_turn() -> None:
    """Let the loop turn until one turn has brought nothing new, which sends what waits."""
    for _ in range(2):
        await asyncio.sleep(0)


def values(part: Part) -> list[float]:
    found: list[float] = part.answer.columns()[0][1][part.start : part.end]
    return found


def test_free_worker_takes_what_waits_and_each_gets_its_rows() -> None:
    async def story() -> None:
        bench = Bench()
        first = bench.ask(1)
        await asyncio.sleep(0)
        second = bench.ask(2, 3)
        await a_quiet_turn()
        third = [bench.ask(n) for n in (4, 5, 6)]
        await a_quiet_turn()
        assert bench.sizes() == [3], "what came in turn after turn goes together, the rest waits for the worker"
        bench.hands.answer()
        assert values(await first) == [2]
        part = await second
        assert (values(part), list(part.ids)) == ([4, 6], ["id-1", "id-2"])
        await a_quiet_turn()
        bench.hands.answer()
        assert [values(await one) for one in third] == [[8], [10], [12]]
        await bench.pool.drain()

    run(story)


def test_a_full_batch_waits_for_no_quiet_turn() -> None:
    async def story() -> None:
        bench = Bench(max_batch=2)
        bench.ask(1)
        await asyncio.sleep(0)
        bench.ask(2)
        bench.ask(3)
        await asyncio.sleep(0)
        assert bench.sizes() == [2]

    run(story)


def test_a_worker_hears_that_it_is_alone_once_it_has_been_quiet_for_a_while() -> None:
    async def story() -> None:
        bench = Bench(max_batch=2)
        other = Hands(bench.pool)

        async def ask(*values: float) -> None:
            for value in values:
                bench.ask(value)
            await a_quiet_turn()

        async def one_after_the_other() -> None:
            bench.hands.alone.clear()
            for value in range(QUIET + 2):
                await ask(value)
                bench.hands.answer()
            assert bench.hands.alone == [False] * QUIET + [True, True]

        await one_after_the_other()
        await ask(1)
        await ask(2)
        assert (bench.hands.alone[-1], other.alone) == (True, [False]), "beside another"
        for hands in (bench.hands, other):
            hands.answer()
        await one_after_the_other()
        other.is_free = False
        await ask(1, 2, 3)
        assert (len(bench.pool.waiting), bench.hands.alone[-1]) == (1, False), "while rows wait"

    run(story)


def test_the_only_worker_is_always_alone() -> None:
    async def story() -> None:
        bench = Bench(max_batch=1)
        for value in range(3):
            bench.ask(value)
        for _ in range(3):
            await a_quiet_turn()
            bench.hands.answer()
        assert bench.hands.alone == [True] * 3

    run(story)


def test_a_heavy_models_workers_share_what_comes() -> None:
    async def story() -> None:
        bench = Bench(queue_rows=64, max_batch=64)
        other = Hands(bench.pool)
        bench.ask(0)
        await a_quiet_turn()
        bench.hands.answer(seconds=1.0)
        for value in range(9):
            bench.ask(value)
        await a_quiet_turn()
        assert (bench.sizes(), len(other.batches[0])) == ([1, 5], 4), "few are shared"
        for hands in (bench.hands, other):
            hands.answer(seconds=1.0)
        for value in range(60):
            bench.ask(value)
        await a_quiet_turn()
        assert (bench.sizes()[2:], len(other.batches[1])) == ([20], 20), "of many, as many wait for who is free next"

    run(story)


def test_a_cheap_models_worker_takes_all_that_waits() -> None:
    async def story() -> None:
        bench = Bench(queue_rows=64, max_batch=64)
        other = Hands(bench.pool)
        for value in range(9):
            bench.ask(value)
        await a_quiet_turn()
        assert (bench.sizes(), other.batches) == ([9], [])

    run(story)


def test_full_queue_answers_503_and_a_huge_request_413() -> None:
    async def story() -> None:
        bench = Bench()
        for _ in range(8):
            bench.ask(1)
        with pytest.raises(Rejected) as full:
            bench.ask(1)
        with pytest.raises(Rejected) as huge:
            bench.ask(*range(9))
        assert (full.value.status, full.value.retry_after_s, huge.value.status) == (503, 1, 413)

    run(story)


def test_late_request_answers_504_and_leaves_the_queue() -> None:
    async def story() -> None:
        bench = Bench()
        running, waiting = bench.ask(1, 1, 1, 1, deadline_s=0.0), None
        await a_quiet_turn()
        waiting = bench.ask(2, deadline_s=0.0)
        for late in (running, waiting):
            with pytest.raises(Rejected) as raised:
                await late
            assert raised.value.status == 504
        assert bench.pool.queued_rows == 0

    run(story)


def test_cancelled_requests_leave_the_queue_and_make_room() -> None:
    async def story() -> None:
        bench = Bench()
        running = bench.ask(0)
        await a_quiet_turn()
        gone = [bench.ask(n) for n in range(8)]
        for job in list(bench.pool.waiting):
            job.leave()
        for one in gone:
            with pytest.raises(Rejected) as raised:
                await one
            assert raised.value.status == 499
        while bench.pool.queued_rows:
            await asyncio.sleep(0.001)
        staying = bench.ask(5)
        bench.hands.answer()
        await a_quiet_turn()
        bench.hands.answer()
        assert (values(await running), values(await staying)) == ([0], [10])
        assert bench.sizes() == [1, 1], "no worker saw the rows of those who left"

    run(story)


def test_worker_that_hangs_is_ended_and_one_that_is_late_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        bench = Bench()
        late = bench.ask(1, deadline_s=0.0)
        with pytest.raises(Rejected):
            await late
        assert not bench.hands.is_ended
        monkeypatch.setattr("headrace.serving.batch.HANG_S", 0.01)
        while not bench.hands.is_ended:
            await asyncio.sleep(0.001)

    run(story)


def test_request_that_would_be_late_is_told_at_once() -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask(1)
        await a_quiet_turn()
        bench.hands.answer(seconds=1.0)
        bench.ask(1, deadline_s=60)
        with pytest.raises(Rejected) as raised:
            bench.ask(1, deadline_s=0.5)
        assert raised.value.status == 503
        bench.ask(1, deadline_s=60)

    run(story)


def test_small_batches_do_not_count_as_slow_ones() -> None:
    async def story() -> None:
        bench = Bench(queue_rows=100)
        for seconds in (0.02, *[0.5] * 20):  # Another front's batches were before it.
            bench.ask(1)
            await a_quiet_turn()
            bench.hands.answer(seconds)
        asked = [bench.ask(1, deadline_s=2.0) for _ in range(8)]
        assert len(asked) == 8, "eight rows of 20 ms each are answered in time"
        for _ in range(20):
            await a_quiet_turn()
            bench.hands.answer(1.0)
            for _ in range(4):  # So that rows are left waiting.
                bench.ask(1)
        with pytest.raises(Rejected, match="longer than the deadline"):
            bench.ask(1, deadline_s=2.0)

    run(story)


def test_time_behind_other_fronts_batches_counts_for_each_batch_and_shuts_nobody_out() -> None:
    async def story() -> None:
        bench = Bench(queue_rows=100, max_batch=64)
        for _ in range(20):
            for _ in range(10):
                bench.ask(1)
            await a_quiet_turn()
            bench.hands.answer(seconds=0.005, apart_s=0.2)
        # Half a millisecond a row, 0.2 s before each ten of them, and twice that before the first: 1.6 s for 58.
        for _ in range(55):
            bench.ask(1, deadline_s=2.0)
        for _ in range(5):
            with contextlib.suppress(Rejected):
                bench.ask(1, deadline_s=2.0)
        with pytest.raises(Rejected, match="longer than the deadline"):
            bench.ask(1, deadline_s=2.0)
        await a_quiet_turn()
        for _ in range(20):
            bench.hands.answer(seconds=0.1, apart_s=30.0)
            bench.ask(1, deadline_s=2.0)
            await a_quiet_turn()

    run(story)


def test_large_request_that_would_be_late_by_itself_is_refused_once_that_is_known() -> None:
    async def story() -> None:
        bench = Bench(queue_rows=1000)
        first = bench.ask(*range(500), deadline_s=1.0)
        await a_quiet_turn()
        bench.hands.answer(5.0)
        assert len(values(await first)) == 500
        with pytest.raises(Rejected, match=r"take about 4\.0 s; the deadline is 1 s") as raised:
            bench.ask(*range(400), deadline_s=1.0)
        assert (raised.value.status, raised.value.remedy) == (413, "Send several of at most 100 rows.")
        bench.ask(*range(400), deadline_s=10.0)
        await a_quiet_turn()
        bench.hands.answer(0.001)
        bench.ask(*range(400), deadline_s=1.0)

    run(story)


def test_long_batch_is_no_hung_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr("headrace.serving.batch.HANG_S", 0.01)
        bench = Bench(queue_rows=1000)
        bench.ask(1)
        await a_quiet_turn()
        bench.hands.answer(0.01)
        many = bench.ask(*range(500), deadline_s=0.01)
        with pytest.raises(Rejected):
            await many
        await asyncio.sleep(0.1)
        assert not bench.hands.is_ended, "five hundred rows take that long"
        bench.hands.answer(5.0)
        few = bench.ask(1, deadline_s=0.01)
        with pytest.raises(Rejected):
            await few
        while not bench.hands.is_ended:
            await asyncio.sleep(0.001)

    run(story)


def test_worker_at_another_fronts_batch_is_that_fronts_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr("headrace.serving.batch.HANG_S", 0.01)
        monkeypatch.setattr("headrace.serving.batch.PATIENCE_S", 0.3)
        bench = Bench()
        bench.hands.is_elsewhere = True
        asked = bench.ask(1, deadline_s=0.01)
        with pytest.raises(Rejected):
            await asked
        await asyncio.sleep(0.1)
        assert not bench.hands.is_ended
        while not bench.hands.is_ended:  # The other front may be gone, and nobody else would say so.
            await asyncio.sleep(0.01)

    run(story)


def test_shadows_copies_and_requests_have_batches_of_their_own() -> None:
    async def story() -> None:
        bench = Bench()
        bench.copy(1)
        asked = bench.ask(2)
        bench.copy(3)
        for _ in range(2):
            await a_quiet_turn()
            bench.hands.answer()
        assert values(await asked) == [4]
        assert [[job.done is None for job in batch] for batch in bench.hands.batches] == [[True, True], [False]]

    run(story)


def test_row_that_the_model_leaves_out_harms_nobody_else() -> None:
    async def story() -> None:
        bench = Bench()
        asked = [bench.ask(n) for n in (1, 2, 3)]
        await a_quiet_turn()
        bench.hands.is_free = True
        bench.pool.answered(bench.hands.batches[-1], Outputs("array", [("", np.array([2.0, 6.0]))]), 1e-6)
        for turn in range(3):
            await a_quiet_turn()
            if turn == 1:
                bench.hands.is_free = True
                bench.pool.answered(bench.hands.batches[-1], Outputs("array", [("", np.array([]))]), 1e-6)
            else:
                bench.hands.answer()
        assert (values(await asked[0]), values(await asked[2])) == ([2], [6])
        with pytest.raises(Rejected, match="0 answers for 1 rows"):
            await asked[1]

    run(story)


def test_error_in_a_batch_harms_nobody_but_its_cause() -> None:
    async def story() -> None:
        bench = Bench()
        good, bad = bench.ask(1), bench.ask(2)
        await a_quiet_turn()
        bench.hands.raise_error()
        await a_quiet_turn()
        bench.hands.answer()
        await a_quiet_turn()
        bench.hands.raise_error()
        assert bench.sizes() == [2, 1, 1]
        assert values(await good) == [2]
        with pytest.raises(Rejected, match="ValueError"):
            await bad

    run(story)


def test_row_that_kills_twice_is_answered_alone_with_the_cause() -> None:
    async def story() -> None:
        bench = Bench()
        deadly, good = bench.ask(1), bench.ask(2)
        await a_quiet_turn()
        bench.hands.die()
        await a_quiet_turn()
        bench.hands.die()
        await a_quiet_turn()
        bench.hands.answer()
        with pytest.raises(Rejected, match="twice") as raised:
            await deadly
        assert raised.value.status == 500
        assert values(await good) == [4]

    run(story)


def test_long_texts_wait_for_their_like_and_are_not_starved() -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask(0, 0, 0, 0)
        await a_quiet_turn()
        for value, length in ((1, 100), (2, 900), (3, 200), (4, 1000), (5, 150)):
            bench.ask(value, length=length)
        for _ in range(2):
            bench.hands.answer()
            await a_quiet_turn()
        lengths = [[job.length for job in batch] for batch in bench.hands.batches[1:]]
        assert lengths == [[100, 200, 150], [900, 1000]]

    run(story)


def test_short_texts_are_not_padded_to_a_long_one() -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask(0, 0, 0, 0)
        await a_quiet_turn()
        for value, length in ((1, 900), (2, 100), (3, 500)):
            bench.ask(value, length=length)
        for _ in range(2):
            bench.hands.answer()
            await a_quiet_turn()
        lengths = [[job.length for job in batch] for batch in bench.hands.batches[1:]]
        assert lengths == [[900, 500], [100]]

    run(story)


def test_cancelled_request_is_not_sent() -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask(0, 0, 0, 0)
        await a_quiet_turn()
        gone, stays = bench.ask(1), bench.ask(2)
        bench.pool.waiting[0].leave()
        bench.hands.answer()
        await a_quiet_turn()
        assert bench.sizes() == [4, 1]
        with pytest.raises(Rejected):
            await gone
        bench.hands.answer()
        assert values(await stays) == [4]

    run(story)


def test_model_that_answers_for_the_batch_gets_one_request_at_a_time() -> None:
    async def story() -> None:
        bench = Bench(by_row=False)
        bench.ask(1)
        bench.ask(2)
        await a_quiet_turn()
        bench.hands.answer()
        await a_quiet_turn()
        assert bench.sizes() == [1, 1]

    run(story)


def test_what_is_answered_as_a_whole_comes_whole() -> None:
    async def story() -> None:
        bench = Bench(by_row=False)
        asked = bench.ask(1)
        await a_quiet_turn()
        bench.pool.answered(bench.hands.batches[-1], Outputs("array", [("", np.arange(5.0))]), 0.1)
        part = await asked
        assert (values(part), list(part.ids)) == ([0, 1, 2, 3, 4], ["id-0"])

    run(story)


def test_wrong_number_of_answers_is_an_error() -> None:
    async def story() -> None:
        bench = Bench()
        asked = bench.ask(1, 2)
        await a_quiet_turn()
        bench.pool.answered(bench.hands.batches[-1], Outputs("array", [("", np.zeros(3))]), 0.1)
        with pytest.raises(Rejected, match="3 answers for 2 rows"):
            await asked

    run(story)


def test_requests_of_a_batch_are_counted_by_the_time_that_each_took() -> None:
    together, apart = VersionCounts(), VersionCounts()
    together.answered([7.0, 9.5, 9.9995], 5, 10.0)
    for start, rows in ((7.0, 3), (9.5, 1), (9.9995, 1)):
        apart.answered([start], rows, 10.0)
    assert together.latency == apart.latency
    assert [together.latency[BOUNDS.index(bound)] for bound in (0.001, 0.5, 5.0)] == [1, 1, 1]
    assert (together.requests, together.rows, together.seconds) == (3, 5, pytest.approx(3.5005))
    apart.answered([], 0, 10.0)
    assert apart.requests == 3, "where all clients have gone there is nothing to count"
