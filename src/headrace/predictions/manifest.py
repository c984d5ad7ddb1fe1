"""The manifest: which Parquet files of a component count. Replaced whole, so nobody sees a change half done.

Readers open the journals first and read the manifest second; whatever was rolled in between is then in both, and the
manifest says to skip the journal. Files that no longer count stay for a while, for readers that still use them.
"""

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import Unavailable
from headrace.files import write_atomically

NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file.

    Attributes:
        path: relative to the component's folder.
        first: the lowest prediction id in it; `last` the highest.
        version: of predictions; 0 for actuals.
        day: of predictions, in UTC (`2026-11-21`); empty for actuals.
    """

    path: str
    rows: int
    bytes: int
    first: str
    last: str
    version: int = 0
    day: str = ""


@dataclass(frozen=True, slots=True)
class Retired:
    """A file that no longer counts, and since when (seconds since 1970)."""

    path: str
    since: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What counts.

    Attributes:
        rolled: names of journals whose rows are in the segments and whose files may still be there.
        damaged_bytes: what could not be read from journals when they were rolled, ever.
        senseless_rows: rows in whole frames that could not be rows, ever.
        sequence: the number of the next actual to be rolled.
        expired_rows: rows that retention took, ever.
        shipping: files on their way into an object store (`remote`), of predictions and, without a day, of actuals.
    """

    predictions: tuple[Segment, ...] = ()
    actuals: tuple[Segment, ...] = ()
    rolled: tuple[str, ...] = ()
    retired: tuple[Retired, ...] = ()
    damaged_bytes: int = 0
    sequence: int = 0
    senseless_rows: int = 0
    expired_rows: int = 0
    generation: int = 0
    shipping: tuple[Segment, ...] = ()

    @property
    def all_predictions(self) -> tuple[Segment, ...]:
        """Return the files of predictions, those that are on their way into an object store included."""
        return (*self.predictions, *(one for one in self.shipping if one.day))

    @property
    def all_actuals(self) -> tuple[Segment, ...]:
        """Return the files of actuals, those that are on their way into an object store included."""
        return (*self.actuals, *(one for one in self.shipping if not one.day))

    @property
    def paths(self) -> set[str]:
        """Return all files that are named, those that no longer count included."""
        return {one.path for one in (*self.all_predictions, *self.all_actuals)} | {one.path for one in self.retired}

    def next(self, **changes: object) -> "Manifest":
        """Return the manifest that follows this one."""
        return replace(self, generation=self.generation + 1, **changes)  # type: ignore[arg-type]


def read_manifest(folder: Path) -> Manifest:
    """Return a component's manifest; an empty one where nothing was rolled yet.

    Raises:
        Unavailable: the file cannot be understood, or is gone while there are segments.
    """
    path = folder / NAME
    remedy = f"Restore it from a backup, or run `headrace predictions rebuild {folder.name}`."
    try:
        return manifest_of(json.loads(path.read_bytes()))
    except FileNotFoundError as cause:
        # In this order: `begun` writes it before the first segment.
        if _has_segments(folder) and not path.exists():
            raise Unavailable(f"The prediction log's manifest {path} is missing.", remedy) from cause
        return Manifest()
    except (ValueError, LookupError, TypeError, AttributeError) as cause:
        raise Unavailable(f"The prediction log's manifest {path} is damaged ({cause}).", remedy) from cause


def begun(folder: Path) -> Manifest:
    """Return a component's manifest, and begin it where there is none: segments without one are those of a lost one."""
    manifest = read_manifest(folder)
    if not (folder / NAME).exists():
        write_manifest(folder, manifest)
    return manifest


def _has_segments(folder: Path) -> bool:
    return any(any((folder / kind).rglob("*.parquet")) for kind in ("segments", "truths"))


def manifest_of(document: dict[str, Any]) -> Manifest:
    """Return a manifest from its JSON."""
    for name in ("predictions", "actuals", "shipping"):
        document[name] = tuple(Segment(**segment) for segment in document.get(name, ()))
    document["retired"] = tuple(Retired(**entry) for entry in document["retired"])
    document["rolled"] = tuple(document["rolled"])
    return Manifest(**document)


def rolled_names(folder: Path) -> tuple[str, ...]:
    """Return `Manifest.rolled` without reading the rest; nothing where there is no manifest or it is damaged."""
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=_Rolled).rolled
    except (FileNotFoundError, msgspec.MsgspecError):
        return ()


class _Rolled(msgspec.Struct):
    rolled: tuple[str, ...] = ()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace a component's manifest. Only the holder of `exclusive` may."""
    write_atomically(folder / NAME, json.dumps(asdict(manifest), indent=1))


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the right to change a component's manifest and segments; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def new_path(kind: str, *, version: int = 0, day: datetime | str = "") -> str:
    """Return a fresh path for a segment, relative to the component's folder."""
    text = day if isinstance(day, str) else f"{day:%Y-%m-%d}"
    parts = [kind, f"version={version}", f"day={text}"] if text else [kind]
    return "/".join([*parts, f"{uuid.uuid4().hex}.parquet"])
