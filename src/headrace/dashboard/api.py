"""The control API: the twin of the command line, over HTTP on loopback, for those who hold the installation's token."""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headrace.errors import HeadraceError
from headrace.lifecycle import watch
from headrace.lifecycle.control import Control
from headrace.types import Json

Handler = Callable[[Request], Awaitable[Response]]


class Run(msgspec.Struct, forbid_unknown_fields=True):
    """Train and judge a new version."""

    folder: str
    actor: str
    reason: str
    key: str
    commit: str = ""


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """Make a version the champion."""

    component: str
    version: int
    actor: str
    reason: str
    key: str


class RollBack(msgspec.Struct, forbid_unknown_fields=True):
    """Serve an earlier champion again."""

    component: str
    actor: str
    reason: str
    key: str
    to: int | None = None


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """End a flow."""

    flow: str
    actor: str


def application(control: Control, token: str, start_tracking: Callable[[], str]) -> Starlette:
    """Return the API over a control side.

    Args:
        start_tracking: starts MLflow's pages if they do not run, and returns their URL.
    """
    places: dict[str, Json] = {"mlflow": None}

    async def run(request: Request) -> Response:
        body = msgspec.json.decode(await request.body(), type=Run)
        flow = await run_in_threadpool(
            control.run, Path(body.folder), actor=body.actor, reason=body.reason, key=body.key, commit=body.commit
        )
        return JSONResponse({"flow": flow})

    async def promote(request: Request) -> Response:
        body = msgspec.json.decode(await request.body(), type=Promote)
        flow = await run_in_threadpool(
            control.promote, body.component, body.version, actor=body.actor, reason=body.reason, key=body.key
        )
        return JSONResponse({"flow": flow})

    async def roll_back(request: Request) -> Response:
        body = msgspec.json.decode(await request.body(), type=RollBack)
        entry = await run_in_threadpool(
            control.rollback, body.component, to=body.to, actor=body.actor, reason=body.reason, key=body.key
        )
        return JSONResponse(entry.as_json())

    async def stop(request: Request) -> Response:
        body = msgspec.json.decode(await request.body(), type=Stop)
        await run_in_threadpool(control.stop, body.flow, actor=body.actor)
        return JSONResponse({"stopping": body.flow})

    async def events(request: Request) -> Response:
        flow = request.query_params.get("flow", "")
        after = int(request.query_params.get("after", "0"))
        found = await run_in_threadpool(control.events, flow, after=after)
        return JSONResponse({"events": [event.as_json() for event in found]})

    async def windows(request: Request) -> Response:
        component = request.query_params.get("component", "")
        return JSONResponse({"windows": await run_in_threadpool(watch.windows, control.rooms, component)})

    async def status(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(control.status) | places | {"control": str(request.base_url)})

    async def bring_up(request: Request) -> Response:
        await run_in_threadpool(control.bring_up)
        places["mlflow"] = await run_in_threadpool(start_tracking)
        return JSONResponse(await run_in_threadpool(control.status) | places | {"control": str(request.base_url)})

    routes = [
        Route("/api/run", guarded(run, token), methods=["POST"]),
        Route("/api/promote", guarded(promote, token), methods=["POST"]),
        Route("/api/rollback", guarded(roll_back, token), methods=["POST"]),
        Route("/api/stop", guarded(stop, token), methods=["POST"]),
        Route("/api/up", guarded(bring_up, token), methods=["POST"]),
        Route("/api/events", guarded(events, token)),
        Route("/api/windows", guarded(windows, token)),
        Route("/api/status", guarded(status, token)),
    ]
    return Starlette(routes=routes)


def guarded(handler: Handler, token: str) -> Handler:
    """Return the handler behind the token, with errors told as fact and remedy."""

    async def answer(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"fact": "The token is missing or wrong.", "remedy": ""}, status_code=401)
        try:
            return await handler(request)
        except HeadraceError as error:
            body = {"fact": error.fact, "remedy": error.remedy, "exit_code": error.exit_code}
            return JSONResponse(body, status_code=error.http_status)
        except (msgspec.DecodeError, ValueError) as error:
            return JSONResponse({"fact": str(error), "remedy": "", "exit_code": 2}, status_code=400)

    return answer
