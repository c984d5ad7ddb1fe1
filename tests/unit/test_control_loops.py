"""A worker's loops outlive a database that goes away and comes back."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.config.settings import Settings
from headrace.dashboard import server
from headrace.deploy.memory import MemoryTarget
from headrace.errors import Cancelled, NotFound, Unavailable
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle import control
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.engine import Engine
from headrace.lifecycle.flows import told
from headrace.lifecycle.request import CandidateRequest, Cause, Outcome, State, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.stopping import ask_to_stop
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry


class AwayAtFirst(MemoryLedger):
    """A ledger that does not answer twice, and ends the loop once it has."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__()
        self.looks, self.ended = 0, ended

    def components(self) -> Sequence[str]:
        self.looks += 1
        if self.looks <= 2:
            raise Unavailable("The ledger is away.")
        self.ended.set()
        return super().components()


class Lasting(MemoryLedger):
    """A ledger with one component, which ends the loop after some looks."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__()
        self.looks, self.ended = 0, ended

    def components(self) -> Sequence[str]:
        self.looks += 1
        if self.looks >= 20:
            self.ended.set()
        return ["digits"]


def test_a_component_that_cannot_be_watched_is_told_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without_record(*_: object) -> float:
        raise NotFound("This installation has no record of version 1 of digits.")

    monkeypatch.setattr(server, "WATCH_S", 0.001)
    monkeypatch.setattr(server.due, "pause_s", without_record)
    ended, none, clock = threading.Event(), Any, ManualClock()
    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    rooms = Rooms(settings, clock, MemoryRegistry(), Lasting(ended), MemoryTarget(), none, MemoryLog())
    server.watch_regularly(Control(rooms, none), ended)
    assert caplog.text.count("no record of version 1") == 1


def test_the_watch_goes_on_once_the_ledger_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WATCH_S", 0.001)
    ended, none = threading.Event(), Any
    ledger = AwayAtFirst(ended)
    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    rooms = Rooms(settings, ManualClock(), MemoryRegistry(), ledger, MemoryTarget(), none, MemoryLog())
    server.watch_regularly(Control(rooms, none), ended)
    assert ledger.looks == 3


def test_a_component_that_breaks_does_not_keep_those_behind_it_from_being_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tidied = []

    def tidy(_rooms: Rooms, component: str) -> Sequence[Any]:
        tidied.append(component)
        if component == "a":
            raise OverflowError("date value out of range")
        return ()

    class Two(MemoryLedger):
        def components(self) -> Sequence[str]:
            return ["a", "b"]

    monkeypatch.setattr(control.approvals, "tidy", tidy)
    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    rooms = Rooms(settings, ManualClock(), MemoryRegistry(), Two(), MemoryTarget(), Any, MemoryLog())
    with pytest.raises(Unavailable, match=r"a: .*OverflowError: date value out of range"):
        Control(rooms, Engine(rooms)).tidy_approvals()
    assert tidied == ["a", "b"]
    assert "Traceback" in caplog.text


@dataclass(frozen=True)
class Broken(Engine):
    """An engine whose flows have all ended on one error."""

    why: Exception | None = None

    def state(self, flow_id: str) -> str | None:
        return "ERROR"

    def error(self, flow_id: str) -> Exception | None:
        return self.why


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (ModuleNotFoundError("No module named 'headrace.lifecycle.train'"), "begun by another version of headrace"),
        (AttributeError("Can't get attribute 'Held' on <module 'headrace.lifecycle.inputs'>"), "by another version"),
        (ValueError("no"), "broke inside headrace (ValueError: no)"),
    ],
)
def test_a_flow_that_broke_ends_with_what_it_broke_on_and_can_be_begun_again(
    tmp_path: Path, why: Exception, words: str
) -> None:
    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    rooms = Rooms(settings, ManualClock(), MemoryRegistry(), MemoryLedger(), MemoryTarget(), Any, MemoryLog())
    (end,) = Control(rooms, Broken(rooms, why)).events("digits/person-1/1")
    assert words in str(end.numbers["fact"])
    assert "headrace run" in str(end.numbers["remedy"])
    assert end.numbers["exit_code"] == 1


def test_a_flow_that_was_stopped_says_by_whom_and_how_to_begin_again(tmp_path: Path) -> None:
    def training(*_: object) -> Outcome:
        raise Cancelled("The work was cancelled.")

    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    rooms = Rooms(settings, ManualClock(), MemoryRegistry(), MemoryLedger(), MemoryTarget(), Any, MemoryLog())
    request = CandidateRequest("digits", "/src", Trigger(Cause.PERSON, "1", "person:ada", "try"))
    ask_to_stop(rooms.folder(request.flow_id), "person:eve")
    outcome = told(training)(Undurable({}), rooms, request)
    assert outcome.state is State.CANCELLED
    assert outcome.fact.startswith("person:eve stopped the flow")
    assert "headrace run" in outcome.remedy
