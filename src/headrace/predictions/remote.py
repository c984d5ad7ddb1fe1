"""The part of a component's prediction log that lies in an object store, written by several nodes.

    NAME/writers/WRITER.json               which segments of one writer count, replaced whole
    NAME/segments/…, NAME/truths/…         Parquet, each under a name of its own, never changed
    NAME/floors/…                          below which ids nothing counts any more

Each object has one writer, so no conditional write is needed, and stores that ignore them are as safe as those that do
not. A writer is a local folder: it keeps what is acknowledged until its manifest in the store names it.

    1. local manifest:  segments move from `predictions` and `actuals` to `shipping`; nothing else touches them then
    2. store:           the segments are put, and their sizes checked
    3. store:           the writer's manifest names them; from now on others see them
    4. local manifest:  they leave `shipping`

A crash anywhere repeats from 2, with the same names. Between 3 and 4 a segment is in both; a reader takes it once.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from headrace.bucket import Bucket
from headrace.clock import Clock, SystemClock
from headrace.errors import NotFound, Unavailable
from headrace.files import write_atomically
from headrace.predictions.ids import lowest
from headrace.predictions.manifest import (
    Manifest,
    Retired,
    Segment,
    exclusive,
    manifest_of,
    read_manifest,
    write_manifest,
)
from headrace.predictions.upkeep import Problem, rebuild

log = logging.getLogger(__name__)
#: Beside the local segments: copies of what lies in the store, for readers of this machine.
CACHE = "remote"
WRITER = "writer"
CACHE_BYTES = 4 * 1024**3
#: How long an object that no longer counts, or a copy that nobody used, stays for readers that still have its name.
GRACE_S = 600.0
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a round put into the store.

    Attributes:
        left: rows that are in this folder alone, in Parquet or in journals that are still written.
    """

    segments: int = 0
    rows: int = 0
    bytes: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Floor:
    """Nothing with an id below `id` counts, of one version or (0) of all of them and their actuals."""

    id: str
    version: int = 0

    @property
    def name(self) -> str:
        return f"floors/{self.version or _ALL}-{self.id}"

    def takes(self, segment: Segment) -> bool:
        return bool(segment.last) and segment.last < self.id and self.version in (0, segment.version)


@dataclass(frozen=True, slots=True)
class Remote:
    """One component's objects, seen from one local folder.

    Attributes:
        folder: the component's local folder, the writer's spool.
        store: the component's objects.
    """

    folder: Path
    store: Bucket
    clock: Clock = field(default_factory=SystemClock)

    # Reading

    def segments(self) -> Manifest:
        """Return all writers' segments that count, and what writers elsewhere lost. Raises Unavailable."""
        floors, mine = self.floors(), _manifest_name(self._known_as()[0])
        found: dict[str, Segment] = {}
        actuals: dict[str, Segment] = {}
        damaged = senseless = 0
        for name in sorted(self.store.sizes("writers")):
            one = self._read(name)
            found |= {each.path: each for each in one.predictions if not _is_below(each, floors)}
            actuals |= {each.path: each for each in one.actuals if not _is_below(each, floors)}
            damaged += one.damaged_bytes if name != mine else 0
            senseless += one.senseless_rows if name != mine else 0
        return Manifest(tuple(found.values()), tuple(actuals.values()), damaged_bytes=damaged, senseless_rows=senseless)

    def file(self, segment: Segment) -> Path:
        """Return a local copy of a segment, fetched where there is none or a torn one. Raises Unavailable."""
        copy = self.folder / CACHE / segment.path
        try:
            os.utime(copy)
            is_whole = copy.stat().st_size == segment.bytes
        except FileNotFoundError:
            is_whole = False
        if not is_whole:
            self._make_room(segment.bytes)
            try:
                self.store.fetch(segment.path, copy)
            except NotFound as error:
                raise Unavailable(
                    f"{error.fact} Its writer's manifest names it, with {segment.rows} rows.",
                    "If it was dropped a moment ago, try again; else restore it from a backup of the store.",
                ) from error
        return copy

    def floors(self) -> list[Floor]:
        """Return below which ids nothing counts."""
        return [_floor(name) for name in self.store.sizes("floors")]

    def check(self) -> list[Problem]:
        """Return the objects that are missing or have other sizes than their writers' manifests say."""
        sizes = self.store.sizes()
        seen = self.segments()
        found = []
        for one in (*seen.predictions, *seen.actuals):
            size = sizes.get(one.path)
            if size != one.bytes:
                what = "is missing" if size is None else f"has {size} bytes, not {one.bytes}"
                found.append(
                    Problem(one.path, one.rows, f"{self.store.url}/{one.path} {what}; it held {one.rows} rows.")
                )
        return found

    # Writing

    def ship(self) -> Shipped:
        """Put this folder's segments into the store; a repeat, also after a crash, puts each of them once.

        Raises:
            Unavailable: the store does not take them; they stay here, and can be read here.
        """
        with self._one_shipper() as (writer, own):
            manifest = self._take()
            for one in manifest.shipping:
                self._put(one)
            if manifest.shipping or own.generation == 0:
                self._name(writer, own, manifest)
                self._let_go(manifest.shipping)
            local = read_manifest(self.folder)
        rows, size = sum(one.rows for one in manifest.shipping), sum(one.bytes for one in manifest.shipping)
        return Shipped(len(manifest.shipping), rows, size, sum(one.rows for one in local.predictions))

    def put_floor(self, before: datetime, versions: Collection[int] | None = None) -> int:
        """Let nothing before a moment count any more, and return the rows that this takes from readers."""
        floors = [Floor(lowest(before), one) for one in (versions if versions is not None else [0])]
        seen = self.segments()
        for floor in floors:
            self.store.put(floor.name, b"{}")
        return sum(one.rows for one in (*seen.predictions, *seen.actuals) if _is_below(one, floors))

    def sweep(self) -> int:
        """Take what is below a floor out of this writer's manifest, remove what left it long ago; return how much."""
        floors = self.floors()
        with self._one_shipper() as (writer, own):
            below = [one for one in (*own.predictions, *own.actuals) if _is_below(one, floors)]
            now_s = self.clock.now().timestamp()
            ripe = [one for one in own.retired if one.since <= now_s - GRACE_S]
            for one in ripe:
                self.store.remove(one.path)
            if below or ripe:
                gone = {one.path for one in below}
                kept = tuple(one for one in own.retired if one not in ripe)
                self._write(
                    writer,
                    own.next(
                        predictions=tuple(one for one in own.predictions if one.path not in gone),
                        actuals=tuple(one for one in own.actuals if one.path not in gone),
                        retired=(*kept, *(Retired(path, now_s) for path in sorted(gone))),
                        expired_rows=own.expired_rows + sum(one.rows for one in below),
                    ),
                )
        return len(ripe)

    def replace(self, merged: Collection[Segment], made: Sequence[Segment]) -> bool:
        """Let new segments, whose files lie in the cache, stand for some of this writer's own; tell whether they do."""
        gone = {one.path for one in merged}
        with self._one_shipper() as (writer, own):
            half = {one.path for one in read_manifest(self.folder).shipping}
            # Dropped meanwhile, or named here still after a crash: both would be told twice.
            if gone & half or not gone <= {one.path for one in (*own.predictions, *own.actuals)}:
                return False
            for one in made:
                self._put(one, self.folder / CACHE / one.path)
            now_s = self.clock.now().timestamp()
            self._write(
                writer,
                own.next(
                    predictions=(
                        *(one for one in own.predictions if one.path not in gone),
                        *(one for one in made if one.day),
                    ),
                    actuals=(
                        *(one for one in own.actuals if one.path not in gone),
                        *(one for one in made if not one.day),
                    ),
                    retired=(*own.retired, *(Retired(path, now_s) for path in sorted(gone))),
                ),
            )
        return True

    def own(self) -> Manifest:
        """Return what this folder's writer has in the store."""
        with self._one_shipper() as (_, own):
            return own

    def rebuild(self) -> Manifest:
        """Make this folder's manifest anew, without the files that the store was given.

        Raises:
            Unavailable: the store cannot be asked; the manifest stays as it is.
        """
        with self._one_shipper():
            shipped = set[str]().union(*(self._read(name).paths for name in self.store.sizes("writers")))
            return rebuild(self.folder, shipped=shipped, clock=self.clock)

    # The steps

    def _take(self) -> Manifest:
        with exclusive(self.folder):
            manifest = read_manifest(self.folder)
            if manifest.predictions or manifest.actuals:
                shipping = (*manifest.shipping, *manifest.predictions, *manifest.actuals)
                manifest = manifest.next(predictions=(), actuals=(), shipping=shipping)
                write_manifest(self.folder, manifest)
        return manifest

    def _put(self, segment: Segment, path: Path | None = None) -> None:
        self.store.put_file(segment.path, path or self.folder / segment.path)
        size = self.store.size(segment.path)
        if size != segment.bytes:
            raise Unavailable(
                f"{self.store.url}/{segment.path} has {size} bytes, not {segment.bytes}, right after it was written.",
                "See that the store has room; it is tried again.",
            )

    def _name(self, writer: str, own: Manifest, manifest: Manifest) -> None:
        known = own.paths
        fresh = [one for one in manifest.shipping if one.path not in known]
        self._write(
            writer,
            own.next(
                predictions=(*own.predictions, *(one for one in fresh if one.day)),
                actuals=(*own.actuals, *(one for one in fresh if not one.day)),
                damaged_bytes=manifest.damaged_bytes,
                senseless_rows=manifest.senseless_rows,
            ),
        )

    def _let_go(self, shipped: Sequence[Segment]) -> None:
        gone = {one.path for one in shipped}
        for path in gone:  # This machine's readers need not fetch what they had.
            copy = self.folder / CACHE / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(self.folder / path, copy)
        now_s = self.clock.now().timestamp()
        with exclusive(self.folder):
            manifest = read_manifest(self.folder)
            left = tuple(one for one in manifest.shipping if one.path not in gone)
            retired = (*manifest.retired, *(Retired(path, now_s) for path in sorted(gone)))
            write_manifest(self.folder, manifest.next(shipping=left, retired=retired))

    # Manifests in the store

    def _read(self, name: str) -> Manifest:
        try:
            return manifest_of(json.loads(self.store.get(name)))
        except (ValueError, TypeError, KeyError) as error:
            raise Unavailable(
                f"{self.store.url}/{name} cannot be understood ({error}).", "Restore it from a backup of the store."
            ) from error

    def _write(self, writer: str, manifest: Manifest) -> None:
        # In this order: whether the store has it or not after a crash, it counts as this folder's.
        write_atomically(self.folder / WRITER, f"{writer} {manifest.generation}")
        self.store.put(_manifest_name(writer), json.dumps(asdict(manifest)).encode())

    def _known_as(self) -> tuple[str, int]:
        """Return this writer's name, and the highest generation of a manifest that it ever began to write."""
        try:
            name, generation = (self.folder / WRITER).read_text().split()
            return name, int(generation)
        except (FileNotFoundError, ValueError):
            return "", 0

    @contextlib.contextmanager
    def _one_shipper(self) -> Iterator[tuple[str, Manifest]]:
        """Hold the right to write this folder's objects, and give the writer's name and manifest; others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / ".ship.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield self._identify()
        finally:
            os.close(file)

    def _identify(self) -> tuple[str, Manifest]:
        name, generation = self._known_as()
        if name:
            try:
                own = self._read(_manifest_name(name))
            except NotFound:
                own = Manifest()
            # More than that is somebody else's hand: a copy of this folder at work. From then on each has a name of its
            # own, and neither overwrites the other.
            if own.generation <= generation:
                return name, own
            log.warning("%s: another copy of this folder writes as %s; this one takes a new name", self.folder, name)
        name = uuid.uuid4().hex
        write_atomically(self.folder / WRITER, f"{name} 0")
        return name, Manifest()

    def _make_room(self, wanted: int) -> None:
        """Remove the copies that were not used for longest, beyond what the cache may hold."""
        found = []
        for path in (self.folder / CACHE).rglob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found) + wanted
        for used, size, path in sorted(found):
            if total <= CACHE_BYTES or used > time.time() - GRACE_S:
                break
            path.unlink(missing_ok=True)
            total -= size


def _manifest_name(writer: str) -> str:
    return f"writers/{writer}.json"


def _floor(name: str) -> Floor:
    version, _, identity = name.rpartition("/")[2].partition("-")
    return Floor(identity, 0 if version == _ALL else int(version))


def _is_below(segment: Segment, floors: Collection[Floor]) -> bool:
    return any(floor.takes(segment) for floor in floors)
