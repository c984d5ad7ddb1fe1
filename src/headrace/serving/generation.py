"""One prepared generation of a route inside a front: decoders, queues and links of every version, and the choice."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving import crash
from headrace.serving.batch import BatchAnswer, Job, Pool
from headrace.serving.control import Plan, VersionPlan
from headrace.serving.exchange import JSON
from headrace.serving.frames import Failure
from headrace.serving.link import Link
from headrace.serving.metrics import Counts
from headrace.serving.recorder import Keeping, Recorder
from headrace.serving.rejection import NOT_FOUND, Rejected
from headrace.serving.route import Shares, compile_shares, point_of
from headrace.serving.scoring import AnyScoring, TableScoring, TensorScoring, scoring_of
from headrace.types import ServedVersion, Signature

CONNECT_S = 30.0
#: Ids of more rows go without the header: aiohttp and proxies refuse lines of more than 8 KB.
LISTED_IDS = 100


@dataclass(slots=True, eq=False)
class Served:
    """One loaded version, as the front sees it.

    Attributes:
        keeping: what of its rows is logged, as the last generation that serves it has it.
        version_line: the header line with its number.
    """

    plan: VersionPlan
    signature: Signature | None
    scoring: TableScoring | TensorScoring | AnyScoring
    pool: Pool
    links: list[Link]
    keeping: Keeping
    version_line: str
    #: What protocols compile from the signature when they are first used.
    codecs: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return self.plan.version

    @property
    def is_ready(self) -> bool:
        return any(link.connected.is_set() for link in self.links)

    def headers(self, ids: Sequence[str], kind: str = JSON) -> str:
        """Return the header lines of an answer whose rows have these ids; `kind` says what the body is."""
        if len(ids) == 1:  # As in most requests.
            return f"{kind}{self.version_line}x-headrace-prediction-id: {ids[0]}\r\n"
        if len(ids) > LISTED_IDS:
            return f"{kind}{self.version_line}"
        return f"{kind}{self.version_line}x-headrace-prediction-id: {','.join(ids)}\r\n"

    def close(self) -> None:
        for link in self.links:
            link.close()


@dataclass(slots=True)
class Generation:
    """A plan that this front can serve.

    Attributes:
        only: the version that gets everything; None where traffic is split.
    """

    plan: Plan
    served: dict[int, Served]
    shares: Shares
    deadline_s: float
    only: Served | None = field(init=False)

    def __post_init__(self) -> None:
        self.only = None if self.shares.only is None else self.served[self.shares.only]

    def take_over(self) -> None:
        """Have its versions go by its limits, those too that an older generation loaded; called when it is committed.

        Versions that leave keep theirs: what they still answer is not logged more freely than it was asked.
        """
        serve, keeping = self.plan.serve, _keeping(self.plan)
        for served in self.served.values():
            served.keeping, served.scoring.most_rows = keeping, serve.queue
            served.pool.limit(max_batch=serve.max_batch, queue_rows=serve.queue)

    def choose(self, key: str | None) -> Served:
        """Return the version that answers where traffic is split: by the key where there is one, else by chance."""
        point = random.random() if key is None else point_of(key, self.plan.component)  # noqa: S311 - traffic split
        return self.served[self.shares.choose(point)]

    def pinned(self, version: str) -> Served:
        """Return a warm version by its number. Raises Rejected."""
        found = self.served.get(int(version)) if is_number(version) else None
        if found is None:
            warm = ", ".join(map(str, sorted(self.served)))
            raise Rejected(NOT_FOUND, f"`{self.plan.component}` has no such version loaded (loaded: {warm}).")
        return found

    @property
    def is_ready(self) -> bool:
        """True where every version with a share has a worker."""
        return all(self.served[version].is_ready for version, _ in self.shares.bounds)


async def prepare(
    plan: Plan, old: dict[int, Served], recorder: Recorder, counts: Counts, stuck: Callable[[int, str], None]
) -> Generation:
    """Return a plan made ready: compiled, and connected to a worker of every version.

    Versions that `old` has with the same workers are taken over, queue and all. `stuck` is told of workers that hang.

    Raises:
        HeadraceError: a model folder cannot be read, the shares are wrong, or no worker lets us in.
    """
    if plan.serve.log_sample > 0:
        recorder.open()
    shares = compile_shares(plan.shares, [version.version for version in plan.versions])
    served = {}
    fresh = []
    for version in plan.versions:
        known = old.get(version.version)
        if known is None or known.plan != version:
            known = _serve(version, plan, recorder, counts, stuck)
            fresh.append(known)
        served[version.version] = known
    try:
        for one in fresh:
            waits = [asyncio.ensure_future(link.connected.wait()) for link in one.links]
            done, pending = await asyncio.wait(waits, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
            for wait in pending:
                wait.cancel()
            if not done:
                raise HeadraceError(f"No worker of version {one.version} answered within {CONNECT_S:g} s.")
    except HeadraceError:
        for one in fresh:
            one.close()
        raise
    return Generation(plan, served, shares, plan.serve.deadline_ms / 1000)


def _serve(
    version: VersionPlan, plan: Plan, recorder: Recorder, counts: Counts, stuck: Callable[[int, str], None]
) -> Served:
    model = read_mlmodel(Path(version.model))
    number = version.version
    subject = ServedVersion(plan.component, number, Path(version.model), Path())

    def recorded(jobs: Sequence[Job], answer: BatchAnswer, ids: Sequence[str], now: float) -> None:
        is_shadow = jobs[0].done is None
        if is_shadow:
            counts.of(number).shadow_rows += answer.rows
        recorder.record(number, jobs, answer, ids, now, keeping=served.keeping, shadow=is_shadow)

    def describe(failure: Failure) -> str:
        # The model's own message may hold the client's data; its log has it.
        return f"{plan.component} version {number} failed on this request: {crash.of_failure(failure, subject).cause}."

    pool = Pool(
        max_batch=plan.serve.max_batch,
        queue_rows=plan.serve.queue,
        by_row=version.by_row,
        counts=counts.of(number),
        ids=recorder.ids,
        recorded=recorded,
        describe=describe,
    )
    links = [Link(pool, address, partial(stuck, number)) for address in version.addresses]
    pool.workers = list(links)
    scoring, version_line = scoring_of(model.signature), f"x-headrace-version: {number}\r\n"
    scoring.most_rows = plan.serve.queue
    served = Served(version, model.signature, scoring, pool, links, _keeping(plan), version_line)
    return served


def is_number(text: str) -> bool:
    """Tell whether a header or a path holds a number: digits of ASCII, and no more than `int` reads."""
    return len(text) < 20 and text.isascii() and text.isdigit()


def _keeping(plan: Plan) -> Keeping:
    return Keeping(plan.serve.log_sample, frozenset(plan.serve.redact))


def copy_to_shadows(generation: Generation, job: Job, chosen: Served) -> None:
    """Put a copy of a request in the queues of the shadows; a full one is passed over, and nobody waits for it."""
    if random.random() >= generation.plan.shadow_share:  # noqa: S311 - a sample
        return
    for version in generation.plan.shadow:
        if version != chosen.version and version in generation.served:
            copy = Job(job.rows, job.params, None, job.start, job.deadline, job.length, job.kept)
            with contextlib.suppress(Rejected):
                generation.served[version].pool.submit(copy)
