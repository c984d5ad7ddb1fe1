"""What the watch keeps of its early looks: at full windows whose labels are awaited.

They are ahead of the verdicts, and remember by themselves: a verdict goes on from the verdict before it, an early look
from the look before it, so each window counts once for either.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from headrace.files import write_atomically
from headrace.lifecycle.request import WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.watching.service_facts import Facts
from headrace.lifecycle.watching.watchbook import LEEWAY, Judged, place, remembered, watermark
from headrace.monitoring.memory import Memory
from headrace.monitoring.signals.service import Service
from headrace.types import Json

FILE = "early.json"


@dataclass(frozen=True, slots=True)
class Look:
    """One early look.

    Attributes:
        service: what the endpoint's counters said of the window; `counters` how far they stood then.
    """

    version: int
    first: str
    last: str
    at: str
    sentence: str
    service: dict[str, Json]
    counters: dict[str, list[int]]


def looks_of(rooms: Rooms, component: str, version: int) -> list[Look]:
    """Return the looks at a version's windows that have no verdict yet, oldest first.

    One that was made while the clock was ahead is none any more: its rows are looked at again.
    """
    after, latest = watermark(rooms, component, version), rooms.clock.now() + LEEWAY
    return [
        look
        for look in _looks(rooms, component)
        if look.version == version and look.last > after and datetime.fromisoformat(look.at) <= latest
    ]


def facts_at(rooms: Rooms, request: WatchRequest) -> Facts | None:
    """Return what the counters said when the window was looked at; None where it was not."""
    known = looks_of(rooms, request.component, request.version)
    look = next((one for one in known if one.last == request.last), None)
    return Facts(Service(**look.service), look.counters) if look else None  # type: ignore[arg-type]


def remembered_early(rooms: Rooms, component: str) -> Memory:
    """Return what came before the next early look: the look before it, or the last verdict where that is as new."""
    verdicts, path = remembered(rooms, component), place(rooms, component, FILE)
    if not path.exists():
        return verdicts
    early = Memory.from_json(json.loads(path.read_text())["memory"])
    return early if early.after > verdicts.after else verdicts


def keep(rooms: Rooms, request: WatchRequest, judged: Judged, service: dict[str, Json]) -> None:
    """Remember a look; a repeat changes nothing. Looks at windows that have their verdicts are dropped."""
    component, at = request.component, rooms.clock.now().isoformat(timespec="seconds")
    kept = [one for version in _versions(rooms, component) for one in looks_of(rooms, component, version)]
    if any((one.version, one.last) == (request.version, request.last) for one in kept):
        return
    look = Look(request.version, request.first, request.last, at, judged.sentence, service, judged.counters)
    document = {"windows": [asdict(one) for one in [*kept, look]], "memory": judged.memory}
    write_atomically(place(rooms, component, FILE), json.dumps(document))


def _versions(rooms: Rooms, component: str) -> list[int]:
    return sorted({one.version for one in _looks(rooms, component)})


def _looks(rooms: Rooms, component: str) -> list[Look]:
    path = place(rooms, component, FILE)
    return [Look(**one) for one in json.loads(path.read_text())["windows"]] if path.exists() else []
