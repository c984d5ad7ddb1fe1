"""One consistent look at a component's predictions and actuals, journals included."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from headrace.errors import Unavailable
from headrace.predictions.actuals import pending
from headrace.predictions.journal import journals
from headrace.predictions.manifest import Manifest, Segment, read_manifest
from headrace.predictions.remote import Remote
from headrace.predictions.roll import decode_journal
from headrace.predictions.tables import Part, tables

_TRIES = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is there at one moment.

    Attributes:
        parts: predictions that are in journals still.
        actuals: actuals that are in journals still (`actuals.SCHEMA`).
        damaged_bytes: what could not be read, in segments' journals and in open ones.
        fetch: gives a local copy of a segment of the object store; None where there is no such store.
    """

    folder: Path
    manifest: Manifest
    parts: list[Part]
    actuals: pa.Table
    damaged_bytes: int
    fetch: Callable[[Segment], Path] | None = None

    def file(self, segment: Segment) -> Path:
        """Return where a segment can be read, now. Raises Unavailable where its store does not give it."""
        local = self.folder / segment.path
        return local if self.fetch is None or local.exists() else self.fetch(segment)


def take(folder: Path, remote: Remote | None = None) -> Snapshot:
    """Return a component's predictions and actuals as of now.

    The manifest is read before and after the journals: where it is the same, nothing was rolled in between, so no row
    is seen twice or not at all.

    Raises:
        Unavailable: the manifest is damaged, or changes faster than it can be read.
    """
    for _ in range(_TRIES):
        manifest = read_manifest(folder)
        parts, damaged = _journal_parts(folder, manifest)
        actuals = pending(folder, manifest.sequence, rolled=manifest.rolled)
        # After the local ones: what leaves this folder is in the store before.
        shipped = remote.segments() if remote else Manifest()
        if read_manifest(folder).generation == manifest.generation:
            whole = _merged(manifest, shipped)
            return Snapshot(
                folder, whole, parts, actuals, whole.damaged_bytes + damaged, remote.file if remote else None
            )
    raise Unavailable(f"The prediction log in {folder} changed {_TRIES} times while it was read.", "Try again.")


def _merged(local: Manifest, shipped: Manifest) -> Manifest:
    """Return the segments of this folder and of the store, each once."""
    predictions = {one.path: one for one in (*shipped.predictions, *local.all_predictions)}
    actuals = {one.path: one for one in (*shipped.actuals, *local.all_actuals)}
    return replace(
        local,
        predictions=tuple(predictions.values()),
        actuals=tuple(actuals.values()),
        shipping=(),
        damaged_bytes=local.damaged_bytes + shipped.damaged_bytes,
        senseless_rows=local.senseless_rows + shipped.senseless_rows,
    )


def _journal_parts(folder: Path, manifest: Manifest) -> tuple[list[Part], int]:
    batches, damaged = [], 0
    for path in journals(folder / "journals"):
        if path.name not in manifest.rolled:
            with contextlib.suppress(FileNotFoundError):
                decoded = decode_journal(_read(path))
                batches += decoded.batches
                damaged += decoded.damaged_bytes
    return tables(batches).parts, damaged


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        with os.fdopen(os.dup(file), "rb") as reader:
            return reader.read()
    finally:
        os.close(file)
