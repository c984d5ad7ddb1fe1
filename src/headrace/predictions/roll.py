"""Rolling: ownerless journals become Parquet segments. `tend` does it while a component serves."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from headrace.files import sync_folder, write_atomically
from headrace.predictions.batch import UNFIT, Batch, Decoded, decode, encode
from headrace.predictions.journal import claim, frame_of, journals, read_frames
from headrace.predictions.manifest import Segment, begun, exclusive, new_path, read_manifest, write_manifest
from headrace.predictions.tables import Part, tables, texts, write_parquet

log = logging.getLogger(__name__)


def decode_journal(raw: bytes) -> Decoded:
    """Return what a journal's bytes hold."""
    content = read_frames(raw)
    batches: list[Batch] = []
    damaged = content.damaged_bytes
    for frame in content.frames:
        decoded = decode(frame)
        batches += decoded.batches
        damaged += decoded.damaged_bytes
    return Decoded(batches, damaged)


def roll(folder: Path) -> int:
    """Turn a component's ownerless journals into segments, and return how many rows that were.

    A crash at any point repeats or finishes the work the next time; rows are neither lost nor doubled.
    """
    rows = 0
    with exclusive(folder):
        _sweep(folder)
        for path in journals(folder / "journals"):
            owned = claim(path)
            if owned is None:
                continue
            try:
                rows += _roll_one(folder, path, owned)
            finally:
                os.close(owned)
    return rows


def segment_of(folder: Path, table: pa.Table, version: int, day: str) -> Segment:
    """Write a table, sorted by id, as a new segment file that nobody sees until a manifest names it."""
    path = new_path("segments", version=version, day=day)
    size = write_parquet(table, folder / path)
    first, last = texts(table["id"].take(pa.array([0, table.num_rows - 1])))
    return Segment(path, table.num_rows, size, first, last, version, day)


def _roll_one(folder: Path, path: Path, owned: int) -> int:
    if not os.fstat(owned).st_size:
        # Its writer may be about to lock it, and will begin it anew: the name must not count as rolled.
        path.unlink()
        return 0
    with os.fdopen(os.dup(owned), "rb") as file:
        decoded = decode_journal(file.read())
    found = tables(decoded.batches)
    segments, refused = [], list(found.refused)
    for part in found.parts:
        try:
            segments.append(segment_of(folder, part.table, part.version, part.day))
        except UNFIT as cause:
            log.warning("%s has rows of version %d that Parquet does not take: %s", path, part.version, cause)
            refused += _batches_of(part, decoded.batches)
    _set_aside(folder, path.name, refused)
    manifest = read_manifest(folder)
    write_manifest(
        folder,
        manifest.next(
            predictions=(*manifest.predictions, *segments),
            rolled=(*manifest.rolled, path.name),
            damaged_bytes=manifest.damaged_bytes + decoded.damaged_bytes,
            senseless_rows=manifest.senseless_rows + sum(len(batch.ids) for batch in refused),
        ),
    )
    path.unlink()
    return sum(segment.rows for segment in segments)


def _batches_of(part: Part, batches: Iterable[Batch]) -> list[Batch]:
    known = set(texts(part.table["id"]))
    return [batch for batch in batches if batch.ids and batch.ids[0] in known]


def _set_aside(folder: Path, name: str, batches: list[Batch]) -> None:
    """Keep what no column takes as a journal in `damaged/`, where it stops nobody and can be looked at."""
    if batches:
        rows = sum(len(batch.ids) for batch in batches)
        log.warning("%d rows of %s cannot be kept as columns; they are set aside in %s", rows, name, folder / "damaged")
        write_atomically(folder / "damaged" / name, frame_of(encode(batches)))


def _sweep(folder: Path) -> None:
    """Finish what a crash left: remove journals that are rolled and files that no manifest names."""
    manifest = begun(folder)
    if manifest.rolled:
        for place in (folder / "journals", folder / "actuals"):
            for name in manifest.rolled:
                (place / name).unlink(missing_ok=True)
            if place.is_dir():
                sync_folder(place)  # Or a power cut could bring back a file whose name is forgotten.
        write_manifest(folder, manifest.next(rolled=()))
    named = manifest.paths
    for path in (*(folder / "segments").rglob("*.*"), *(folder / "truths").glob("*.*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in named:
            path.unlink()
