"""What the watch keeps of a component: how far it has judged, every verdict, and windows that could not be judged."""

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.files import append_line, read_lines, write_atomically
from headrace.lifecycle.request import WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.monitoring.memory import Memory
from headrace.predictions.base import Joined
from headrace.types import Json

MEMORY, MARKS, WINDOWS = "memory.json", "watermarks.json", "windows.jsonl"
FAILURE, TALLIES = "failure.json", "tallies.json"
#: A window that could not be judged is tried again after so long, then after twice as long, up to an hour.
AGAIN_S, LATEST_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Judged:
    """One judged window, in stored form."""

    consequence: str
    sentence: str
    signals: list[Json]
    rows: int
    memory: dict[str, Json] = field(default_factory=dict)
    repeats: int = 0
    counters: dict[str, list[int]] = field(default_factory=dict)  #: version to its endpoint's requests and errors
    since: str = ""  #: id of the first prediction of the first window in which any of it fired


@dataclass(frozen=True, slots=True)
class Failure:
    """A window that could not be judged, how often, and why."""

    first: str
    times: int
    at: datetime
    fact: str

    @property
    def again_at(self) -> datetime:
        """Return when it is tried again without being asked for."""
        return self.at + timedelta(seconds=min(AGAIN_S * 2 ** (self.times - 1), LATEST_S))


def watermark(rooms: Rooms, component: str, version: int) -> str:
    """Return the id of the last judged prediction of a version."""
    marks: dict[str, str] = _read(place(rooms, component, MARKS))
    return marks.get(str(version), "")


def rows_until(rooms: Rooms, request: WatchRequest, window: int, *, after: str = "") -> list[Joined]:
    """Return a window's rows: the unjudged ones up to its last, also those that came in after it was found full.

    Args:
        after: the last prediction that is not of it, where that is newer than the last judged one.
    """
    after = max(after, watermark(rooms, request.component, request.version))
    found = rooms.predictions.joined(request.component, after=after, limit=2 * window, version=request.version)
    return [row for row in found if row.prediction.id <= request.last]


def remembered(rooms: Rooms, component: str) -> Memory:
    """Return what the judge remembers of a component's windows."""
    document = _read(place(rooms, component, MEMORY))
    return Memory.from_json(document) if document else Memory()


def mark(rooms: Rooms, request: WatchRequest, judged: Judged, next_flow: str) -> None:
    """Keep the verdict, and remember that the window was judged."""
    if all(window["flow"] != request.flow_id for window in windows(rooms, request.component)):
        verdict: dict[str, Json] = {
            "flow": request.flow_id,
            "at": rooms.clock.now().isoformat(),
            "version": request.version,
            "first": request.first,
            "last": request.last,
            "rows": judged.rows,
            "consequence": judged.consequence,
            "sentence": judged.sentence,
            "signals": judged.signals,
            "since": judged.since,
            "next_flow": next_flow,
        }
        append_line(place(rooms, request.component, WINDOWS), verdict)
    write_atomically(place(rooms, request.component, MEMORY), json.dumps(judged.memory))
    write_atomically(place(rooms, request.component, TALLIES), json.dumps(judged.counters))
    path = place(rooms, request.component, MARKS)
    write_atomically(path, json.dumps({**_read(path), str(request.version): request.last}))


def tallies(rooms: Rooms, component: str) -> dict[str, list[int]]:
    """Return how far each version's counters stood when the last window was judged: requests and errors."""
    found: dict[str, list[int]] = _read(place(rooms, component, TALLIES))
    return found


def windows(rooms: Rooms, component: str) -> list[dict[str, Json]]:
    """Return all verdicts on a component's windows, oldest first."""
    return [one for one in read_lines(place(rooms, component, WINDOWS)) if one]


def failure(rooms: Rooms, component: str, first: str) -> Failure | None:
    """Return how often the window that begins with `first` could not be judged; None where it was not tried."""
    document = _read(place(rooms, component, FAILURE))
    if document.get("first") != first:
        return None
    return Failure(first, int(document["times"]), datetime.fromisoformat(document["at"]), str(document["fact"]))


def note_failure(rooms: Rooms, request: WatchRequest, fact: str) -> None:
    """Remember that a window could not be judged; a repeat of the same attempt changes nothing."""
    found = Failure(request.first, request.attempt + 1, rooms.clock.now(), fact)
    document = {**asdict(found), "at": found.at.isoformat()}
    write_atomically(place(rooms, request.component, FAILURE), json.dumps(document))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def place(rooms: Rooms, component: str, file: str) -> Path:
    """Return where something is kept of a component's watch."""
    folder = rooms.settings.home / "watch" / component
    folder.mkdir(parents=True, exist_ok=True)
    return folder / file
