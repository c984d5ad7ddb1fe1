"""The actuals of one component: an append-only table of its own, durable before it is acknowledged."""

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.clock import Clock, SystemClock
from headrace.errors import InvalidInput, Unavailable
from headrace.predictions.depth import DEEPEST, is_too_deep
from headrace.predictions.ids import Ids
from headrace.predictions.journal import SUFFIX, Journal, journals, read_frames
from headrace.predictions.manifest import Segment, begun, exclusive, new_path, rolled_names, write_manifest
from headrace.predictions.tables import storage, texts, write_parquet
from headrace.types import Actual, Json

FOLDER = "actuals"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.uuid(), metadata={b"note": b"null where the given id is no UUID"}),
        pa.field("given_id", pa.string()),
        pa.field("value", pa.string(), metadata={b"note": b"as JSON"}),
        pa.field("number", pa.float64(), metadata={b"note": b"null where the value is no number"}),
        pa.field("text", pa.string()),
        pa.field("dated_at", pa.timestamp("us")),
        pa.field("received", pa.timestamp("us")),
        pa.field("seq", pa.int64(), metadata={b"note": b"order of arrival"}),
    ]
)


class Record(msgspec.Struct, array_like=True, gc=False):
    """One actual as the journal keeps it; times are seconds since 1970."""

    id: str
    value: Any
    at: float
    received: float


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Record])


def append(folder: Path, actuals: Sequence[Actual], *, clock: Clock | None = None) -> None:
    """Keep actuals of the component in `folder`; on disk when this returns.

    Raises:
        InvalidInput: a value has no place, such as an integer beyond 64 bits, or is nested deeper than 32 levels; none
            of the actuals was kept.
        Unavailable: the disk is full or broken; none of the actuals was kept.
    """
    if not actuals:
        return
    if any(is_too_deep(one.value) for one in actuals):
        raise InvalidInput(
            f"An actual cannot be kept: it is nested deeper than {DEEPEST} levels.",
            "Send the value that the model answers with; none of the actuals was kept.",
        )
    clock = clock or SystemClock()
    now = clock.now().timestamp()
    try:
        payload = _ENCODER.encode([Record(one.prediction_id, one.value, one.at.timestamp(), now) for one in actuals])
    except (OverflowError, TypeError, ValueError) as cause:
        raise InvalidInput(
            f"An actual cannot be kept: {cause}.", "Send a larger integer as text; none of the actuals was kept."
        ) from cause
    try:
        with _one_writer(folder):
            journal = Journal(_open_journal(folder, clock))
            try:
                journal.append(payload, sync=True)
            finally:
                journal.close()
    except OSError as cause:
        raise Unavailable(
            f"{len(actuals)} actuals could not be written to {folder / FOLDER}: {cause.strerror or cause}.",
            "Make room on the disk (`headrace predictions prune NAME`) and send them again; none of them was kept.",
        ) from cause


def _open_journal(folder: Path, clock: Clock) -> Path:
    """Return the journal to go on with. One that is rolled already is only waiting for its removal."""
    rolled = rolled_names(folder)
    present = [path for path in journals(folder / FOLDER) if path.name not in rolled]
    return present[-1] if present else folder / FOLDER / f"{Ids(clock).new()}{SUFFIX}"


def pending(folder: Path, first_sequence: int, *, rolled: Sequence[str] = ()) -> pa.Table:
    """Return the actuals that are in journals still, numbered from `first_sequence` in order of arrival."""
    records: list[Record] = []
    for path in journals(folder / FOLDER):
        if path.name not in rolled:
            with contextlib.suppress(FileNotFoundError):
                records += _decoded(path.read_bytes()).records
    return _table(records, first_sequence)


def roll_actuals(folder: Path) -> int:
    """Turn the actuals' journals into one Parquet segment, and return its rows. Appending waits meanwhile."""
    with exclusive(folder), _one_writer(folder):
        manifest = begun(folder)
        names = [path.name for path in journals(folder / FOLDER)]
        table = pending(folder, manifest.sequence, rolled=manifest.rolled)
        if names:
            made = [segment_of(folder, table.take(pc.sort_indices(storage(table["id"]))))] if table.num_rows else []
            damaged = manifest.damaged_bytes + _damaged_bytes(folder, set(names) - set(manifest.rolled))
            write_manifest(
                folder,
                manifest.next(
                    actuals=(*manifest.actuals, *made),
                    sequence=manifest.sequence + table.num_rows,
                    rolled=(*manifest.rolled, *names),
                    damaged_bytes=damaged,
                ),
            )
        for name in names:
            (folder / FOLDER / name).unlink()
        return int(table.num_rows)


def _damaged_bytes(folder: Path, names: Iterable[str]) -> int:
    return sum(_decoded((folder / FOLDER / name).read_bytes()).damaged_bytes for name in names)


def segment_of(folder: Path, table: pa.Table) -> Segment:
    """Write actuals, sorted by id, as a new segment file that nobody sees until a manifest names it."""
    path = new_path("truths")
    size = write_parquet(table, folder / path)
    known = table["id"].drop_null()
    first, last = texts(known.take(pa.array([0, len(known) - 1]))) if len(known) else ("", "")
    # An actual without a usable id has to be found by every reader, so its segment reaches down to the lowest id.
    return Segment(path, table.num_rows, size, "" if known.null_count or len(known) < table.num_rows else first, last)


@dataclass(frozen=True, slots=True)
class _Decoded:
    records: list[Record]
    damaged_bytes: int


def _decoded(raw: bytes) -> _Decoded:
    """Return what a journal's bytes hold. What no reader takes costs the others of its frame only on a full stack."""
    content = read_frames(raw)
    records, damaged = list[Record](), content.damaged_bytes
    for frame in content.frames:
        try:
            found = _DECODER.decode(frame)
            damaged += sum(len(_ENCODER.encode(one)) for one in found if is_too_deep(one.value))
        except (msgspec.MsgspecError, RecursionError):
            damaged += len(frame)
            continue
        records += (one for one in found if not is_too_deep(one.value))
    return _Decoded(records, damaged)


def _table(records: list[Record], first_sequence: int) -> pa.Table:
    ids = pa.array([_raw(record.id) for record in records], pa.binary(16))
    columns = [
        pa.ExtensionArray.from_storage(pa.uuid(), ids),
        pa.array([record.id for record in records], pa.string()),
        pa.array([json.dumps(record.value) for record in records], pa.string()),
        pa.array([_number(record.value) for record in records], pa.float64()),
        pa.array([_text(record.value) for record in records], pa.string()),
        pa.array([round(record.at * 1e6) for record in records], pa.timestamp("us")),
        pa.array([round(record.received * 1e6) for record in records], pa.timestamp("us")),
        pa.array(np.arange(first_sequence, first_sequence + len(records), dtype=np.int64)),
    ]
    return pa.table(columns, schema=SCHEMA)


def _raw(text: str) -> bytes | None:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        return None


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, bool | int | float) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None if value is None else json.dumps(value)


@contextlib.contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    file = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
