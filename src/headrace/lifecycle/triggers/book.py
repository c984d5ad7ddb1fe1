"""What is remembered about triggers: which components are watched, up to where, what waits, and what became of all.

One folder for each component under `home/triggers`. Changes hold a lock, because webhooks, flows and the patrol write.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from headrace.config.component import Component
from headrace.config.parse import FILE, read_component
from headrace.errors import HeadraceError, NotFound
from headrace.files import append_line, read_lines, write_atomically
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Sighting, Watched, event_of
from headrace.types import Json

#: Strangers can cause lines (a webhook with a wrong signature), so the log is cut here, the older half going first.
MOST_BYTES = 4 * 1024 * 1024


class Became(StrEnum):
    """What became of an event."""

    STARTED = "started"
    WAITING = "waiting"
    REPEATED = "repeated"
    SUPERSEDED = "superseded"
    REFUSED = "refused"
    IGNORED = "ignored"
    NOTED = "noted"
    PUT_BACK = "put back"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a component's trigger log."""

    at: str
    source: str
    key: str
    actor: str
    became: Became
    fact: str
    flow: str = ""

    def as_json(self) -> dict[str, Json]:
        return {
            "at": self.at,
            "source": self.source,
            "key": self.key,
            "actor": self.actor,
            "became": self.became.value,
            "fact": self.fact,
            "flow": self.flow,
        }


@dataclass(frozen=True, slots=True)
class Book:
    """The memory of one component's triggers."""

    rooms: Rooms
    component: str

    @property
    def folder(self) -> Path:
        return self.rooms.settings.home / "triggers" / self.component

    @property
    def hint(self) -> Path:
        """A file that is touched by those who know that there is something to see; a git hook, say."""
        return self.folder / "hint"

    def watch(self, folder: Path) -> Watched:
        """Look at a component's sources from now on. Raises InvalidConfig."""
        settings = read_component(folder)
        self._write("watched.json", {"folder": str(folder), "config": settings.as_json()})
        return Watched(self.component, folder, settings)

    def forget(self) -> None:
        """Look no more; what was seen stays in the log, and what a look that is under way finds counts no more."""
        if not self.folder.is_dir():
            return
        with self._alone():
            for name in ("watched.json", "marks.json", "waiting.json"):
                (self.folder / name).unlink(missing_ok=True)

    def watched(self) -> Watched | None:
        """Return the component with what its headrace.yaml says now, or said when it was last right."""
        document = self._read("watched.json", {})
        if not document:
            return None
        folder = Path(document["folder"])
        try:
            settings = read_component(folder)
            if settings.component != self.component:
                raise NotFound(f"{folder / FILE} names the component {settings.component} by now.")
        except HeadraceError as error:
            self.trouble("headrace.yaml", f"{error.fact} Its last good version counts until then.")
            settings = Component.model_validate({**document["config"], "folder": folder})
            return Watched(self.component, folder, settings)
        self.trouble("headrace.yaml", "")
        if settings.as_json() != document["config"]:
            with self._alone():
                if self._is_watched():
                    self._write("watched.json", {"folder": str(folder), "config": settings.as_json()})
        return Watched(self.component, folder, settings)

    def mark(self, source: str) -> Json:
        """Return up to where a source was seen; None before the first look."""
        marks: dict[str, Json] = self._read("marks.json", {})
        return marks.get(source)

    def note_sighting(self, source: str, sighting: Sighting) -> None:
        """Let what was seen wait, and remember up to where; nothing, where nobody watches any more."""
        with self._alone():
            if not self._is_watched():
                return
            replaced = [(event, self._put(event)) for event in sighting.events]
            # Only now: a crash in between sees the same events again, and their ids make one flow of each.
            marks = self._read("marks.json", {})
            if marks.get(source) != sighting.mark:
                self._write("marks.json", {**marks, source: sighting.mark})
        for event, older in replaced:
            self._say_superseded(event, older)

    def waiting(self) -> Sequence[Event]:
        """Return the events that nothing was started for yet, oldest first."""
        return [event_of(document) for document in self._read("waiting.json", [])]

    def add(self, event: Event) -> None:
        """Let an event wait; a candidate's event replaces an older one of its cause. A repeat changes nothing."""
        with self._alone():
            older = self._put(event)
        self._say_superseded(event, older)

    def _put(self, event: Event) -> Sequence[Event]:
        """Write an event among those that wait, and return those that it replaced."""
        waiting = self.waiting()
        if any(one.flow_id == event.flow_id for one in waiting):
            return ()
        replaced = [
            one for one in waiting
            if (one.wants, one.trigger.cause, one.version) == (event.wants, event.trigger.cause, event.version)
        ]  # fmt: skip
        kept = [one for one in waiting if one not in replaced]
        self._write("waiting.json", [one.as_json() for one in [*kept, event]])
        return replaced

    def _say_superseded(self, event: Event, older: Sequence[Event]) -> None:
        for one in older:
            self.say(one, Became.SUPERSEDED, f"{event.trigger.reason} came before this one was begun.")

    def remove(self, event: Event) -> None:
        with self._alone():
            waiting = self._read("waiting.json", [])
            kept = [one for one in waiting if event_of(one).flow_id != event.flow_id]
            self._write("waiting.json", kept)

    def started_at(self, group: str) -> str:
        """Return when something of a group was last started, as ISO 8601; empty for never."""
        return str(self._read("started.json", {}).get(group, ""))

    def note_start(self, group: str) -> None:
        with self._alone():
            self._write("started.json", {**self._read("started.json", {}), group: self.rooms.clock.now().isoformat()})

    def say(self, event: Event, became: Became, fact: str, *, flow: str = "") -> Line:
        """Write down what became of an event."""
        trigger = event.trigger
        line = Line(self._now(), trigger.cause.value, trigger.key, trigger.actor, became, fact, flow)
        return self.write(line)

    def tell(self, source: str, became: Became, fact: str, *, key: str = "", actor: str = "") -> Line:
        """Write down what came of something that was no event."""
        return self.write(Line(self._now(), source, key, actor, became, fact))

    def trouble(self, source: str, problem: str) -> None:
        """Write down a problem when it begins, and that it is over when it is; never the same one twice."""
        known: dict[str, str] = self._read("problems.json", {})
        if known.get(source, "") == problem:
            return
        with self._alone():
            self._write("problems.json", {**self._read("problems.json", {}), source: problem})
        if problem:
            self.tell(source, Became.PROBLEM, problem)

    def problems(self) -> dict[str, str]:
        """Return what is wrong at the moment, by source."""
        known: dict[str, str] = self._read("problems.json", {})
        return {source: problem for source, problem in known.items() if problem}

    def write(self, line: Line) -> Line:
        with self._alone():
            path = self.folder / "log.jsonl"
            if path.exists() and path.stat().st_size > MOST_BYTES:
                lines = path.read_bytes().splitlines(keepends=True)
                write_atomically(path, b"".join(lines[len(lines) // 2 :]))
            append_line(path, line.as_json())
        return line

    def log(self, *, limit: int = 100) -> Sequence[Line]:
        """Return the newest lines, newest first."""
        documents = [document for document in read_lines(self.folder / "log.jsonl") if document]
        return [Line(**{**document, "became": Became(document["became"])}) for document in documents[: -limit - 1 : -1]]

    def _is_watched(self) -> bool:
        return (self.folder / "watched.json").exists()

    def _now(self) -> str:
        return self.rooms.clock.now().isoformat()

    def _read(self, name: str, empty: Any) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return empty

    def _write(self, name: str, document: object) -> None:
        write_atomically(self.folder / name, json.dumps(document))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def books(rooms: Rooms) -> list[Book]:
    """Return the books of all components that anything is remembered of."""
    folder = rooms.settings.home / "triggers"
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return [Book(rooms, name) for name in names]
