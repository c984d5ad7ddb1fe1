"""One consistent look at a component's predictions and actuals, journals included."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headrace.errors import Unavailable
from headrace.predictions.actuals import pending
from headrace.predictions.journal import journals
from headrace.predictions.manifest import Manifest, read_manifest
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
    """

    folder: Path
    manifest: Manifest
    parts: list[Part]
    actuals: pa.Table
    damaged_bytes: int

    @property
    def truth_files(self) -> list[str]:
        """Return the actuals' Parquet files."""
        return [str(self.folder / segment.path) for segment in self.manifest.actuals]


def take(folder: Path) -> Snapshot:
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
        if read_manifest(folder).generation == manifest.generation:
            return Snapshot(folder, manifest, parts, actuals, manifest.damaged_bytes + damaged)
    raise Unavailable(f"The prediction log in {folder} changed {_TRIES} times while it was read.", "Try again.")


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
