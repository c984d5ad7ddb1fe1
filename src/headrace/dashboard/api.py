"""The control API: the twin of the command line, over HTTP, for those who hold a token of the rank that is needed."""

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from headrace import wiring
from headrace.config.parse import read_component
from headrace.dashboard import bodies, openapi
from headrace.dashboard.access import Access, Caller, told
from headrace.dashboard.mistakes import refusal
from headrace.dashboard.openapi import Operation
from headrace.dashboard.stream import stream
from headrace.ledger.base import Action
from headrace.lifecycle.control import Control
from headrace.lifecycle.evidence.chains import verify_chains
from headrace.lifecycle.nodes.base import Wish
from headrace.lifecycle.triggers import webhook
from headrace.lifecycle.triggers.book import Book
from headrace.lifecycle.triggers.state import all_states, state_of
from headrace.lifecycle.upkeep import garbage
from headrace.lifecycle.upkeep.tokens import Rank
from headrace.lifecycle.watching.watchbook import windows
from headrace.types import Json

MOST_WEBHOOK_BYTES = 25 * 1024 * 1024  # what GitHub sends at most
#: Who sends a webhook is known only once it is there, so few are read at once, and none for long.
MOST_WEBHOOKS, WEBHOOK_S = 4, 30.0
Body = TypeVar("Body")


async def body_of(request: Request, kind: type[Body]) -> Body:
    """Return the request's body. Raises InvalidInput."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise refusal(error) from error


def query_of(request: Request, kind: type[Body]) -> Body:
    """Return the request's query. Raises InvalidInput."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(error) from error


async def bytes_of(request: Request, most: int) -> bytes | None:
    """Return the request's body; None where it is larger than it may be."""
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > most:
            return None
    return bytes(read)


@dataclass(slots=True)
class Api:
    """The handlers.

    Attributes:
        start_tracking: starts MLflow's pages if they do not run, and returns their URL.
        ended: set when this process ends, so that streams do too.
    """

    control: Control
    access: Access
    start_tracking: Callable[[], str]
    ended: threading.Event = field(default_factory=threading.Event)
    _webhooks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_WEBHOOKS))
    _places: dict[str, Json] = field(default_factory=lambda: {"mlflow": None})

    async def run(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.Run)
        flow = await run_in_threadpool(
            self.control.run, Path(body.folder), actor=caller.named(body.actor), reason=body.reason, key=body.key,
            commit=body.commit, version=body.version,
        )  # fmt: skip
        return JSONResponse({"flow": flow})

    async def promote(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.Promote)
        actor = caller.named(body.actor)
        flow = await run_in_threadpool(
            self.control.promote, body.component, body.version, actor=actor, reason=body.reason, key=body.key
        )
        return JSONResponse({"flow": flow})

    async def approve(self, request: Request, caller: Caller) -> Response:
        return await self._decide(request, caller, Action.APPROVED)

    async def reject(self, request: Request, caller: Caller) -> Response:
        return await self._decide(request, caller, Action.REJECTED)

    async def _decide(self, request: Request, caller: Caller, action: Action) -> Response:
        body = await body_of(request, bodies.Decision)
        decided = await run_in_threadpool(
            self.control.decide, body.component, body.version, actor=caller.named(body.actor), comment=body.comment,
            action=action,
        )  # fmt: skip
        return JSONResponse({"entry": decided.entry.as_json(), "flow": decided.flow})

    async def roll_back(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.RollBack)
        actor = caller.named(body.actor)
        entry = await run_in_threadpool(
            self.control.rollback, body.component, to=body.to, actor=actor, reason=body.reason, key=body.key
        )
        return JSONResponse(entry.as_json())

    async def retire(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.Retire)
        entry = await run_in_threadpool(
            self.control.retire, body.component, body.version, actor=caller.named(body.actor), reason=body.reason
        )
        return JSONResponse(entry.as_json())

    async def collect(self, request: Request, _caller: Caller) -> Response:
        body = await body_of(request, bodies.Collect)
        asked = garbage.Asked(body.component, body.unused_for_s, body.predictions_s, body.dry_run)
        return JSONResponse((await run_in_threadpool(self.control.collect, asked, wiring.ledger)).as_json())

    async def nodes(self, _request: Request, _caller: Caller) -> Response:
        found = await run_in_threadpool(self.control.nodes.all)
        return JSONResponse({"nodes": [node.as_json() for node in found]})

    async def wish(self, request: Request, _caller: Caller) -> Response:
        body = await body_of(request, bodies.NodeWish)
        return JSONResponse((await run_in_threadpool(self.control.nodes.wish, body.node, Wish(body.wish))).as_json())

    async def stop(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.Stop)
        await run_in_threadpool(self.control.stop, body.flow, actor=caller.named(body.actor))
        return JSONResponse({"stopping": body.flow})

    async def events(self, request: Request, _caller: Caller) -> Response:
        asked = query_of(request, bodies.OfFlow)
        found = await run_in_threadpool(self.control.events, asked.flow, after=asked.after)
        return JSONResponse({"events": [event.as_json() for event in found]})

    async def stream(self, request: Request, _caller: Caller) -> Response:
        flow = query_of(request, bodies.OfStream).flow or ""
        if flow:
            await run_in_threadpool(self.control.events, flow)
        check = partial(self.access.caller, request.headers.get("authorization", ""))
        events = stream(request, self.control, flow, self.ended, check)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def windows(self, request: Request, _caller: Caller) -> Response:
        component = query_of(request, bodies.OfComponent).component
        await run_in_threadpool(self.control.history, component, limit=1)  # A name that nobody knows is not found.
        return JSONResponse({"windows": await run_in_threadpool(windows, self.control.rooms, component)})

    async def judge(self, request: Request, _caller: Caller) -> Response:
        component = (await body_of(request, bodies.Judge)).component
        return JSONResponse(await run_in_threadpool(self.control.judge_due, component))

    async def history(self, request: Request, _caller: Caller) -> Response:
        asked = query_of(request, bodies.OfHistory)
        entries = await run_in_threadpool(self.control.history, asked.component, limit=asked.limit)
        return JSONResponse({"component": asked.component, "entries": [entry.as_json() for entry in entries]})

    async def verify_ledger(self, request: Request, _caller: Caller) -> Response:
        asked = query_of(request, bodies.OfChains)
        chains = await run_in_threadpool(verify_chains, self.control.rooms, asked.component or "")
        return JSONResponse({"chains": [chain.as_json() for chain in chains]})

    async def status(self, request: Request, _caller: Caller) -> Response:
        found = await run_in_threadpool(self.control.status)
        return JSONResponse(found | self._places | {"control": str(request.base_url)})

    async def bring_up(self, request: Request, caller: Caller) -> Response:
        # MLflow's pages take as long to start as a model takes to load.
        tracking = asyncio.create_task(run_in_threadpool(self.start_tracking))
        bringing = asyncio.create_task(run_in_threadpool(self.control.bring_up))
        await asyncio.wait([tracking, bringing])
        await bringing
        self._places["mlflow"] = await tracking
        return await self.status(request, caller)

    async def triggers(self, request: Request, _caller: Caller) -> Response:
        component = query_of(request, bodies.OfTriggers).component
        if component is None:
            return JSONResponse({"components": [*await run_in_threadpool(all_states, self.control.rooms)]})
        return JSONResponse(await run_in_threadpool(state_of, self.control.rooms, component))

    async def watch(self, request: Request, _caller: Caller) -> Response:
        folder = Path((await body_of(request, bodies.Watching)).folder)
        component = (await run_in_threadpool(read_component, folder)).component
        await run_in_threadpool(Book(self.control.rooms, component).watch, folder)
        return JSONResponse(await run_in_threadpool(state_of, self.control.rooms, component))

    async def forget(self, request: Request, _caller: Caller) -> Response:
        component = (await body_of(request, bodies.Forget)).component
        await run_in_threadpool(Book(self.control.rooms, component).forget)
        return JSONResponse({"component": component})

    async def create_token(self, request: Request, _caller: Caller) -> Response:
        body = await body_of(request, bodies.NewToken)
        token, secret = await run_in_threadpool(
            self.access.tokens.create, body.name, Rank(body.rank), lives_s=body.lives_s
        )
        return JSONResponse({**token.as_json(), "token": secret})

    async def tokens(self, _request: Request, _caller: Caller) -> Response:
        return JSONResponse({"tokens": [*self.access.tokens.told()]})

    async def revoke(self, request: Request, _caller: Caller) -> Response:
        body = await body_of(request, bodies.Revoke)
        return JSONResponse((await run_in_threadpool(self.access.tokens.revoke, body.name)).as_json())

    async def hook(self, request: Request) -> Response:
        """Take a webhook; its own signature says who sends it."""
        component, headers, rooms = request.path_params["component"], dict(request.headers), self.control.rooms
        length = headers.get("content-length", "")
        if not re.fullmatch("[0-9]{1,12}", length) or int(length) > MOST_WEBHOOK_BYTES:
            return too_large()
        await run_in_threadpool(webhook.expected, rooms, component, headers)
        try:
            async with asyncio.timeout(WEBHOOK_S), self._webhooks:
                body = await bytes_of(request, MOST_WEBHOOK_BYTES)
        except TimeoutError:
            fact = f"The webhook's body was not there within {WEBHOOK_S:.0f} s."
            return JSONResponse({"fact": fact, "remedy": "Send it again."}, 408)
        if body is None:
            return too_large()
        line = await run_in_threadpool(webhook.receive, rooms, component, headers, body)
        return JSONResponse(line.as_json(), status_code=202)


def too_large() -> Response:
    """Return what is told who sends a webhook that is too large, or that does not say how large it is."""
    return JSONResponse({"fact": f"A webhook may have {MOST_WEBHOOK_BYTES} bytes.", "remedy": ""}, 413)


def operations(api: Api) -> list[Operation]:
    """Return all that can be asked, and by whom."""
    viewer, operator, admin = Rank.VIEWER, Rank.OPERATOR, Rank.ADMIN
    return [
        Operation("POST", "/api/run", api.run, operator, "Train, judge and try out a new version", bodies.Run),
        Operation("POST", "/api/promote", api.promote, operator, "Make a version the champion", bodies.Promote),
        Operation("POST", "/api/approve", api.approve, operator, "Let a version that waits go on", bodies.Decision),
        Operation("POST", "/api/reject", api.reject, operator, "Keep a version that waits out", bodies.Decision),
        Operation("POST", "/api/rollback", api.roll_back, operator, "Serve an earlier champion", bodies.RollBack),
        Operation("POST", "/api/retire", api.retire, operator, "Say that a version is not wanted", bodies.Retire),
        Operation("POST", "/api/gc", api.collect, operator, "Remove what nobody needs any more", bodies.Collect),
        Operation("POST", "/api/stop", api.stop, operator, "End a flow", bodies.Stop),
        Operation("POST", "/api/nodes/wish", api.wish, operator, "Drain or restart a worker", bodies.NodeWish),
        Operation("GET", "/api/nodes", api.nodes, viewer, "The workers, and what each does"),
        Operation("POST", "/api/watch", api.judge, operator, "Judge the window that is due", bodies.Judge),
        Operation("POST", "/api/up", api.bring_up, operator, "Make what runs what the ledger says"),
        Operation("POST", "/api/triggers/watch", api.watch, operator, "Watch a folder", bodies.Watching),
        Operation("POST", "/api/triggers/forget", api.forget, operator, "Watch a component no more", bodies.Forget),
        Operation("POST", "/api/tokens", api.create_token, admin, "Make a token", bodies.NewToken),
        Operation("POST", "/api/tokens/revoke", api.revoke, admin, "End a token", bodies.Revoke),
        Operation("GET", "/api/tokens", api.tokens, admin, "All tokens, without their secrets"),
        Operation("GET", "/api/triggers", api.triggers, viewer, "What is watched, and what came of it",
                  query=bodies.OfTriggers),
        Operation("GET", "/api/windows", api.windows, viewer, "What the watch said of each window",
                  query=bodies.OfComponent),
        Operation("GET", "/api/history", api.history, viewer, "A component's ledger", query=bodies.OfHistory),
        Operation("GET", "/api/ledger/verify", api.verify_ledger, viewer, "The chains", query=bodies.OfChains),
        Operation("GET", "/api/events", api.events, viewer, "A flow's steps", query=bodies.OfFlow),
        Operation("GET", "/api/stream", api.stream, viewer, "A flow's steps, or every decision, as they happen",
                  query=bodies.OfStream, media="text/event-stream"),
        Operation("GET", "/api/status", api.status, viewer, "What serves, what runs, and where"),
    ]  # fmt: skip


def application(api: Api) -> Starlette:
    """Return the API with who may what."""
    asked = operations(api)
    described = openapi.document(asked)

    async def describe(_request: Request) -> Response:
        return JSONResponse(described)

    routes = [Route(one.path, api.access.guard(one.rank, one.handler), methods=[one.method]) for one in asked]
    routes += [Route(openapi.PATH, describe), Route(openapi.HOOK, told(api.hook), methods=["POST"])]
    return Starlette(routes=routes)
