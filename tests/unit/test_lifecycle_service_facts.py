"""Errors, late answers and old models are in the verdict, and errors right after a change of version take it back."""

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.clock import ManualClock
from headrace.config.component import Acceptance, Component, Monitor
from headrace.config.settings import Settings
from headrace.deploy.base import Status
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.ledger.base import Action, Draft
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.request import WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.watching import service_facts
from headrace.lifecycle.watching.service_facts import facts_of
from headrace.lifecycle.watching.watchbook import Judged, mark
from headrace.monitoring.memory import Memory
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.rollout.observed import Tally
from headrace.types import Actor, Endpoint, Stage

SETTINGS = Component(component="digits", acceptance=Acceptance(p99_ms=50), monitor=Monitor(stale_after=86400.0))
WINDOW = WatchRequest("digits", 2, "first", "last")


def no_environments(_kind: object) -> Environments:
    raise AssertionError("the watch builds no environment")


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> dict[int, Tally]:
    """What the endpoint's page says; tests write into it."""
    found: dict[int, Tally] = {}
    monkeypatch.setattr(service_facts, "tallies", lambda _url, **_: dict(found))
    return found


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    """Version 2 in production after version 1."""
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    made = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    for version, expected in ((1, None), (2, 1)):
        draft = Draft("digits", Action.PROMOTED, Actor("ada"), "best", f"p{version}", Stage.PRODUCTION, version)
        made.ledger.move(draft, expected=expected)
    endpoint = Endpoint("digits", Stage.PRODUCTION, "http://127.0.0.1:1", 0)
    monkeypatch.setattr(MemoryTarget, "status", lambda *_: Status(endpoint, 1, {2: 1.0}, (2,)))
    return made


def test_a_window_gets_what_happened_since_the_last_one(rooms: Rooms, counters: dict[int, Tally]) -> None:
    counters |= {1: Tally(5000, 2), 2: Tally(400, 1)}
    first = facts_of(rooms, WINDOW, SETTINGS)
    assert (first.service.requests, first.service.failures) == (400, 1)
    assert (first.service.usual_requests, first.service.usual_failures) == (5000, 2)
    mark(rooms, WINDOW, Judged("none", "", [], 1, Memory().as_json(), counters=first.counters), "")
    counters[2] = Tally(900, 41)
    second = facts_of(rooms, replace(WINDOW, first="next"), SETTINGS).service
    assert (second.requests, second.failures) == (500, 40)


def test_an_endpoint_that_started_anew_counts_from_nothing(rooms: Rooms, counters: dict[int, Tally]) -> None:
    counters |= {1: Tally(5000, 2), 2: Tally(400, 1)}
    known = facts_of(rooms, WINDOW, SETTINGS)
    mark(rooms, WINDOW, Judged("none", "", [], 1, Memory().as_json(), counters=known.counters), "")
    counters.clear()
    counters[2] = Tally(30, 0)
    after = facts_of(rooms, WINDOW, SETTINGS).service
    assert (after.requests, after.failures, after.usual_requests) == (30, 0, 5000)


def test_promises_and_ages_are_known_without_counters(rooms: Rooms, counters: dict[int, Tally]) -> None:
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(2 * 86400)
    found = facts_of(rooms, WINDOW, SETTINGS).service
    assert (found.requests, found.p99_ms, found.oldest_model_s) == (0, 50, 86400)
    assert found.model_age_s == pytest.approx(2 * 86400)
