"""The control API: the twin of the command line, over HTTP, for those who hold a token of the rank that is needed."""

from collections.abc import Callable
from dataclasses import dataclass, field
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
from headrace.dashboard import bodies
from headrace.dashboard.access import Access, Caller, Handler, told
from headrace.dashboard.stream import stream
from headrace.ledger.base import Action
from headrace.lifecycle import garbage, watch
from headrace.lifecycle.control import Control
from headrace.lifecycle.tokens import Rank
from headrace.lifecycle.triggers import webhook
from headrace.lifecycle.triggers.book import Book
from headrace.lifecycle.triggers.door import Door
from headrace.lifecycle.triggers.state import state_of
from headrace.types import Json

MOST_WEBHOOK_BYTES = 25 * 1024 * 1024  # what GitHub sends at most
Body = TypeVar("Body")


async def body_of(request: Request, kind: type[Body]) -> Body:
    """Return the request's body. Raises msgspec.DecodeError."""
    return msgspec.json.decode(await request.body(), type=kind)


@dataclass(slots=True)
class Api:
    """The handlers.

    Attributes:
        start_tracking: starts MLflow's pages if they do not run, and returns their URL.
    """

    control: Control
    door: Door
    access: Access
    start_tracking: Callable[[], str]
    _places: dict[str, Json] = field(default_factory=lambda: {"mlflow": None})

    async def run(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.Run)
        flow = await run_in_threadpool(
            self.control.run, Path(body.folder), actor=caller.named(body.actor), reason=body.reason, key=body.key,
            commit=body.commit,
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

    async def stop(self, request: Request, caller: Caller) -> Response:
        body = await body_of(request, bodies.Stop)
        await run_in_threadpool(self.control.stop, body.flow, actor=caller.named(body.actor))
        return JSONResponse({"stopping": body.flow})

    async def events(self, request: Request, _caller: Caller) -> Response:
        flow = request.query_params.get("flow", "")
        after = int(request.query_params.get("after", "0"))
        found = await run_in_threadpool(self.control.events, flow, after=after)
        return JSONResponse({"events": [event.as_json() for event in found]})

    async def stream(self, request: Request, _caller: Caller) -> Response:
        flow = request.query_params.get("flow", "")
        if flow:
            await run_in_threadpool(self.control.events, flow)
        return StreamingResponse(
            stream(request, self.control, flow), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    async def windows(self, request: Request, _caller: Caller) -> Response:
        component = request.query_params.get("component", "")
        return JSONResponse({"windows": await run_in_threadpool(watch.windows, self.control.rooms, component)})

    async def status(self, request: Request, _caller: Caller) -> Response:
        found = await run_in_threadpool(self.control.status)
        return JSONResponse(found | self._places | {"control": str(request.base_url)})

    async def bring_up(self, request: Request, caller: Caller) -> Response:
        await run_in_threadpool(self.control.bring_up)
        self._places["mlflow"] = await run_in_threadpool(self.start_tracking)
        return await self.status(request, caller)

    async def triggers(self, request: Request, _caller: Caller) -> Response:
        component = request.query_params.get("component", "")
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
        return JSONResponse({"tokens": [token.as_json() for token in self.access.tokens.all()]})

    async def revoke(self, request: Request, _caller: Caller) -> Response:
        body = await body_of(request, bodies.Revoke)
        return JSONResponse((await run_in_threadpool(self.access.tokens.revoke, body.name)).as_json())

    async def hook(self, request: Request) -> Response:
        """Take a webhook; its own signature says who sends it."""
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MOST_WEBHOOK_BYTES:
            return JSONResponse({"fact": f"A webhook may have {MOST_WEBHOOK_BYTES} bytes.", "remedy": ""}, 413)
        line = await run_in_threadpool(
            webhook.receive, self.control.rooms, self.door, request.path_params["component"], dict(request.headers),
            await request.body(),
        )  # fmt: skip
        return JSONResponse(line.as_json(), status_code=202)


def application(api: Api) -> Starlette:
    """Return the API with who may what."""
    asked: list[tuple[str, str, Handler, Rank]] = [
        ("POST", "/api/run", api.run, Rank.OPERATOR),
        ("POST", "/api/promote", api.promote, Rank.OPERATOR),
        ("POST", "/api/approve", api.approve, Rank.OPERATOR),
        ("POST", "/api/reject", api.reject, Rank.OPERATOR),
        ("POST", "/api/rollback", api.roll_back, Rank.OPERATOR),
        ("POST", "/api/retire", api.retire, Rank.OPERATOR),
        ("POST", "/api/gc", api.collect, Rank.OPERATOR),
        ("POST", "/api/stop", api.stop, Rank.OPERATOR),
        ("POST", "/api/up", api.bring_up, Rank.OPERATOR),
        ("POST", "/api/triggers/watch", api.watch, Rank.OPERATOR),
        ("POST", "/api/triggers/forget", api.forget, Rank.OPERATOR),
        ("POST", "/api/tokens", api.create_token, Rank.ADMIN),
        ("POST", "/api/tokens/revoke", api.revoke, Rank.ADMIN),
        ("GET", "/api/tokens", api.tokens, Rank.ADMIN),
        ("GET", "/api/triggers", api.triggers, Rank.VIEWER),
        ("GET", "/api/events", api.events, Rank.VIEWER),
        ("GET", "/api/stream", api.stream, Rank.VIEWER),
        ("GET", "/api/windows", api.windows, Rank.VIEWER),
        ("GET", "/api/status", api.status, Rank.VIEWER),
    ]
    routes = [Route(path, api.access.guard(rank, handler), methods=[method]) for method, path, handler, rank in asked]
    return Starlette(routes=[*routes, Route("/hooks/{component}", told(api.hook), methods=["POST"])])
