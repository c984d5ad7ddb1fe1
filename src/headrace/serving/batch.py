"""Rows of several requests joined greedily, without a timer: a free worker takes what is waiting."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from headrace.serving.frames import Failure, Outputs
from headrace.serving.layout import Rows
from headrace.serving.metrics import VersionCounts
from headrace.serving.rejection import FULL, GONE, LATE, MODEL_FAILED, TOO_LARGE, Rejected, too_many_rows
from headrace.types import Json

#: How often late requests are looked for.
SWEEP_S = 0.01
#: How long past its requests' deadlines a worker may go on before it counts as hung, beside twice what the batch should
#: take, which is believed up to a limit.
HANG_S, PATIENCE_S = 2.0, 60.0
#: How long a large batch tells what others would take, and how many times as many rows they may have.
LARGE_S, LIKE = 60.0, 8
#: From this on a batch counts as heavy.
HEAVY_S = 0.01
#: Batches of a heavy model are not made smaller than this only to leave rows to others.
WORTHWHILE = 8
#: So many batches must have run with none beside them before the next may have the other workers' cores.
QUIET = 4
#: Texts below this length pad so little that they are not told apart.
SHORT = 64


class Asker(Protocol):
    """Who waits for an answer: a future, or what does as one. It is given one of the two, once."""

    def set_result(self, part: "Part", /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


class Job(msgspec.Struct, eq=False):
    """One request's rows on their way.

    Attributes:
        done: gets the `Part` of the answer; None for a shadow's copy, whose answer is only logged.
        deadline: when it is too late, in `time.monotonic`; the loop's own time may be rounded.
        kept: it goes into the prediction log; golden probes do not.
        alone: it was in a batch that failed, so it goes by itself.
        is_over: it has its answer, or nobody waits for that any more.
    """

    rows: Rows
    params: Mapping[str, Json] | None
    done: Asker | None
    start: float
    deadline: float
    length: int = 0
    kept: bool = True
    alone: bool = False
    tries: int = 0
    is_over: bool = False

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if not self.is_over:
            self.is_over = True
            if self.done is not None:
                with contextlib.suppress(asyncio.InvalidStateError):  # Whose task was cancelled waits no more.
                    self.done.set_exception(error)

    def leave(self) -> None:
        """The client has gone: nobody waits for the answer."""
        self.fail(Rejected(GONE, "The client has gone."))


class Part(msgspec.Struct, gc=False):
    """One request's share of a batch's outputs: rows `start` to `end`, and the ids that they were logged under."""

    answer: "BatchAnswer"
    start: int
    end: int
    ids: Sequence[str]


class BatchAnswer(msgspec.Struct, gc=False):
    """A batch's outputs; lists are made once for all its requests."""

    outputs: Outputs
    rows: int
    listed: list[tuple[str, list[Any]]] = []

    def columns(self) -> list[tuple[str, list[Any]]]:
        if not self.listed:
            self.listed = [(name, values.tolist()) for name, values in self.outputs.named]
        return self.listed


class Worker(Protocol):
    """Where a batch goes: a link to a child, or a model in this process."""

    @property
    def is_free(self) -> bool: ...

    @property
    def working_on(self) -> Sequence[Job]:
        """The jobs that were sent and are not back."""
        ...

    @property
    def begun(self) -> float:
        """When it took up what it works on, in `time.monotonic`; now, while it is still at another front's batch."""
        ...

    def hung(self) -> None:
        """Have it killed: it is long past the deadline of all that it works on."""
        ...

    def send(self, jobs: list[Job], *, alone: bool) -> None:
        """Start on a batch, `alone` where no other worker is busy, or was lately.

        `Pool.answered`, `Pool.failed` or `Pool.lost` is called when it ends.
        """
        ...


class Pool:
    """The waiting rows of one version and the workers that take them.

    Attributes:
        by_row: False for a model that answers for a batch as a whole: its requests are never joined.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        queue_rows: int,
        by_row: bool,
        counts: VersionCounts,
        ids: Callable[[int], Sequence[str]],
        recorded: Callable[[Sequence[Job], BatchAnswer, Sequence[str], float], None],
        describe: Callable[[Failure], str],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.workers: list[Worker] = []
        self.waiting: deque[Job] = deque()
        self.queued_rows = 0
        self.flying_rows = 0
        self.problem = ""
        self.retries = 0
        self._max_batch, self._queue_rows, self._by_row = max_batch, queue_rows, by_row
        self.counts, self._ids, self._recorded, self._describe = counts, ids, recorded, describe
        self._scheduled = self._sweeping = False
        #: How many rows waited in the last turn of the loop, of those in which a batch grows.
        self._seen_rows = 0
        #: The batches that are with workers.
        self._running: list[list[Job]] = []
        #: How many batches were begun since one was begun while another ran or rows waited.
        self._quiet = 0
        #: What one worker does, lately, while it is at it; 0 until the first batch is back.
        self._rows_per_s = 0.0
        #: What a batch waits beside that, mostly for other fronts' batches; and how many rows a batch has.
        self._apart_s, self._usual_rows = 0.0, 0.0
        #: What all workers take for a row with its share of that.
        self._s_per_row = 0.0
        #: Whether there was more to do than the workers could take when a batch was last begun.
        self._is_behind = False
        #: What the last batch took.
        self._batch_s = 0.0
        #: The rows of the largest batch of late, what it took, and when it was back.
        self._largest = (0, 0.0, 0.0)
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()

    def limit(self, *, max_batch: int, queue_rows: int) -> None:
        """Go by other limits from now on; what waits already is not sent away."""
        self._max_batch, self._queue_rows = max_batch, queue_rows

    # Coming in

    def submit(self, job: Job) -> None:
        """Put rows in the queue.

        Raises:
            Rejected: 503 where the queue is full or so long that the deadline would pass in it, 413 for more rows than
                it ever holds or the model answers before the deadline.
        """
        count = job.rows.count
        if count > self._max_batch:
            self._check_size(job)
        queued = self.queued_rows + count
        # About how long it will wait for its answer. Sooner told than late: what is let in is answered in time, also at
        # three times the capacity. Another front's batch may have just begun, and its next one goes first.
        # Where nothing is ahead it is let in, or what was measured once would shut everybody out for good.
        ahead = self.queued_rows + self.flying_rows
        wait_s = ahead * self._s_per_row + 2 * self._apart_s if ahead else 0.0
        if queued > self._queue_rows or job.start + 1.25 * wait_s > job.deadline:
            raise self._refusal(job, wait_s)
        self.waiting.append(job)
        self.queued_rows = queued
        if not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self.loop.call_soon(self._dispatch)
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(SWEEP_S, self._sweep)

    def _refusal(self, job: Job, wait_s: float) -> Rejected:
        count = job.rows.count
        if count > self._queue_rows:
            return too_many_rows(count, self._queue_rows)
        self._count_error(job)
        if self.queued_rows + count > self._queue_rows:
            return Rejected(FULL, f"The queue is full ({self.queued_rows} rows are waiting).", retry_after_s=1)
        text = f"The queue takes about {1000 * wait_s:.0f} ms, which is longer than the deadline."
        return Rejected(FULL, text, retry_after_s=1)

    def _check_size(self, job: Job) -> None:
        """Refuse what keeps a worker beyond its own deadline, as far as large batches have told. Raises Rejected."""
        count, allowed_s = job.rows.count, job.deadline - job.start
        rows, seconds, at = self._largest
        takes_s = count * seconds / max(rows, 1)
        if takes_s > allowed_s and count <= LIKE * rows and time.monotonic() - at < LARGE_S:
            text = f"The request holds {count} rows, which take about {takes_s:.1f} s; the deadline is {allowed_s:g} s."
            most = max(int(rows * allowed_s / seconds), 1)
            raise Rejected(TOO_LARGE, text, f"Send several of at most {most} rows.")

    async def drain(self) -> None:
        """Wait until nothing waits or runs."""
        await self._idle.wait()

    # Going out

    def wake(self) -> None:
        """Look for work; called when a worker becomes free."""
        if self.waiting and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        free = [worker for worker in self.workers if worker.is_free]
        if free and self._by_row and self._seen_rows < self.queued_rows < self._max_batch:
            # While turns of the loop bring rows, the front is busy taking them in: fewer, fuller batches cost less.
            self._seen_rows = self.queued_rows
            self.loop.call_soon(self._dispatch)
            return
        self._scheduled, self._seen_rows = False, 0
        for place, worker in enumerate(free):
            jobs = self._take(self._share(len(free) - place))
            if not jobs:
                break
            rows = sum([job.rows.count for job in jobs])
            self._quiet = 0 if self._running or self.waiting else self._quiet + 1
            is_alone = len(self.workers) == 1 or self._quiet > QUIET
            self.flying_rows += rows
            self._running.append(jobs)
            self.counts.sent(rows)
            worker.send(jobs, alone=is_alone)
        if free:
            self._is_behind = bool(self.waiting)
        self._settle()

    def _share(self, free: int) -> int:
        """Return how many rows the next of `free` workers may take.

        All that it can hold, for a cheap model. The rows of a heavy one are shared among the free workers; where there
        are many, as many are left for the next that becomes free as each works on, so that nobody idles until clients
        have sent their next ones.
        """
        if self._batch_s < HEAVY_S:
            return self._max_batch
        fair = -(-(self.queued_rows + self.flying_rows) // (len(self.workers) + 1))
        return max(fair, min(-(-self.queued_rows // free), WORTHWHILE))

    def _take(self, share: int) -> list[Job]:
        """Return the oldest waiting job and those that can join it up to `share` rows, oldest first."""
        first = self._next()
        if first is None:
            return []
        jobs = [first]
        if first.alone or not self._by_row:
            return jobs
        layout, shapes, params, rows = first.rows.layout, first.rows.shapes, first.params, first.rows.count
        most = min(share, self._most_rows(first))
        # A batch goes into the prediction log as answered or as a shadow's.
        length, is_shadow = first.length, first.done is None
        shortest, longest = length // 2 if length > SHORT else 0, max(2 * length, SHORT)
        kept: list[Job] = []
        waiting, over = self.waiting, 0
        while waiting and rows < most:
            job = waiting.popleft()
            its = job.rows
            after = rows + its.count
            if job.is_over:
                over += its.count
            elif (
                after <= most and its.layout is layout and (job.length == length or shortest <= job.length <= longest)
                and not job.alone and its.shapes == shapes and job.params == params
                and (job.done is None) is is_shadow
            ):  # fmt: skip
                rows = after
                jobs.append(job)
            else:
                kept.append(job)
        self.queued_rows -= rows - first.rows.count + over  # `_next` has taken the first's off already.
        waiting.extendleft(reversed(kept))
        return jobs

    def _most_rows(self, first: Job) -> int:
        """Return how many rows a batch may have so that its oldest is answered in time."""
        if self._rows_per_s <= 0:
            return self._max_batch
        left_s = first.deadline - time.monotonic() - self._apart_s
        return max(1, min(self._max_batch, int(left_s * self._rows_per_s / 2)))

    def _next(self) -> Job | None:
        while self.waiting:
            job = self.waiting.popleft()
            self.queued_rows -= job.rows.count
            if not job.is_over:
                return job
        return None

    # Coming back

    def answered(self, jobs: list[Job], outputs: Outputs, seconds: float, apart_s: float = 0.0) -> None:
        """Give each job its part of a batch's outputs, for which the worker took `seconds`, and the way `apart_s`."""
        total = self._land(jobs)
        self._learn(total, seconds, apart_s)
        answer = BatchAnswer(outputs, total)
        if self._by_row and any(len(values) != total for _, values in outputs.named):
            if len(jobs) > 1:  # Neighbours are not to blame for one another.
                self._again(jobs)
                return
            given = len(outputs.named[0][1]) if outputs.named else 0
            self._fail(jobs, f"The model gave {given} answers for {total} rows.")
            return
        ids = self._ids(total)
        start = rows = 0
        starts = []
        # What is answered as a whole belongs to its one request, however long it is.
        whole = 0 if self._by_row else max((_length(values) for _, values in outputs.named), default=0)
        for job in jobs:
            end = start + job.rows.count
            if not job.is_over and job.done is not None:
                try:
                    job.done.set_result(Part(answer, start, whole or end, ids[start:end]))
                    starts.append(job.start)
                    rows += end - start
                    job.is_over = True
                except Exception as error:  # noqa: BLE001 - a strange output is its own request's trouble alone
                    job.fail(error)
            start = end
        now = time.monotonic()
        self.counts.answered(starts, rows, now)
        # After the answers, which are on their way by then.
        self.loop.call_soon(self._recorded, jobs, answer, ids, now)
        self.wake()
        self._settle()

    def _learn(self, rows: int, seconds: float, apart_s: float) -> None:
        """Take note of how long a batch took."""
        rate = rows / max(seconds, 1e-6)
        if self._rows_per_s == 0:
            self._rows_per_s, self._apart_s = rate, apart_s
        # A batch that took all that waited says how long few rows take, not how many would have been answered.
        elif rate > self._rows_per_s or self._is_behind:
            self._rows_per_s = _eased(self._rows_per_s, rate)
        if rows > self._usual_rows:
            self._usual_rows = rows
        elif self._is_behind:
            self._usual_rows = _eased(self._usual_rows, rows)
        self._apart_s = _eased(self._apart_s, apart_s)
        self._s_per_row = (1 / self._rows_per_s + self._apart_s / self._usual_rows) / len(self.workers)
        self._batch_s = seconds
        now = time.monotonic()
        largest, _, at = self._largest
        if 2 * rows >= largest or now - at > LARGE_S:
            self._largest = rows, seconds, now

    def failed(self, jobs: list[Job], failure: Failure) -> None:
        """The model raised: neighbours are not to blame for one another, so each row goes again by itself."""
        self._land(jobs)
        if len(jobs) > 1:
            self._again(jobs)
        else:
            self._fail(jobs, self._describe(failure))

    def lost(self, jobs: list[Job], cause: str) -> None:
        """The worker died with these in it: once more each, alone; who was in twice is answered with the cause."""
        self._land(jobs)
        guilty = [job for job in jobs if job.tries]
        self._fail(guilty, cause)
        for job in jobs:
            job.tries += 1
        self._again([job for job in jobs if job not in guilty])

    def _land(self, jobs: list[Job]) -> int:
        total = sum([job.rows.count for job in jobs])
        self.flying_rows -= total
        self._running.remove(jobs)
        return total

    def _again(self, jobs: list[Job]) -> None:
        for job in reversed(jobs):
            if not job.is_over:
                job.alone = True
                self.retries += 1
                self.waiting.appendleft(job)
                self.queued_rows += job.rows.count
        self.wake()
        self._settle()

    def _fail(self, jobs: list[Job], sentence: str) -> None:
        for job in jobs:
            if not job.is_over:
                self._count_error(job)
                job.fail(Rejected(MODEL_FAILED, sentence))
        self.wake()
        self._settle()

    # Time

    def _sweep(self) -> None:
        """Answer what is too late, waiting or running; forget whom nobody waits for; end workers that hang."""
        now = time.monotonic()
        for jobs in (self.waiting, *self._running):
            for job in jobs:
                if job.deadline <= now and not job.is_over:
                    where = "in the queue" if jobs is self.waiting else "in the model"
                    self._count_error(job)
                    job.fail(Rejected(LATE, self._late(where, job)))
        self._forget()
        for worker in self.workers:
            if worker.working_on and self._is_hung(worker, now):
                worker.hung()
        self._settle()
        self._sweeping = bool(self.waiting or self._running)
        if self._sweeping:
            self.loop.call_later(SWEEP_S, self._sweep)

    def _is_hung(self, worker: Worker, now: float) -> bool:
        jobs = worker.working_on
        if jobs[0].deadline + HANG_S >= now:
            return False
        deadline = max(job.deadline for job in jobs)
        # How long another front's batch may take is for that one to say, but it may have ended meanwhile.
        since = min(max(deadline, worker.begun), deadline + PATIENCE_S)
        rows = sum(job.rows.count for job in jobs)
        return since + HANG_S + min(2 * rows / (self._rows_per_s or math.inf), PATIENCE_S) < now

    def _forget(self) -> None:
        """Take out of the queue what is over."""
        if any([job.is_over for job in self.waiting]):
            self.waiting = deque(job for job in self.waiting if not job.is_over)
            self.queued_rows = sum(job.rows.count for job in self.waiting)

    def _late(self, where: str, job: Job) -> str:
        cause = f" {self.problem}" if self.problem else ""
        return (
            f"The deadline of {1000 * (job.deadline - job.start):.0f} ms passed while the request was {where}.{cause}"
        )

    def _count_error(self, job: Job) -> None:
        self.counts.errors += job.done is not None

    def _settle(self) -> None:
        if not (self.waiting or self._running or self._scheduled):
            self._idle.set()


def _length(values: Any) -> int:
    return len(values) if values.ndim else 1


def _eased(known: float, found: float) -> float:
    """Return an average in which the newest counts for a fifth."""
    return 0.8 * known + 0.2 * found
