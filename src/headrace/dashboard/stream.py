"""Server-sent events: a flow's steps as they happen, or every new decision of the ledger."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from headrace.ledger.base import Entry
from headrace.lifecycle.control import Control
from headrace.lifecycle.events import Mark
from headrace.types import Json

POLL_S = 0.3
#: Proxies close what is silent for long.
QUIET_S = 15.0


async def stream(request: Request, control: Control, flow: str) -> AsyncIterator[str]:
    """Yield events until the client leaves, or until the flow ends where one is named."""
    source = _steps(control, flow) if flow else _decisions(control)
    async for text in source:
        if await request.is_disconnected():
            return
        yield text


async def _steps(control: Control, flow: str) -> AsyncIterator[str]:
    seen, quiet_s = 0, 0.0
    while True:
        events = await run_in_threadpool(control.events, flow, after=seen)
        for number, event in enumerate(events, seen + 1):
            yield message("step", number, event.as_json())
            if event.mark is Mark.ENDED:
                return
        seen += len(events)
        quiet_s = 0.0 if events else quiet_s + POLL_S
        if quiet_s >= QUIET_S:
            yield ": still here\n\n"
            quiet_s = 0.0
        await asyncio.sleep(POLL_S)


async def _decisions(control: Control) -> AsyncIterator[str]:
    seen = await run_in_threadpool(_heads, control)
    quiet_s = 0.0
    yield ": listening\n\n"
    while True:
        await asyncio.sleep(POLL_S)
        entries = await run_in_threadpool(_new, control, seen)
        for entry in entries:
            seen[entry.component] = entry.sequence
            yield message("decision", f"{entry.component}/{entry.sequence}", entry.as_json())
        quiet_s = 0.0 if entries else quiet_s + POLL_S
        if quiet_s >= QUIET_S:
            yield ": still here\n\n"
            quiet_s = 0.0


def message(kind: str, number: object, document: Json) -> str:
    """Return one event as it goes over the wire."""
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(document)}\n\n"


def _heads(control: Control) -> dict[str, int]:
    ledger = control.rooms.ledger
    return {name: entry.sequence for name in ledger.components() for entry in ledger.history(name, limit=1)}


def _new(control: Control, seen: dict[str, int]) -> Sequence[Entry]:
    found: list[Entry] = []
    for name, newest in _heads(control).items():
        missing = newest - seen.get(name, 0)
        if missing > 0:
            found += reversed(control.rooms.ledger.history(name, limit=missing))
    return found
