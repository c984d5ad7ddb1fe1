"""What a front answers: every path of every protocol, down to the version that predicts."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import HeadraceError, InvalidInput
from headrace.serving.answer import scored
from headrace.serving.batch import Asker, Job, Part
from headrace.serving.control import Plan
from headrace.serving.exchange import Exchange
from headrace.serving.generation import Generation, Served, copy_to_shadows
from headrace.serving.invocation import SHORT_BYTES, invoke
from headrace.serving.keys import check_key
from headrace.serving.metrics import Counts, prometheus
from headrace.serving.plain import read_csv
from headrace.serving.protocols import handle_openapi, handle_torchserve, handle_v2
from headrace.serving.recorder import Recorder
from headrace.serving.rejection import BAD_REQUEST, FULL, GONE, MEDIA_TYPE, MODEL_FAILED, NOT_FOUND, UNFIT, Rejected
from headrace.serving.scoring import Asked, decode_json
from headrace.types import Actual, Json

log = logging.getLogger(__name__)
SCORED_TYPES = ("application/json", "text/csv", "")
MAX_FEEDBACK = 10_000
#: The header by which headrace's own requests are told from clients'.
PROBE = "x-headrace-probe"


class OneActual(msgspec.Struct, forbid_unknown_fields=True):
    """The truth about one prediction."""

    prediction_id: str
    actual: bool | int | float | str | list[Any] | dict[str, Any]


class Actuals(msgspec.Struct, forbid_unknown_fields=True):
    """Several truths, or one in short form."""

    prediction_id: str | msgspec.UnsetType = msgspec.UNSET
    actual: bool | int | float | str | list[Any] | dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    actuals: list[OneActual] | msgspec.UnsetType = msgspec.UNSET


decode_actuals = msgspec.json.Decoder(Actuals).decode


class App:
    """The application of one front.

    Attributes:
        generation: what serves; None before the first commit.
        prepared: what will serve, reachable by probes only.
        page: asks the supervisor for the whole endpoint's metrics.
    """

    def __init__(self, recorder: Recorder, counts: Counts, page: Callable[[], Awaitable[Any]]) -> None:
        self.generation: Generation | None = None
        self.prepared: Generation | None = None
        self.recorder = recorder
        self.counts = counts
        self._tasks: set[asyncio.Task[None]] = set()
        self._page = page
        self._paths: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            "/ping": self._ping,
            "/health": self._ping,
            "/version": self._version,
            "/metrics": self._metrics,
            "/feedback": self._feedback,
            "/openapi.json": partial(handle_openapi, self),
            "/api-description": partial(handle_openapi, self),
            "/v2": partial(handle_v2, self),
        }

    def take(self, exchange: Exchange) -> None:
        """Begin on a request. Most need no task; the others get one."""
        try:
            if exchange.problem is not None:
                raise exchange.problem
            if exchange.path == "/invocations":
                self._invocations(exchange)
            else:
                handler = self._paths.get(exchange.path) or self._below(exchange)
                self._go(self._handle(exchange, handler(exchange)))
        except Exception as error:  # noqa: BLE001 - the request's boundary: it is answered, the front goes on
            self.refuse(exchange, error)

    async def _handle(self, exchange: Exchange, answering: Awaitable[None]) -> None:
        try:
            await answering
        except Exception as error:  # noqa: BLE001 - the request's boundary, as above
            self.refuse(exchange, error)

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer with what went wrong; what is none of the client's doing is logged."""
        if not isinstance(error, Rejected):
            log.error("%s %s", exchange.method, exchange.path[:100], exc_info=error)
            self.counts.failed(MODEL_FAILED, "front")
            error = Rejected(MODEL_FAILED, "The server failed on this request; its log says why.")
        elif error.status == GONE:
            self.counts.cancelled += 1
        else:
            self.counts.failed(error.status)
        exchange.reject(error)

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _below(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[None]]:
        if exchange.path.startswith("/v2/"):
            return partial(handle_v2, self)
        if exchange.path.startswith("/predictions/"):
            return partial(handle_torchserve, self)
        if exchange.method == "OPTIONS":
            return partial(handle_openapi, self)
        raise Rejected(NOT_FOUND, "There is nothing here.", "See /openapi.json for what there is.")

    def admit(self, exchange: Exchange) -> None:
        """Check the key for predicting. Raises Rejected."""
        self._check_key(exchange, self._opened().plan)

    def _check_key(self, exchange: Exchange, plan: Plan) -> None:
        if plan.predict_keys and not self._is_probe(exchange):
            check_key(plan.predict_keys, exchange.header("authorization"), "predicting")

    # Predicting

    async def predict(self, exchange: Exchange, generation: Generation, served: Served, asked: Asked) -> Part:
        """Have rows answered. Raises Rejected."""
        done: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        self.submit(exchange, generation, served, asked, done)
        return await done

    def submit(self, exchange: Exchange, generation: Generation, served: Served, asked: Asked, done: Asker) -> None:
        """Put rows into the queue of the version that answers, copies into those of its shadows. Raises Rejected."""
        is_kept = generation is self.generation and not (PROBE in exchange.headers and self._is_probe(exchange))
        start, rows = exchange.start, asked.rows
        length = asked.length if rows.layout.texts else 0
        job = Job(rows, asked.params, done, start, start + generation.deadline_s, length, is_kept)
        served.pool.submit(job)
        exchange.leave = job.leave
        if generation.plan.shadow and is_kept:
            copy_to_shadows(generation, job, served)

    def find(self, exchange: Exchange) -> tuple[Generation, Served]:
        """Return who answers: a pinned version, one that a probe asks for, or the route's choice. Raises Rejected."""
        generation = self.generation
        pinned = exchange.headers.get("x-headrace-version")
        if pinned is not None and self.prepared is not None and self._is_probe(exchange):
            generation = self.prepared
        if generation is None:
            raise Rejected(FULL, "No version serves here yet.", retry_after_s=1)
        if pinned is not None:
            return generation, generation.pinned(pinned)
        if generation.only is not None:
            return generation, generation.only
        return generation, generation.choose(exchange.headers.get("x-headrace-key"))

    def body(self, exchange: Exchange) -> Awaitable[bytes]:
        """Return what gives a request's body. Raises Rejected, also when it is awaited.

        Read it before `find`: it may take long to come, and a version that was chosen before may have left by then.
        """
        return exchange.body(self._opened().plan.serve.max_body_bytes)

    def _opened(self) -> Generation:
        """Return the generation whose keys and limits hold before one is chosen. Raises Rejected."""
        generation = self.generation or self.prepared
        if generation is None:
            raise Rejected(FULL, "No version serves here yet.", retry_after_s=1)
        return generation

    def _is_probe(self, exchange: Exchange) -> bool:
        token = exchange.headers.get(PROBE)
        if token is None:
            return False
        return any(g is not None and g.plan.probe and g.plan.probe == token for g in (self.prepared, self.generation))

    def _invocations(self, exchange: Exchange) -> None:
        """Check what there is to check before a body is read, then begin to read it. Raises Rejected."""
        plan = (self.generation or self._opened()).plan
        if exchange.method != "POST":
            exchange.needs("POST")
        if plan.predict_keys:
            self._check_key(exchange, plan)
        kind = exchange.headers.get("content-type", "")
        is_csv = kind != "application/json" and _is_csv(kind)
        length = exchange.check_body(plan.serve.max_body_bytes)
        if length is not None and length <= SHORT_BYTES:
            if exchange.is_whole:
                invoke(self, exchange, is_csv=is_csv)
            else:
                exchange.when_more(partial(invoke, self, exchange, is_csv=is_csv))
        else:
            self._go(self._handle(exchange, self._invoke_long(exchange, is_csv=is_csv)))

    async def _invoke_long(self, exchange: Exchange, *, is_csv: bool) -> None:
        body = await self.body(exchange)
        generation, served = self.find(exchange)
        asked = read_csv(served, body, generation.plan.serve.queue) if is_csv else served.scoring.read(body)
        part = await self.predict(exchange, generation, served, asked)
        exchange.answer(200, served.headers(part.ids), scored(part))

    # About the endpoint

    async def _ping(self, exchange: Exchange) -> None:
        generation = self.generation
        if generation is None:
            raise Rejected(FULL, "No version serves here yet.", retry_after_s=1)
        if not generation.is_ready:
            down = [str(version) for version, _ in generation.shares.bounds if not generation.served[version].is_ready]
            raise Rejected(FULL, f"Version {', '.join(down)} has no worker at the moment.", retry_after_s=1)
        exchange.json({"status": "Healthy"})

    async def _version(self, exchange: Exchange) -> None:
        generation = self.generation
        if generation is None:
            raise Rejected(FULL, "No version serves here yet.", retry_after_s=1)
        plan = generation.plan
        exchange.json(
            {
                "component": plan.component,
                "stage": plan.stage,
                "generation": plan.generation,
                "shares": {str(version): share for version, share in plan.shares.items() if share > 0},
                "warm": sorted(generation.served),
                "shadow": list(plan.shadow),
                "baselines": {str(version.version): version.baseline for version in plan.versions},
            }
        )

    async def _metrics(self, exchange: Exchange) -> None:
        page = await self._page()
        component = self.generation.plan.component if self.generation else ""
        text = prometheus(component, page.counts, page.gauges)
        exchange.text(text, "text/plain; version=0.0.4; charset=utf-8")

    # Actuals

    async def _feedback(self, exchange: Exchange) -> None:
        exchange.needs("POST")
        generation = self.generation
        if generation is None or not generation.plan.log:
            raise Rejected(NOT_FOUND, "This endpoint keeps no predictions, so it takes no feedback.")
        check_key(generation.plan.feedback_keys, exchange.header("authorization"), "feedback")
        body = await exchange.body(generation.plan.serve.max_body_bytes)
        actuals = read_actuals(body)
        folder = Path(generation.plan.log) / generation.plan.component
        try:
            await asyncio.get_running_loop().run_in_executor(None, _keep, folder, actuals)
        except InvalidInput as error:  # It will never fit, however often it is sent.
            raise Rejected(UNFIT, error.fact, error.remedy) from error
        except HeadraceError as error:
            raise Rejected(FULL, error.fact, error.remedy, retry_after_s=5) from error
        self.counts.feedback += len(actuals)
        exchange.json({"accepted": len(actuals)}, 202)


def _is_csv(kind: str) -> bool:
    """Tell whether a content type is CSV's rather than JSON's. Raises Rejected."""
    bare = kind.partition(";")[0].strip().lower()
    if bare not in SCORED_TYPES:
        raise Rejected(MEDIA_TYPE, "The content type is not read here.", "Send application/json or text/csv.")
    return bare == "text/csv"


def read_actuals(body: bytes) -> list[Actual]:
    """Return the truths of a feedback document. Raises Rejected."""
    document = decode_json(decode_actuals, body)
    now = datetime.now(UTC)
    if document.actuals is msgspec.UNSET:
        if document.prediction_id is msgspec.UNSET or document.actual is msgspec.UNSET:
            raise Rejected(UNFIT, "The body needs `prediction_id` and `actual`, or a list of them in `actuals`.")
        return [_actual(document.prediction_id, document.actual, now)]
    if not document.actuals or len(document.actuals) > MAX_FEEDBACK:
        raise Rejected(UNFIT, f"`$.actuals` holds {len(document.actuals)} items; it needs 1 to {MAX_FEEDBACK}.")
    return [_actual(one.prediction_id, one.actual, now) for one in document.actuals]


def _actual(prediction_id: str, value: Json, now: datetime) -> Actual:
    try:
        if uuid.UUID(prediction_id).version != 7:
            raise ValueError
    except ValueError as cause:
        raise Rejected(BAD_REQUEST, "A `prediction_id` is not one that this endpoint gives out.") from cause
    return Actual(prediction_id, value, now)


def _keep(folder: Path, actuals: list[Actual]) -> None:
    from headrace.predictions.actuals import append  # Brings pyarrow along: only where feedback is used.

    append(folder, actuals)
