"""Server-sent events: a flow's steps as they happen, or every new decision of the ledger."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from headrace.ledger.base import Entry
from headrace.lifecycle.control import Control
from headrace.lifecycle.events import Mark
from headrace.lifecycle.upkeep.tokens import Unauthorized
from headrace.types import Json

POLL_S = 0.3
#: Proxies close what is silent for long.
QUIET_S = 15.0
#: Numbers that a client says it heard; none of ours is longer.
MOST_DIGITS = 18


async def stream(
    request: Request, control: Control, flow: str, ended: threading.Event, check: Callable[[], object]
) -> AsyncIterator[str]:
    """Yield events until the client leaves, until the flow ends where one is named, or until this process does.

    Who comes again and says with `Last-Event-ID` what it heard last gets what came since.

    Args:
        check: asked before each event is told; raises Unauthorized where the client may not hear it any more.
    """
    heard = request.headers.get("last-event-id", "")
    source = _steps(control, flow, ended, heard) if flow else _decisions(control, ended, heard)
    async for text in source:
        if await request.is_disconnected():
            return
        try:
            await run_in_threadpool(check)
        except Unauthorized:
            return
        yield text


async def _steps(control: Control, flow: str, ended: threading.Event, heard: str = "") -> AsyncIterator[str]:
    after = _number(heard)
    # The last one that was heard is looked at again: it may have been the end.
    seen, quiet_s = max(0, after - 1), 0.0
    while not ended.is_set():
        events = await run_in_threadpool(control.events, flow, after=seen)
        for number, event in enumerate(events, seen + 1):
            if number > after:
                yield message("step", number, event.as_json())
            if event.mark is Mark.ENDED:
                return
        seen += len(events)
        quiet_s = 0.0 if events else quiet_s + POLL_S
        if quiet_s >= QUIET_S:
            yield ": still here\n\n"
            quiet_s = 0.0
        await asyncio.sleep(POLL_S)


async def _decisions(control: Control, ended: threading.Event, heard: str = "") -> AsyncIterator[str]:
    seen = _heads_in(heard) if heard else await run_in_threadpool(_heads, control)
    quiet_s = 0.0
    yield ": listening\n\n"
    while not ended.is_set():
        await asyncio.sleep(POLL_S)
        entries = await run_in_threadpool(_new, control, seen)
        for entry in entries:
            seen[entry.component] = entry.sequence
            yield message("decision", _told(seen), entry.as_json())
        quiet_s = 0.0 if entries else quiet_s + POLL_S
        if quiet_s >= QUIET_S:
            yield ": still here\n\n"
            quiet_s = 0.0


def message(kind: str, number: object, document: Json) -> str:
    """Return one event as it goes over the wire."""
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(document)}\n\n"


def _told(heads: Mapping[str, int]) -> str:
    """Return how far each component was heard, as the id of an event; one alone cannot say it."""
    return ",".join(f"{name}/{sequence}" for name, sequence in sorted(heads.items()))


def _heads_in(heard: str) -> dict[str, int]:
    parts = [part.rpartition("/") for part in heard.split(",")]
    return {name: _number(sequence) for name, _, sequence in parts if name}


def _number(text: str) -> int:
    """Return what a client says it heard; 0, and so all of it, where that is no number of ours."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else 0


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
