"""Batches of predictions as Arrow tables and back. Columns: the fixed ones, `in_<field>` and `out_<field>`."""

import json
import os
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.files import sync_folder
from headrace.predictions.batch import UNFIT, Batch, deep_column, moment
from headrace.predictions.depth import flat_json
from headrace.types import Json, Prediction

INPUT, OUTPUT = "in_", "out_"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Marks a column whose values are of mixed kinds and are kept as JSON texts.
_JSON = {b"json": b"1"}
#: Rows that a reader of a Parquet file takes at least.
GROUP_ROWS = 100_000


def uuids(ids: Iterable[str]) -> pa.Array:
    """Return ids as an Arrow UUID column. Raises ValueError where one is none."""
    known = list(ids)
    raw = bytes.fromhex("".join(known).replace("-", ""))
    if len(raw) != 16 * len(known):
        raise ValueError("an id is no UUID")
    return pa.ExtensionArray.from_storage(
        pa.uuid(), pa.Array.from_buffers(pa.binary(16), len(known), [None, pa.py_buffer(raw)])
    )


def texts(column: pa.ChunkedArray | pa.Array) -> list[str]:
    """Return a UUID column as texts."""
    return [str(value) for value in column.to_pylist()]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one version, day and set of columns, sorted by id."""

    version: int
    day: str
    table: pa.Table


@dataclass(frozen=True, slots=True)
class Parts:
    """Batches as tables, and those that make none (columns of unequal length, ids that are none, strange values)."""

    parts: list[Part]
    refused: list[Batch]


def tables(batches: Sequence[Batch]) -> Parts:
    """Return batches as tables by version, day and set of columns."""
    groups: dict[tuple[int, str, tuple[object, ...]], list[Batch]] = defaultdict(list)
    refused: list[Batch] = []
    for batch in batches:
        if not batch.ids:
            continue
        if _is_sensible(batch):
            groups[batch.version, f"{moment(batch.at):%Y-%m-%d}", _kinds(batch)].append(batch)
        else:
            refused.append(batch)
    parts = []
    for (version, day, _), members in groups.items():
        table = _fitting(members, refused)
        if table is not None:
            parts.append(Part(version, day, table.take(_order(table["id"]))))
    return Parts(parts, refused)


def storage(column: pa.ChunkedArray) -> pa.Array:
    """Return a UUID column as 16 bytes each, which sort like the texts."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.storage if isinstance(whole, pa.ExtensionArray) else whole


def raw_id(text: str) -> bytes:
    """Return an id's 16 bytes. Raises ValueError where it is none."""
    return uuid.UUID(text).bytes


def predictions(table: pa.Table, component: str) -> list[Prediction]:
    """Return a table's rows as values."""
    inputs = {name.removeprefix(INPUT): _values(table, name) for name in table.column_names if name.startswith(INPUT)}
    outputs = {
        name.removeprefix(OUTPUT): _values(table, name) for name in table.column_names if name.startswith(OUTPUT)
    }
    fixed = [table[name].to_pylist() for name in ("id", "made_at", "version", "latency_ms", "shadow")]
    return [
        Prediction(
            id=str(identity),
            component=component,
            version=version,
            at=at.replace(tzinfo=UTC),
            inputs={name: values[row] for name, values in inputs.items()},
            output=_output({name: values[row] for name, values in outputs.items()}),
            latency_ms=latency,
            shadow=shadow,
        )
        for row, (identity, at, version, latency, shadow) in enumerate(zip(*fixed, strict=True))
    ]


def write_parquet(table: pa.Table, path: Path) -> int:
    """Write a table so that it is there whole or not at all, and return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=GROUP_ROWS, **_encodings(table.schema))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path.stat().st_size


def _output(values: dict[str, Json]) -> Json:
    return values[""] if set(values) == {""} else values


def _encodings(schema: pa.Schema) -> dict[str, list[str]]:
    """Return what columns are written with a dictionary, and which byte by byte.

    A dictionary of values that hardly come twice costs two thirds of the writing and is thrown away. So ids go without,
    and the numbers of tensors and latencies go byte by byte, which packs measured values best.
    """
    listed, split = [], []
    for field in schema:
        is_measured = pa.types.is_fixed_size_list(field.type) or field.name == "latency_ms"
        for path, kind in _leaves(field.name, field.type):
            if is_measured and pa.types.is_floating(kind):
                split.append(path)
            elif field.name != "id":
                listed.append(path)
    return {"use_dictionary": listed, "use_byte_stream_split": split}


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the paths and types of the columns that Parquet makes of one of Arrow's."""
    if pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            yield from _leaves(f"{path}.{kind.field(place).name}", kind.field(place).type)
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind


def _order(column: pa.ChunkedArray) -> pa.Array:
    return pc.sort_indices(storage(column))


def _is_sensible(batch: Batch) -> bool:
    rows = len(batch.ids)
    columns = (*batch.inputs.values(), *batch.outputs.values())
    lengths = {len(column) for column in columns}
    if isinstance(batch.latency_ms, list):
        lengths.add(len(batch.latency_ms))
    try:
        moment(batch.at)
    except (ValueError, OverflowError, OSError):  # A year that no calendar has.
        return False
    if not (lengths <= {rows} and all(_UUID.fullmatch(identity) for identity in batch.ids)):
        return False
    return deep_column(batch) is None


def _fitting(batches: list[Batch], refused: list[Batch]) -> pa.Table | None:
    """Return the table of those batches that make one; the others go to `refused`. None where none does."""
    try:
        return _table(batches)
    except UNFIT:
        if len(batches) == 1:
            refused += batches
            return None
    good: list[Batch] = []
    for batch in batches:
        good += [batch] if _fitting([batch], refused) is not None else []
    try:
        return _table(good) if good else None
    except UNFIT:  # Each is one alone, but not together.
        refused += good
        return None


def _kinds(batch: Batch) -> tuple[object, ...]:
    return tuple(
        (prefix, name, column.dtype.str, column.shape[1:]) if isinstance(column, np.ndarray) else (prefix, name)
        for prefix, columns in ((INPUT, batch.inputs), (OUTPUT, batch.outputs))
        for name, column in sorted(columns.items())
    )


def _table(batches: list[Batch]) -> pa.Table:
    sizes = [len(batch.ids) for batch in batches]
    rows = sum(sizes)
    at = np.repeat(np.array([round(batch.at * 1e6) for batch in batches], np.int64), sizes)
    latencies = [
        batch.latency_ms if isinstance(batch.latency_ms, list) else [batch.latency_ms] * size
        for batch, size in zip(batches, sizes, strict=True)
    ]
    columns: dict[str, tuple[pa.Array, dict[bytes, bytes]]] = {
        "id": (uuids(identity for batch in batches for identity in batch.ids), {}),
        "made_at": (pa.array(at, pa.timestamp("us")), {}),
        "version": (pa.array(np.full(rows, batches[0].version, np.int32)), {}),
        "latency_ms": (pa.array([value for values in latencies for value in values], pa.float32()), {}),
        "shadow": (pa.array(np.repeat(np.array([batch.shadow for batch in batches], bool), sizes)), {}),
    }
    for name in batches[0].inputs:
        columns[INPUT + name] = _column([batch.inputs[name] for batch in batches])
    for name in batches[0].outputs:
        columns[OUTPUT + name] = _column([batch.outputs[name] for batch in batches])
    fields = [pa.field(name, array.type, metadata=marks or None) for name, (array, marks) in columns.items()]
    return pa.table([array for array, _ in columns.values()], schema=pa.schema(fields))


def _column(parts: list[Any]) -> tuple[pa.Array, dict[bytes, bytes]]:
    if isinstance(parts[0], np.ndarray):
        whole = _storable(np.concatenate(parts))
        if whole.ndim == 1:
            return pa.array(whole), {}
        width = int(np.prod(whole.shape[1:]))
        if width:
            marks = {b"shape": ",".join(map(str, whole.shape[1:])).encode()}
            return pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), width), marks
        parts = [[[] for _ in whole]]
    values = [_flat(value) for part in parts for value in part]
    try:
        array = pa.array(values)
        if not _is_childless(array.type):
            return array, {}
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # Mixed kinds, or integers beyond 64 bits with a sign.
        pass
    return pa.array([json.dumps(value) for value in values]), _JSON


def _storable(whole: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return an array in a type that Arrow, Parquet and DuckDB know: native order, 32 bits and more, known units."""
    if whole.dtype.kind == "f" and whole.dtype.itemsize not in (4, 8):
        return whole.astype(np.float32 if whole.dtype.itemsize == 2 else np.float64)
    if whole.dtype.kind == "M" and np.datetime_data(whole.dtype)[0] not in ("D", "s", "ms", "us", "ns"):
        return whole.astype("datetime64[s]")
    return whole.astype(whole.dtype.newbyteorder("="), copy=False)


def _is_childless(kind: pa.DataType) -> bool:
    """Tell whether there is a struct without fields in a type, for which Parquet has no column."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return True
    return any(_is_childless(kind.field(place).type) for place in range(kind.num_fields))


def _flat(value: Any) -> Any:
    """Return nested lists of numbers as one list; anything else as it is."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [_flat(inner) for part in value for inner in (_flat(part) if isinstance(part, list) else [part])]
    return value


def _values(table: pa.Table, name: str) -> list[Any]:
    values = table[name].to_pylist()
    if (table.schema.field(name).metadata or {}).get(b"json"):
        return [None if value is None else flat_json(value) for value in values]
    return [str(value) if isinstance(value, uuid.UUID) else value for value in values]
