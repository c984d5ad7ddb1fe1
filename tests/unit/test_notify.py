"""Decisions go out signed and in order, are sent again until they are taken, and stream to those who listen."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from headrace.clock import ManualClock
from headrace.config.settings import Settings
from headrace.dashboard import stream
from headrace.deploy.memory import MemoryTarget
from headrace.ledger.base import Action, Draft
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.events import Journal, Mark, read_events
from headrace.lifecycle.production.notify import Notifier, notifier, signature
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.upkeep.tokens import Unauthorized
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor


def rooms_in(folder: Path, **variables: str) -> Rooms:
    clock = ManualClock()
    settings = Settings(folder / "state", folder / "home", variables=variables).prepare()
    none: Any = None
    return Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), none, MemoryLog())


def decide(rooms: Rooms, number: int) -> None:
    rooms.ledger.append(Draft("digits", Action.GATED, Actor("gate"), "good", f"g{number}", version=number))


def sending(rooms: Rooms, answer: Callable[[httpx.Request], httpx.Response]) -> Notifier:
    return Notifier(rooms, "http://receiver/", "secret", httpx.Client(transport=httpx.MockTransport(answer)))


def test_decisions_go_out_once_they_are_taken_and_in_order(tmp_path: Path) -> None:
    rooms, got, is_well = rooms_in(tmp_path), list[httpx.Request](), False

    def answer(request: httpx.Request) -> httpx.Response:
        got.append(request)
        return httpx.Response(200 if is_well else 503)

    decide(rooms, 1)
    sender = sending(rooms, answer)
    assert sender.send() == "", "what was decided before is not sent"
    decide(rooms, 2)
    decide(rooms, 3)
    assert "503" in sender.send()
    sender.send()
    assert len(got) == 1, "it waits before it tries again"
    is_well = True
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(2)
    assert sender.send() == ""
    assert [request.headers["x-headrace-delivery"] for request in got] == ["digits/2", "digits/2", "digits/3"]
    assert got[-1].headers["x-headrace-signature-256"] == signature("secret", got[-1].content)
    assert json.loads(got[-1].content)["entry"]["version"] == 3
    sending(rooms, answer).send()
    assert len(got) == 3, "a new process knows how far it came"


def test_nothing_is_sent_without_an_address_and_a_secret(tmp_path: Path) -> None:
    assert notifier(rooms_in(tmp_path, HEADRACE_WEBHOOK_URL="http://receiver/")) is None
    both = {"HEADRACE_WEBHOOK_URL": "http://receiver/", "HEADRACE_WEBHOOK_SECRET": "s"}
    assert notifier(rooms_in(tmp_path, **both)) is not None


def test_a_listener_hears_new_decisions_and_no_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.0)
    rooms = rooms_in(tmp_path)
    decide(rooms, 1)

    async def listen() -> list[str]:
        control: Any = SimpleNamespace(rooms=rooms)
        source = stream._decisions(control, threading.Event())
        heard = [await anext(source)]
        decide(rooms, 2)
        decide(rooms, 3)
        return [*heard, await anext(source), await anext(source)]

    listening, *heard = asyncio.run(listen())
    assert listening.startswith(":")
    assert [json.loads(text.split("data: ")[1])["version"] for text in heard] == [2, 3]


def test_a_flows_stream_ends_with_the_flow(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path)
    journal: Journal = rooms.journal("f")
    journal.write("train", Mark.STARTED, "…")
    journal.write("flow", Mark.ENDED, "done")
    control: Any = SimpleNamespace(events=lambda flow, after: read_events(rooms.folder(flow), after=after))

    async def listen() -> list[str]:
        return [text async for text in stream._steps(control, "f", threading.Event())]

    assert len(asyncio.run(listen())) == 2


def test_who_comes_again_hears_what_came_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.0)
    rooms = rooms_in(tmp_path)
    decide(rooms, 1)
    control: Any = SimpleNamespace(rooms=rooms, events=lambda flow, after: read_events(rooms.folder(flow), after=after))

    async def first(source: Any, count: int) -> list[str]:
        return [await anext(source) for _ in range(count)]

    async def all_of(source: Any) -> list[str]:
        return [text async for text in source]

    decide(rooms, 2)
    source = stream._decisions(control, threading.Event(), "digits/1")
    _, again = asyncio.run(first(source, 2))
    assert (json.loads(again.split("data: ")[1])["version"], "id: digits/2\n" in again) == (2, True)

    journal: Journal = rooms.journal("f")
    journal.write("train", Mark.STARTED, "…")
    journal.write("flow", Mark.ENDED, "done")
    (step,) = asyncio.run(all_of(stream._steps(control, "f", threading.Event(), "1")))
    assert "id: 2\n" in step
    assert asyncio.run(all_of(stream._steps(control, "f", threading.Event(), "2"))) == [], "it has ended"


def test_streams_end_with_their_process(tmp_path: Path) -> None:
    rooms, ended = rooms_in(tmp_path), threading.Event()
    control: Any = SimpleNamespace(rooms=rooms, events=lambda flow, after: [])
    ended.set()

    async def all_of(source: Any) -> list[str]:
        return [text async for text in source]

    assert asyncio.run(all_of(stream._steps(control, "f", ended))) == []
    assert len(asyncio.run(all_of(stream._decisions(control, ended)))) == 1


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path)
    decide(rooms, 1)
    sender = Notifier(rooms, "http://receiver:80x/", "secret")
    sender.send()
    decide(rooms, 2)
    assert "InvalidURL" in sender.send()


def test_whose_token_is_revoked_hears_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.0)
    rooms, is_revoked = rooms_in(tmp_path), False
    control: Any = SimpleNamespace(rooms=rooms)

    def check() -> None:
        if is_revoked:
            raise Unauthorized("It was revoked.")

    async def stays() -> bool:
        return False

    request: Any = SimpleNamespace(headers={}, is_disconnected=stays)

    async def listen() -> list[str]:
        nonlocal is_revoked
        source = stream.stream(request, control, "", threading.Event(), check)
        heard = [await anext(source)]
        decide(rooms, 1)
        heard.append(await anext(source))
        is_revoked = True
        decide(rooms, 2)
        return heard + [text async for text in source]

    assert len(asyncio.run(listen())) == 2


@pytest.mark.parametrize("heard", ["9" * 5000, "digits/" + "9" * 5000, "²", "digits/²"])
def test_numbers_that_are_none_of_ours_are_as_if_nothing_was_heard(tmp_path: Path, heard: str) -> None:
    rooms = rooms_in(tmp_path)
    rooms.journal("f").write("flow", Mark.ENDED, "done")
    control: Any = SimpleNamespace(events=lambda flow, after: read_events(rooms.folder(flow), after=after))

    async def listen() -> list[str]:
        return [text async for text in stream._steps(control, "f", threading.Event(), heard)]

    assert len(asyncio.run(listen())) == 1
    assert set(stream._heads_in(heard).values()) <= {0}
