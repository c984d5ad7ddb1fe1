"""Tensors of the Open Inference Protocol: datatypes, JSON and binary data, and how they fit a signature."""

import math
import re
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np

from headrace.serving.layout import TEXTS
from headrace.serving.rejection import UNFIT, Rejected
from headrace.serving.schema import nanoseconds, number_type
from headrace.serving.scoring import decode_json
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
OPENING = re.compile(rb"[\[\s]*")
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
    depth = _depth(data)
    if depth > len(shape) + 1:
        raise Rejected(UNFIT, f"The values at `{place}.data` are nested deeper than the tensor.")
    values = decode_json(partial(_values, datatype=datatype, depth=depth, place=place), data)
    for _ in range(1, depth):
        values = chain.from_iterable(values)
    flat = list(values) if depth else [values]
    _check_count(len(flat), shape, place)
    try:
        return _shaped(np.array(flat, dtype=DATATYPES[datatype]), shape, place)
    except OverflowError as cause:
        raise Rejected(UNFIT, f"A value in `{place}` does not fit {datatype}.") from cause


def from_bytes(raw: bytes, datatype: str, shape: list[int], place: str) -> Array:
    """Return a binary tensor. Raises Rejected."""
    if datatype == "BYTES":
        texts = _split(raw, math.prod(shape), place)
        if len(texts) > math.prod(shape):
            raise Rejected(UNFIT, f"`{place}` has more than {math.prod(shape)} values; its shape is {shape[:8]}.")
        _check_count(len(texts), shape, place)
        found = np.empty(len(texts), object)
        found[:] = texts
        return _shaped(found, shape, place)
    dtype = np.dtype(DATATYPES[datatype])
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise Rejected(UNFIT, f"`{place}` has {len(raw)} bytes; its shape and datatype need {expected}.")
    return _shaped(np.frombuffer(raw, dtype), shape, place)


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


def check_shape(shape: list[int], field: Field, place: str) -> None:
    """Refuse a shape that the field does not have, before its values are read. Raises Rejected."""
    if field.kind is FieldKind.COLUMN:
        # A column may come as one of width 1.
        if shape[1:] not in ([], [1]):
            raise Rejected(UNFIT, f"`{place}` has {_shown(shape)}; a column has one value per row.")
        return
    if len(shape) != len(field.shape) or any(
        -1 != want != got for want, got in zip(field.shape[1:], shape[1:], strict=True)
    ):
        raise Rejected(UNFIT, f"`{place}` has {_shown(shape)}; the model takes {shape_of(field)}.")


def _shown(shape: list[int]) -> str:
    return f"shape {shape}" if len(shape) <= 8 else f"{len(shape)} dimensions"


def fit(values: Array, field: Field, place: str) -> Array:
    """Return a tensor of the field's shape in its dtype. Raises Rejected where it would change the values."""
    if field.kind is FieldKind.COLUMN:
        return _fit_column(values.ravel(), field, place)
    if field.dtype in TEXTS:
        texts = _texts(values, place)
        found = np.empty(len(texts), object)
        found[:] = texts
        return found.reshape(values.shape)
    return _cast(values, np.dtype(field.dtype), place)


def _fit_column(values: Array, field: Field, place: str) -> Array:
    datatype = COLUMNS.get(field.dtype, "BYTES")
    if datatype != "BYTES":
        return _cast(values, np.dtype(DATATYPES[datatype]), place)
    if field.dtype == "binary" and values.dtype == object:
        return np.array([value.encode() if isinstance(value, str) else value for value in values.tolist()], object)
    texts = _texts(values, place)
    if field.dtype == "datetime":
        return np.array([nanoseconds(text) for text in texts], "int64").view("datetime64[ns]")
    return np.array(texts, object)


def _texts(values: Array, place: str) -> list[str]:
    if values.dtype != object:
        raise Rejected(UNFIT, f"`{place}` is {NAMES[str(values.dtype)]}; the model takes BYTES.")
    return [_text(value, place) for value in values.ravel().tolist()]


def _cast(values: Array, dtype: "np.dtype[Any]", place: str) -> Array:
    if values.dtype == dtype:
        return values
    takes = NAMES.get(str(dtype), str(dtype))
    if values.dtype == object or not np.can_cast(values.dtype, dtype, "same_kind"):
        raise Rejected(UNFIT, f"`{place}` is {NAMES[str(values.dtype)]}; the model takes {takes}.")
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    is_whole = dtype.kind in "iu"
    if (is_whole and not np.array_equal(found, values)) or (
        not is_whole and np.isinf(found).sum() > np.isinf(values).sum()
    ):
        raise Rejected(UNFIT, f"A value in `{place}` does not fit {takes}.")
    return found


def _text(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as cause:
        raise Rejected(UNFIT, f"`{place}` holds a text that is not UTF-8.") from cause


def _depth(data: bytes) -> int:
    """Return how deep the first value of JSON lies in lists."""
    opening = OPENING.match(data)
    return opening.group().count(b"[") if opening else 0


def _values(data: bytes, *, datatype: str, depth: int, place: str) -> Any:
    try:
        return _decoder(datatype, depth)(data)
    except msgspec.ValidationError as cause:
        raise Rejected(UNFIT, f"The values at `{place}.data` do not fit {datatype}.") from cause


@lru_cache(256)
def _decoder(datatype: str, depth: int) -> Callable[[bytes], Any]:
    kind: Any = str if datatype == "BYTES" else number_type(DATATYPES[datatype])
    listed: Any = list
    for level in reversed(range(depth)):
        # Without a bound, empty lists would make much work of few bytes.
        kind = Annotated[listed[kind], msgspec.Meta(min_length=1)] if level else listed[kind]
    return msgspec.json.Decoder(kind).decode


def _shaped(values: Array, shape: list[int], place: str) -> Array:
    try:
        return values.reshape(shape)
    except (ValueError, OverflowError) as cause:  # Beside a 0, any size goes unnoticed until now.
        raise Rejected(UNFIT, f"`{place}` has a shape that there is not.") from cause


def _split(raw: bytes, most: int, place: str) -> list[bytes]:
    """Return the elements, at most one more than `most`."""
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) <= most:
        end = at + LENGTH.size + (LENGTH.unpack_from(raw, at)[0] if at + LENGTH.size <= len(raw) else len(raw))
        if end > len(raw):
            raise Rejected(UNFIT, f"`{place}` ends in the middle of an element.")
        found.append(raw[at + LENGTH.size : end])
        at = end
    return found


def _check_count(count: int, shape: list[int], place: str) -> None:
    if count != math.prod(shape):
        raise Rejected(UNFIT, f"`{place}` has {count} values; its shape {shape[:8]} needs {math.prod(shape)}.")
