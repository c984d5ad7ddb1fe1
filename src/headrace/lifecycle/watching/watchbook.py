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
from headrace.predictions.ids import lowest
from headrace.types import Json

MEMORY, MARKS, WINDOWS = "memory.json", "watermarks.json", "windows.jsonl"
FAILURE, TALLIES = "failure.json", "tallies.json"
#: Version to the last prediction that was judged while the clock was ahead.
AHEAD = "ahead.json"
#: How far before the present an id may be: clocks of several machines differ.
LEEWAY = timedelta(minutes=5)
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
    mark, ahead = marks.get(str(version), ""), _ahead(rooms, component, version)
    # Once the present has caught up, what was judged ahead of it is not judged again.
    return max(mark, ahead) if ahead <= lowest(rooms.clock.now()) else mark


def set_back(rooms: Rooms, component: str, version: int) -> str:
    """Set a watermark that a clock left ahead of the present back to now, so that what comes from now on is judged.

    Returns:
        the last prediction that was judged ahead of the present; empty where there is none, or once that has come.
    """
    now = rooms.clock.now()
    found = watermark(rooms, component, version)
    if found > lowest(now + LEEWAY):
        for file, value in ((AHEAD, found), (MARKS, lowest(now))):
            path = place(rooms, component, file)
            write_atomically(path, json.dumps({**_read(path), str(version): value}))
    ahead = _ahead(rooms, component, version)
    return ahead if ahead > lowest(now) else ""


def unjudged(rooms: Rooms, component: str, version: int, *, limit: int, after: str = "") -> list[Joined]:
    """Return the first rows without a verdict, above `after`, where that is newer than the last judged one.

    Those that a clock ahead of the present had judged already are left out; what came with higher ids is not.
    """
    after = max(after, watermark(rooms, component, version))
    now = rooms.clock.now()
    ahead, bound = _ahead(rooms, component, version), lowest(now + LEEWAY)
    found = list(rooms.predictions.joined(component, after=after, limit=limit, version=version))
    if ahead <= max(after, bound):
        return found
    present = [row for row in found if row.prediction.id <= bound]
    rest = limit - len(present)
    return [*present, *rooms.predictions.joined(component, after=ahead, limit=rest, version=version)]


def rows_until(rooms: Rooms, request: WatchRequest, window: int, *, after: str = "") -> list[Joined]:
    """Return a window's rows: the unjudged ones up to its last, also those that came in after it was found full.

    Args:
        after: the last prediction that is not of it, where that is newer than the last judged one.
    """
    found = unjudged(rooms, request.component, request.version, limit=2 * window, after=after)
    return [row for row in found if row.prediction.id <= request.last]


def _ahead(rooms: Rooms, component: str, version: int) -> str:
    found: dict[str, str] = _read(place(rooms, component, AHEAD))
    return found.get(str(version), "")


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
