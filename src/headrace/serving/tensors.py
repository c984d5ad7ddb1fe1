"""Tensors of the Open Inference Protocol: datatypes, JSON and binary data, and how they fit a signature."""

import math
import struct
from typing import Any

import msgspec
import numpy as np

from headrace.serving.rejection import UNFIT, Rejected
from headrace.serving.schema import number_type
from headrace.types import Field, FieldKind

DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "object",
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
COLUMNS = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
    "binary": "BYTES", "datetime": "BYTES",
}  # fmt: skip
LENGTH = struct.Struct("<I")
Array = np.ndarray[Any, Any]


def datatype_of(field: Field) -> str:
    """Return the protocol's name of a field's type."""
    if field.kind is FieldKind.COLUMN:
        return COLUMNS.get(field.dtype, "BYTES")
    return NAMES.get(field.dtype, "BYTES")


def shape_of(field: Field) -> list[int]:
    """Return a field's shape, -1 where free."""
    return [-1] if field.kind is FieldKind.COLUMN else [-1, *field.shape[1:]]


def from_json(data: bytes, datatype: str, shape: list[int], place: str) -> Array:
    """Return a tensor's `data`, flat or nested. Raises Rejected."""
    kind: Any = str if datatype == "BYTES" else number_type(DATATYPES[datatype])
    listed: Any = list
    try:
        flat = msgspec.json.decode(data, type=listed[kind])
    except msgspec.ValidationError:
        try:
            flat = msgspec.convert(_flat(msgspec.json.decode(data)), listed[kind])
        except msgspec.ValidationError as cause:
            raise Rejected(UNFIT, f"The values at `{place}.data` do not fit {datatype}.") from cause
    _check_count(len(flat), shape, place)
    return np.array(flat, dtype=DATATYPES[datatype]).reshape(shape)


def from_bytes(raw: bytes, datatype: str, shape: list[int], place: str) -> Array:
    """Return a binary tensor. Raises Rejected."""
    if datatype == "BYTES":
        texts = _split(raw, place)
        _check_count(len(texts), shape, place)
        found = np.empty(len(texts), object)
        found[:] = texts
        return found.reshape(shape)
    dtype = np.dtype(DATATYPES[datatype])
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise Rejected(UNFIT, f"`{place}` has {len(raw)} bytes; its shape and datatype need {expected}.")
    return np.frombuffer(raw, dtype).reshape(shape)


def to_json(values: Array) -> list[Any]:
    """Return a tensor's flat `data`."""
    flat: list[Any] = values.ravel().tolist()
    if values.dtype == object:
        return [value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in flat]
    return flat


def to_bytes(values: Array) -> bytes:
    """Return a tensor as the binary extension has it."""
    if values.dtype != object:
        return values.tobytes()
    parts = [text.encode() for text in to_json(values)]
    return b"".join(LENGTH.pack(len(part)) + part for part in parts)


def fit(values: Array, field: Field, place: str) -> Array:
    """Return a tensor in the field's dtype and shape. Raises Rejected where it would change the values."""
    if field.kind is FieldKind.COLUMN:
        return _fit_column(values, field, place)
    expected = field.shape[1:]
    if values.ndim != len(field.shape) or any(
        -1 != want != got for want, got in zip(expected, values.shape[1:], strict=True)
    ):
        raise Rejected(UNFIT, f"`{place}` has shape {list(values.shape)}; the model takes {shape_of(field)}.")
    if values.dtype == object:
        return np.array([_text(value, place) for value in values.ravel().tolist()], object).reshape(values.shape)
    return _cast(values, np.dtype(field.dtype), place)


def _fit_column(values: Array, field: Field, place: str) -> Array:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise Rejected(UNFIT, f"`{place}` has shape {list(values.shape)}; a column has one value per row.")
    datatype = COLUMNS.get(field.dtype, "BYTES")
    if datatype == "BYTES":
        if values.dtype != object:
            raise Rejected(UNFIT, f"`{place}` is numeric; the model takes BYTES.")
        if field.dtype == "binary":
            return np.array([value.encode() if isinstance(value, str) else value for value in values.tolist()], object)
        texts = [_text(value, place) for value in values.tolist()]
        if field.dtype == "datetime":
            try:
                return np.array(texts, dtype="datetime64[ns]")
            except ValueError as cause:
                raise Rejected(UNFIT, f"`{place}` holds a text that is no ISO 8601 moment.") from cause
        return np.array(texts, object)
    return _cast(values, np.dtype(DATATYPES[datatype]), place)


def _cast(values: Array, dtype: "np.dtype[Any]", place: str) -> Array:
    if values.dtype == dtype:
        return values
    if values.dtype == object or not np.can_cast(values.dtype, dtype, "same_kind"):
        raise Rejected(
            UNFIT, f"`{place}` is {NAMES.get(str(values.dtype), 'BYTES')}; the model takes {NAMES[str(dtype)]}."
        )
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    is_whole = dtype.kind in "iu"
    if (is_whole and not np.array_equal(found, values)) or (
        not is_whole and np.isinf(found).sum() > np.isinf(values).sum()
    ):
        raise Rejected(UNFIT, f"A value in `{place}` does not fit {NAMES[str(dtype)]}.")
    return found


def _text(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as cause:
        raise Rejected(UNFIT, f"`{place}` holds a text that is not UTF-8.") from cause


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    found: list[Any] = []
    waiting = [iter(data)]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, list):
                waiting.append(iter(item))
                break
            found.append(item)
        else:
            waiting.pop()
    return found


def _split(raw: bytes, place: str) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        end = at + LENGTH.size + (LENGTH.unpack_from(raw, at)[0] if at + LENGTH.size <= len(raw) else len(raw))
        if end > len(raw):
            raise Rejected(UNFIT, f"`{place}` ends in the middle of an element.")
        found.append(raw[at + LENGTH.size : end])
        at = end
    return found


def _check_count(count: int, shape: list[int], place: str) -> None:
    if count != math.prod(shape):
        raise Rejected(UNFIT, f"`{place}` has {count} values; its shape {shape[:8]} needs {math.prod(shape)}.")
