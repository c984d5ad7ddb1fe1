"""Data files that were replaced: what counts is the digest, not the time on the file."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.component import Component
from headrace.files import sha256_file
from headrace.lifecycle.request import Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Sighting, Watched
from headrace.types import Json


class DataSource:
    """The training data and the holdout that headrace.yaml names."""

    name = "data"

    def is_wanted(self, settings: Component) -> bool:
        return "data" in settings.retrain.on

    def look(self, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        named = [item.uri for item in (watched.settings.data.train, watched.settings.data.holdout) if item]
        known: dict[str, Any] = mark if isinstance(mark, dict) else {}
        looks = {uri: look_at(watched.folder / uri, known.get(uri)) for uri in dict.fromkeys(named)}
        missing = [uri for uri, look in looks.items() if look.is_missing]
        changed = [uri for uri, look in looks.items() if look.is_changed]
        problem = f"{', '.join(missing)} (named under `data:`) is not in {watched.folder}" if missing else ""
        if changed and any(look.is_settling for look in looks.values()):
            # Another file is still being written; both are looked at again, and make one event.
            return Sighting(
                {uri: known[uri] if look.is_changed else look.seen for uri, look in looks.items()}, (), problem
            )
        seen: dict[str, Json] = {uri: look.seen for uri, look in looks.items()}
        return Sighting(seen, [event_of_data(watched, seen, changed)] if changed else (), problem)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one file.

    Attributes:
        seen: what the next look compares with.
        is_settling: it differs from the last look, so it may still be being written.
    """

    seen: Json
    is_changed: bool = False
    is_settling: bool = False
    is_missing: bool = False


def look_at(path: Path, before: dict[str, str] | None) -> Look:
    """Return how a file or folder differs from what was seen before; None for a first look."""
    if not path.exists():
        return Look({**before} if before else None, is_missing=True)
    stat = stat_of(path)
    if not before:
        return Look({"stat": stat, "digest": digest_of(path)})
    if stat == before["stat"]:
        return Look({**before})
    if stat != before.get("settling"):
        return Look({**before, "settling": stat}, is_settling=True)
    digest = digest_of(path)
    return Look({"stat": stat, "digest": digest}, is_changed=digest != before["digest"])


def event_of_data(watched: Watched, seen: dict[str, Any], changed: list[str]) -> Event:
    """Return the event of new data."""
    digests: dict[str, Json] = {uri: (entry or {}).get("digest", "") for uri, entry in seen.items()}
    key = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:16]
    reason = f"{', '.join(changed)} changed"
    trigger = Trigger(Cause.DATA, key, "data", reason, {"data": digests})
    return Event(watched.component, trigger, folder=str(watched.folder))


def files_of(path: Path) -> list[Path]:
    """Return the file, or all files below a folder."""
    if path.is_file():
        return [path]
    found = (Path(place, name) for place, _, names in os.walk(path) for name in names)
    # Links that lead nowhere are passed over; editors leave them while a file is edited.
    return sorted(file for file in found if file.is_file())


def stat_of(path: Path) -> str:
    """Return what changes with every write, in a word; cheap also for large files."""
    seen = hashlib.sha256()
    for file in files_of(path):
        stat = file.stat()
        seen.update(f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
    return seen.hexdigest()


def digest_of(path: Path) -> str:
    """Return the digest of a file's content, or of a folder's files with their names."""
    if path.is_file():
        return sha256_file(path)
    seen = hashlib.sha256()
    for file in files_of(path):
        seen.update(f"{sha256_file(file)}  {file.relative_to(path).as_posix()}\n".encode())
    return seen.hexdigest()
