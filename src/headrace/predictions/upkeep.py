"""Upkeep of a component's files: compaction, retention, checking, and a manifest made anew.

Each step writes new files first, then the manifest, and removes old files later, so that a reader never sees it half
done and a crash leaves at worst files that the next roll sweeps away.
"""

import contextlib
import errno
import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.clock import Clock, SystemClock
from headrace.errors import Unavailable
from headrace.predictions import actuals
from headrace.predictions.ids import lowest
from headrace.predictions.manifest import Manifest, Retired, Segment, exclusive, read_manifest, write_manifest
from headrace.predictions.roll import segment_of
from headrace.predictions.tables import storage, texts

log = logging.getLogger(__name__)
#: Segments are merged up to this size, in rows and in bytes as stored, for they are merged in memory; larger ones are
#: left alone.
FULL_ROWS, FULL_BYTES = 1_000_000, 64 * 1024**2
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM}
#: How long a replaced file stays for readers that still use it.
GRACE_S = 600.0


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did."""

    merged: int
    into: int
    removed: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that does not hold what the manifest says."""

    path: str
    rows: int
    sentence: str


def is_full(*segments: Segment) -> bool:
    """Tell whether segments, together, are too large for another to be merged with."""
    return sum(one.rows for one in segments) >= FULL_ROWS or sum(one.bytes for one in segments) >= FULL_BYTES


def compact(folder: Path, *, clock: Clock | None = None) -> Compaction:
    """Merge small segments of one version, day and set of columns, and remove files that were replaced long ago.

    A damaged one stays as it is, for `check` to name, and keeps none of the others from being merged.
    """
    clock = clock or SystemClock()
    with exclusive(folder):
        manifest = read_manifest(folder)
        removed = _remove_retired(folder, manifest, clock)
        kept, merged, made = [], [], []
        for group in groups(folder, manifest.predictions):
            tables = _sound(folder, group) if len(group) > 1 else []
            if len(tables) < 2:
                kept += group
                continue
            sound = [one for one, _ in tables]
            made.append(_joined(folder, tables))
            merged += sound
            kept += [one for one in group if one not in sound]
        if made or removed:
            retired = (*(one for one in manifest.retired if one.path not in removed), *_retire(merged, clock))
            write_manifest(folder, manifest.next(predictions=(*kept, *made), retired=retired))
    return Compaction(len(merged), len(made), len(removed))


def sweep(folder: Path, *, clock: Clock | None = None) -> int:
    """Remove files that were replaced or dropped long enough ago that nobody reads them; return how many."""
    with exclusive(folder):
        manifest = read_manifest(folder)
        removed = _remove_retired(folder, manifest, clock or SystemClock())
        if removed:
            retired = tuple(one for one in manifest.retired if one.path not in removed)
            write_manifest(folder, manifest.next(retired=retired))
    return len(removed)


def prune(
    folder: Path, before: datetime, *, versions: Collection[int] | None = None, clock: Clock | None = None
) -> int:
    """Drop predictions and actuals of ids before a moment, whole files at a time, and return the rows dropped.

    Args:
        versions: drop predictions of these only, and no actuals.
    """
    clock = clock or SystemClock()
    with exclusive(folder):
        manifest = read_manifest(folder)
        old = outdated(manifest, before, versions=versions)
        gone = {one.path for one in old}
        rows = sum(one.rows for one in old)
        if old:
            write_manifest(
                folder,
                manifest.next(
                    predictions=tuple(one for one in manifest.predictions if one.path not in gone),
                    actuals=tuple(one for one in manifest.actuals if one.path not in gone),
                    retired=(*manifest.retired, *_retire(old, clock)),
                    expired_rows=manifest.expired_rows + rows,
                ),
            )
    return rows


def outdated(manifest: Manifest, before: datetime, *, versions: Collection[int] | None = None) -> list[Segment]:
    """Return the files that `prune` would drop."""
    floor = lowest(before)
    if versions is not None:
        return [one for one in manifest.predictions if one.version in versions and one.last and one.last < floor]
    return [one for one in (*manifest.predictions, *manifest.actuals) if one.last and one.last < floor]


def check(folder: Path) -> list[Problem]:
    """Return the files that are missing, unreadable, or hold other than what the manifest says."""
    manifest, found = read_manifest(folder), []
    for one in (*manifest.all_predictions, *manifest.all_actuals):
        try:
            rows = sum(batch.num_rows for batch in pq.ParquetFile(folder / one.path).iter_batches())
        except FileNotFoundError:
            found.append(Problem(one.path, one.rows, f"{one.path} is missing; it held {one.rows} rows."))
        except (OSError, pa.ArrowException) as cause:
            _raise_passing(one.path, cause)
            found.append(Problem(one.path, one.rows, f"{one.path} cannot be read ({cause}); it held {one.rows} rows."))
        else:
            if rows != one.rows:
                found.append(Problem(one.path, one.rows, f"{one.path} holds {rows} rows, not {one.rows}."))
    return found


def repair(folder: Path) -> list[Problem]:
    """Set damaged files aside in `damaged/`, so that everything else can be read; return what was lost that way."""
    with exclusive(folder):
        problems = check(folder)
        gone = {one.path for one in problems}
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                (folder / "damaged").mkdir(exist_ok=True)
                (folder / path).rename(folder / "damaged" / Path(path).name)
        manifest = read_manifest(folder)
        if gone:
            write_manifest(
                folder,
                manifest.next(
                    predictions=tuple(one for one in manifest.predictions if one.path not in gone),
                    actuals=tuple(one for one in manifest.actuals if one.path not in gone),
                    shipping=tuple(one for one in manifest.shipping if one.path not in gone),
                    senseless_rows=manifest.senseless_rows + sum(one.rows for one in problems),
                ),
            )
    return problems


def rebuild(folder: Path, *, shipped: Collection[str] = (), clock: Clock | None = None) -> Manifest:
    """Make the manifest anew from the files that are there, for when it was lost; damaged ones are set aside.

    A file whose rows are all in another, as after a compaction that had just been made, is left out. New actuals go on
    above the highest number that is there, so that those that came before them still count.

    Args:
        shipped: files that an object store has (`Remote.rebuild`); they only wait here for their removal.
    """
    with exclusive(folder):
        predictions, replaced = _without_replaced(folder, _readable(folder, "segments"))
        truths = _readable(folder, "truths")
        gone = [*replaced, *(one for one in (*predictions, *truths) if one.path in shipped)]
        manifest = Manifest(
            tuple(one for one in predictions if one.path not in shipped),
            tuple(one for one in truths if one.path not in shipped),
            retired=tuple(_retire(gone, clock or SystemClock())),
            sequence=max((_end_of_sequence(folder / one.path) for one in truths), default=0),
            generation=1,
        )
        write_manifest(folder, manifest)
    return manifest


def merge(folder: Path, group: Sequence[Segment]) -> Segment:
    """Write one segment with the rows of all of a group; the manifest is not changed."""
    return _joined(folder, [(one, pq.ParquetFile(folder / one.path).read()) for one in group])


def _sound(folder: Path, group: Sequence[Segment]) -> list[tuple[Segment, pa.Table]]:
    """Return those of a group that can be read, with their rows."""
    found = []
    for one in group:
        try:
            found.append((one, pq.ParquetFile(folder / one.path).read()))
        except (OSError, pa.ArrowException) as cause:
            _raise_passing(one.path, cause)
            log.warning("%s is left as it is (%s). See `headrace predictions check %s`.", one.path, cause, folder.name)
    return found


def _joined(folder: Path, tables: Sequence[tuple[Segment, pa.Table]]) -> Segment:
    table = pa.concat_tables([rows for _, rows in tables])
    (first, _), *_others = tables
    rows = table.take(_order(table))
    return segment_of(folder, rows, first.version, first.day) if first.day else actuals.segment_of(folder, rows)


def groups(folder: Path, segments: Iterable[Segment]) -> list[list[Segment]]:
    """Return segments that may become one file each: of one version, day and set of columns, until full."""
    groups: dict[tuple[int, str, str], list[Segment]] = defaultdict(list)
    for one in segments:
        if is_full(one):
            groups[one.version, one.day, one.path].append(one)
            continue
        groups[one.version, one.day, _columns(folder, one)].append(one)
    return [part for group in groups.values() for part in _filled(group)]


def _columns(folder: Path, one: Segment) -> str:
    """Return what a segment's columns are; what cannot be read has none like its own."""
    try:
        return str(pq.read_schema(folder / one.path))
    except (OSError, pa.ArrowException) as cause:
        _raise_passing(one.path, cause)
        return one.path


def _filled(group: list[Segment]) -> list[list[Segment]]:
    parts: list[list[Segment]] = [[]]
    for one in sorted(group, key=lambda segment: segment.first):
        if parts[-1] and is_full(*parts[-1], one):
            parts.append([])
        parts[-1].append(one)
    return parts


def _order(table: pa.Table) -> pa.Array:
    return pc.sort_indices(storage(table["id"]))


def _retire(segments: Iterable[Segment], clock: Clock) -> list[Retired]:
    now = clock.now().timestamp()
    return [Retired(one.path, now) for one in segments]


def _remove_retired(folder: Path, manifest: Manifest, clock: Clock) -> set[str]:
    horizon = clock.now().timestamp() - GRACE_S
    old = {one.path for one in manifest.retired if one.since <= horizon}
    for path in old:
        (folder / path).unlink(missing_ok=True)
    return old


def _readable(folder: Path, kind: str) -> tuple[Segment, ...]:
    """Return what is in the files of a kind; damaged ones are set aside."""
    found = []
    for path in sorted((folder / kind).rglob("*.parquet")):
        try:
            found.append(_described(folder, path))
        except (OSError, pa.ArrowInvalid) as cause:
            _raise_passing(path.name, cause)
            (folder / "damaged").mkdir(exist_ok=True)
            path.rename(folder / "damaged" / path.name)
    return tuple(found)


def _without_replaced(folder: Path, segments: Iterable[Segment]) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Return the files that count, and those whose ids are all in one of them of the same version and day."""
    kept, replaced = list[Segment](), list[Segment]()
    for one in sorted(segments, key=lambda segment: (-segment.rows, segment.path)):
        larger = [
            other
            for other in kept
            if (other.version, other.day) == (one.version, one.day)
            and other.first <= one.first <= one.last <= other.last
        ]
        is_replaced = any(_holds_ids(folder, other, one) for other in larger)
        (replaced if is_replaced else kept).append(one)
    return tuple(sorted(kept, key=lambda segment: segment.path)), tuple(replaced)


def _holds_ids(folder: Path, whole: Segment, part: Segment) -> bool:
    known, wanted = (storage(pq.read_table(folder / one.path, columns=["id"])["id"]) for one in (whole, part))
    return bool(pc.all(pc.is_in(wanted, value_set=known)).as_py())


def _end_of_sequence(path: Path) -> int:
    """Return the number that follows the highest of a file of actuals."""
    return int(pc.max(pq.read_table(path, columns=["seq"])["seq"]).as_py() or 0) + 1


def _raise_passing(path: str, cause: Exception) -> None:
    """Raise Unavailable where not the file is at fault but what this process may or has: it must not be set aside."""
    if isinstance(cause, OSError) and cause.errno in _PASSING:
        raise Unavailable(
            f"{path} could not be looked at: {os.strerror(cause.errno)}.",
            "Try again with more open files and memory (`ulimit -n`), as the user who owns the file.",
        ) from cause


def _described(folder: Path, path: Path) -> Segment:
    ids = pq.read_table(path, columns=["id"])["id"]
    known = ids.drop_null()
    ends = pc.min_max(storage(known)) if len(known) else None
    first, last = ("", "") if ends is None else texts(_as_uuid([ends["min"].as_py(), ends["max"].as_py()]))
    parts = dict(part.partition("=")[::2] for part in path.relative_to(folder).parts if "=" in part)
    first = "" if len(known) < len(ids) else first
    relative = path.relative_to(folder).as_posix()
    return Segment(
        relative, len(ids), path.stat().st_size, first, last, int(parts.get("version", 0)), parts.get("day", "")
    )


def _as_uuid(raw: list[bytes]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(raw, pa.binary(16)))
