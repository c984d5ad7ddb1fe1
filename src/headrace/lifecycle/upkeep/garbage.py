"""What nobody needs any more: model copies, copies of data, the workings of ended flows, environments, predictions.

A version is wanted until it is retired, or refused before it was ever in production. What serves, waits for approval or
may be gone back to is wanted whatever else is said. Events and logs of flows are kept for ever.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

from headrace.config.settings import Settings
from headrace.environment.garbage import WEEK_S, collect_garbage
from headrace.errors import ModelRefused
from headrace.ledger.base import Ledger, no_component
from headrace.lifecycle import events
from headrace.lifecycle.events import Mark, read_events
from headrace.lifecycle.production import approvals
from headrace.lifecycle.production.reconcile import previous_champion
from headrace.lifecycle.rooms import AGAIN, Rooms
from headrace.lifecycle.upkeep.environments import needed, unwanted
from headrace.lifecycle.versions import RECORD
from headrace.predictions import upkeep
from headrace.predictions.manifest import read_manifest
from headrace.provenance.baseline import read_baseline
from headrace.provenance.store import ModelStore
from headrace.types import Json, Stage

#: Of an ended flow these say what happened; everything else was needed to make it happen.
KEPT = (events.FILE, "log", "exit.json", "stop")
QUARTER_S = 90 * 86400.0


class Kind(StrEnum):
    """What is removed."""

    MODEL = "model copy"
    DATA = "data copy"
    FLOW = "flow's workings"
    ENVIRONMENT = "environment"
    PREDICTIONS = "predictions"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to collect.

    Attributes:
        component: one component's only, environments left alone; empty for everything.
        unused_for_s: leave workings of flows and environments alone that were used since.
        predictions_s: leave predictions of retired versions alone that are younger; until then they can teach.
        is_rehearsal: say what would be removed, and remove nothing.
    """

    component: str = ""
    unused_for_s: float = WEEK_S
    predictions_s: float = QUARTER_S
    is_rehearsal: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that nobody needs."""

    kind: Kind
    name: str
    bytes: int
    why: str

    def as_json(self) -> dict[str, Json]:
        return {"kind": self.kind.value, "name": self.name, "bytes": self.bytes, "why": self.why}


@dataclass(frozen=True, slots=True)
class Collected:
    """What was found, and removed unless it was a rehearsal.

    Attributes:
        left: what was not looked at and why, in sentences.
    """

    items: Sequence[Item]
    is_rehearsal: bool
    left: Sequence[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Json]:
        return {
            "items": [item.as_json() for item in self.items],
            "bytes": sum(item.bytes for item in self.items),
            "removed": not self.is_rehearsal,
            "left": list(self.left),
        }


Work = tuple[Item, Callable[[], object]]


def collect(
    rooms: Rooms, asked: Asked, *, running: Sequence[str], ledger_of: Callable[[Settings], Ledger]
) -> Collected:
    """Find what nobody needs any more, and remove it unless it is a rehearsal.

    Args:
        running: the flows that have not ended; a model that is being made belongs to no version yet.
        ledger_of: opens the ledger of another home, whose versions share the environments.

    Raises:
        NotFound: the ledger knows no such component.
    """
    if asked.component and asked.component not in rooms.ledger.components():
        raise no_component(rooms.ledger, asked.component)
    items, left = list[Item](), list[str]()
    busy = [flow for flow in running if not asked.component or flow.startswith(f"{asked.component}/")]
    works = [*_flows(rooms, asked, running), *_reproductions(rooms, asked), *_predictions(rooms, asked)]
    if busy:
        left.append(f"Copies of models and data are left alone until {len(busy)} flows have ended ({busy[0]}).")
    else:
        works += [*_models(rooms, asked), *_data(rooms, asked, left)]
    for item, remove in works:
        items.append(item)
        if not asked.is_rehearsal:
            remove()
    if not asked.component:
        items += _environments(rooms, asked, ledger_of)
    return Collected(items, asked.is_rehearsal, left)


def wanted(rooms: Rooms, component: str) -> Callable[[int], bool]:
    """Return what tells whether a version serves or may be served again."""
    gone = unwanted(rooms.ledger, component)
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    status = rooms.target.status(component, Stage.PRODUCTION)
    safe = {serving.version if serving else None, previous_champion(rooms, component)}
    safe |= {entry.version for entry in approvals.waiting(rooms, component)} | {*(status.warm if status else ())}
    return lambda version: version in safe or version not in gone


def _versions(rooms: Rooms) -> Iterator[tuple[Path, str, int, bool]]:
    """Yield each version's folder, component and number, and whether it is wanted."""
    is_wanted = dict[str, Callable[[int], bool]]()
    for path in sorted((rooms.settings.home / "versions").glob(f"*/v*/{RECORD}")):
        component, version = path.parts[-3], int(path.parts[-2].removeprefix("v"))
        if component not in is_wanted:
            is_wanted[component] = wanted(rooms, component)
        yield path.parent, component, version, is_wanted[component](version)


def _models(rooms: Rooms, asked: Asked) -> Iterator[Work]:
    """Yield the copies that no wanted version is served from."""
    store = ModelStore(rooms.settings.models)
    used, owners = set[str](), dict[str, list[str]]()
    for folder, component, version, is_wanted in _versions(rooms):
        digest = Path(json.loads((folder / RECORD).read_text())["model"]).name
        if is_wanted:
            used.add(digest)
        owners.setdefault(digest, []).append(f"{component}/v{version}")
    for digest, size in store.copies().items():
        names = owners.get(digest, [])
        is_asked = not asked.component or any(name.startswith(f"{asked.component}/") for name in names)
        if digest in used or not is_asked:
            continue
        why = f"{', '.join(names)}: retired or refused" if names else "no version was ever made of it"
        yield Item(Kind.MODEL, digest, size, why), partial(store.remove, digest)
    for left, size in {} if asked.component else store.leftovers().items():
        yield Item(Kind.MODEL, left.name, size, "a crash left it"), partial(store.remove_leftover, left)


def _data(rooms: Rooms, asked: Asked, left: list[str]) -> Iterator[Work]:
    """Yield the copies of data inputs that no wanted version was made or judged with; all components share them."""
    copies = [] if asked.component else sorted(rooms.settings.kept_data.glob("*"))
    if not copies:
        return
    used = set[str]()
    for folder, component, version, is_wanted in _versions(rooms):
        if not is_wanted:
            continue
        try:
            used |= {facts.sha256 for facts in read_baseline(folder / "baseline").data.values()}
        except ModelRefused as error:
            left.append(
                f"Copies of data are left alone: which ones {component}/v{version} needs, nobody knows. {error}"
            )
            return
    for copy in copies:
        made = datetime.fromtimestamp(copy.stat().st_mtime, UTC)
        if copy.name not in used and rooms.clock.now() - made > timedelta(seconds=asked.unused_for_s):
            size = sum(path.lstat().st_size for path in copy.rglob("*"))
            names = ", ".join(sorted(path.name for path in copy.iterdir()))
            why = f"no version that may be served was made with it ({names})"
            yield Item(Kind.DATA, copy.name, size, why), partial(_drop, copy)


def _flows(rooms: Rooms, asked: Asked, running: Sequence[str]) -> Iterator[Work]:
    """Yield the workings of flows that ended a while ago."""
    busy = {rooms.folder(flow).name for flow in running}
    for folder in sorted(rooms.settings.flows.glob(f"{asked.component}--*" if asked.component else "*--*")):
        if folder.name in busy or not folder.is_dir():
            continue
        ends = [event for event in read_events(folder) if event.mark is Mark.ENDED]
        if not ends or rooms.clock.now() - datetime.fromisoformat(ends[-1].at) < timedelta(seconds=asked.unused_for_s):
            continue
        files = [
            path for path in folder.rglob("*") if (path.is_file() or path.is_symlink()) and not _is_kept(path, folder)
        ]
        if files:
            size = sum(path.lstat().st_size for path in files)
            why = f"it ended on {ends[-1].at[:10]}; its events and logs stay"
            yield Item(Kind.FLOW, folder.name, size, why), partial(_strip, folder)


def _reproductions(rooms: Rooms, asked: Asked) -> Iterator[Work]:
    """Yield what `headrace reproduce` worked in a while ago; what it found is a statement about the version."""
    for folder in sorted(rooms.settings.flows.glob(f"reproduce-{asked.component or '*'}-v*")):
        used = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        if rooms.clock.now() - used > timedelta(seconds=asked.unused_for_s):
            size = sum(path.lstat().st_size for path in folder.rglob("*"))
            yield Item(Kind.FLOW, folder.name, size, f"it was made on {used:%F}"), partial(_drop, folder)


def _is_kept(path: Path, folder: Path) -> bool:
    """Tell whether a file says what happened; the component's own files never do."""
    parts = path.relative_to(folder).parts
    if parts[0].startswith(AGAIN):
        parts = parts[1:]
    return bool(parts) and len(parts) <= 2 and parts[0] != "checkout" and (path.name in KEPT or path.suffix == ".log")


def _strip(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.startswith(AGAIN):
            _strip(path)
        elif path.is_dir() and not path.is_symlink():
            kept = [inner for inner in path.iterdir() if inner.is_file() and _is_kept(inner, folder)]
            _drop(path) if not kept else _strip_to(path, kept)
        elif not _is_kept(path, folder):
            path.unlink()


def _strip_to(folder: Path, kept: Sequence[Path]) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            _drop(path)
        elif path not in kept:
            path.unlink()


def _drop(folder: Path) -> None:
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]:
        inner.chmod(0o700)
    shutil.rmtree(folder)


def _predictions(rooms: Rooms, asked: Asked) -> Iterator[Work]:
    """Yield the old predictions of retired versions, and files that were replaced long ago."""
    before = rooms.clock.now() - timedelta(seconds=asked.predictions_s)
    grace = rooms.clock.now().timestamp() - upkeep.GRACE_S
    for component in [asked.component] if asked.component else rooms.ledger.components():
        folder = rooms.settings.predictions / component
        if not (folder / "manifest.json").exists():
            continue
        is_wanted = wanted(rooms, component)
        manifest = read_manifest(folder)
        gone = {one.version for one in manifest.predictions if not is_wanted(one.version)}
        old = upkeep.outdated(manifest, before, versions=gone)
        forget = partial(_forget, rooms, folder, before, gone)
        for version in sorted({one.version for one in old}):
            size = sum(one.bytes for one in old if one.version == version)
            why = f"v{version} is retired, and they are from before {before.astimezone(UTC):%Y-%m-%d}"
            yield Item(Kind.PREDICTIONS, f"{component}/v{version}", size, why), forget
        replaced = [folder / one.path for one in manifest.retired if one.since <= grace]
        size = sum(path.stat().st_size for path in replaced if path.exists())
        if size:
            yield Item(Kind.PREDICTIONS, f"{component}: {len(replaced)} files", size, "replaced long ago"), forget


def _forget(rooms: Rooms, folder: Path, before: datetime, versions: Collection[int]) -> None:
    """Drop predictions; readers that have their files open keep them for a while. A repeat changes nothing."""
    upkeep.prune(folder, before, versions=versions, clock=rooms.clock)
    upkeep.sweep(folder, clock=rooms.clock)


def _environments(rooms: Rooms, asked: Asked, ledger_of: Callable[[Settings], Ledger]) -> list[Item]:
    found = collect_garbage(
        rooms.settings, keep=needed(rooms.settings, ledger_of), clock=rooms.clock, unused_for_s=asked.unused_for_s,
        is_rehearsal=asked.is_rehearsal,
    )  # fmt: skip
    return [
        Item(Kind.ENVIRONMENT, digest, size, "no version of any home needs it")
        for digest, size in zip(found.environments, found.sizes, strict=True)
    ]
