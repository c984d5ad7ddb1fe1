"""A signature compiled into JSON types: rows are checked at the door, and packed so that they can join a batch."""

import base64
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Annotated, Any

import msgspec
import numpy as np

from headrace.serving.layout import Block, Layout, Rows, layout_of
from headrace.serving.rejection import UNFIT, Rejected
from headrace.types import Field, Signature

FLOAT32 = 3.4028234663852886e38
INTEGERS = {f"{sign}int{bits}": (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}
#: numpy dtypes that `array.array` packs, several times faster than numpy does for few values.
CODES = {"float64": "d", "float32": "f", "int64": "q", "int32": "i", "int16": "h", "int8": "b", "uint8": "B"}
NULLABLE = frozenset({"float", "double", "string", "datetime", "binary"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAT = -(2**63)


def number_type(dtype: str) -> Any:
    """Return the JSON type of a numpy dtype's values, bounds included."""
    if dtype in INTEGERS:
        sign, bits = INTEGERS[dtype]
        low, high = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        # msgspec's bounds end at 2**63; what is beyond `uint64` is refused when it is packed.
        bounds = msgspec.Meta(ge=low) if dtype == "uint64" else msgspec.Meta(ge=low, le=high)
        return Annotated[int, bounds]
    if dtype == "bool":
        return bool
    if dtype in ("str", "string", "object"):
        return str
    if dtype == "bytes":
        return bytes
    if dtype == "float64":
        return float
    bound = 65504.0 if dtype == "float16" else FLOAT32
    return Annotated[float, msgspec.Meta(ge=-bound, le=bound)]


COLUMN_TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": number_type("int32"),
    "long": number_type("int64"),
    "float": number_type("float32"),
    "double": float,
    "string": str,
    "binary": bytes,
    "datetime": str,
}


def column_type(field: Field) -> Any:
    """Return the JSON type of a column's values; what MLflow calls Array, Object or Map may be anything."""
    known = COLUMN_TYPES.get(field.dtype, Any)
    return known | None if not field.required and field.dtype in NULLABLE else known


def tensor_row_type(field: Field) -> Any:
    """Return the JSON type of one row of a tensor."""
    row: Any = number_type(field.dtype)
    for size in reversed(field.shape[1:]):
        row = list[row] if size < 0 else Annotated[list[row], msgspec.Meta(min_length=size, max_length=size)]
    return row


class Table:
    """Rows of named columns."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.fields = {field.name: field for field in signature.inputs}
        self.names = tuple(self.fields)
        self._layouts: dict[tuple[str, ...], tuple[Layout, list[tuple[Block, Any]]]] = {}

    def rows(self, names: Sequence[str], values: Sequence[Sequence[Any]]) -> Rows:
        """Return rows whose values come in the order of `names`; each name is a field, none is missing that must be."""
        layout, blocks = self._layout(tuple(names))
        parts = [self._pack(block, pick, values) for block, pick in blocks]
        return Rows(len(values), layout, parts, tuple(block.row_shape for block, _ in blocks))

    def check_names(self, names: Sequence[str], place: str) -> None:
        """Refuse unknown, double and missing columns. Raises Rejected."""
        unknown = [name for name in names if name not in self.fields]
        if unknown:
            raise Rejected(
                UNFIT,
                f"The model has no column like the one at `{place}[{list(names).index(unknown[0])}]`.",
                self._known(),
            )
        if len(set(names)) != len(names):
            raise Rejected(UNFIT, f"A column is named twice in `{place}`.")
        missing = [field.name for field in self.signature.inputs if field.required and field.name not in names]
        if missing:
            raise Rejected(UNFIT, f"`{place}` lacks the column `{missing[0]}`, which the model requires.")

    def _known(self) -> str:
        shown = ", ".join(f"`{name}`" for name in self.names[:20])
        return f"Its columns are {shown}{', …' if len(self.names) > 20 else ''}."

    def _layout(self, names: tuple[str, ...]) -> tuple[Layout, list[tuple[Block, Any]]]:
        absent = frozenset(self.names) - frozenset(names)
        # By the order given: clients keep to one or two orders.
        found = self._layouts.get(names)
        if found is None:
            if not names:
                raise Rejected(UNFIT, "The rows have none of the model's columns.", self._known())
            layout = layout_of(self.signature.inputs, absent)
            at = {name: place for place, name in enumerate(names)}
            found = layout, [(block, picker([at[name] for name in block.columns])) for block in layout.blocks]
            if len(self._layouts) < 64:
                self._layouts[names] = found
        return found

    def _pack(self, block: Block, pick: Any, values: Sequence[Sequence[Any]]) -> bytes | list[Any]:
        flat: Iterable[Any] = pick(values[0]) if len(values) == 1 else chain.from_iterable(map(pick, values))
        if block.is_listed:
            return list(flat)
        if block.dtype == "datetime64[ns]":
            return array("q", [nanoseconds(value) for value in flat]).tobytes()
        if block.dtype == "bool":
            return bytes(flat)
        flat = list(flat)
        try:
            return _numbers(CODES[block.dtype], flat, len(values))
        except (TypeError, struct.error):  # A null in an optional column of numbers.
            return array(CODES[block.dtype], [float("nan") if value is None else value for value in flat]).tobytes()


def picker(places: Sequence[int]) -> Any:
    """Return a function that takes some values of a row, as a tuple."""
    if len(places) == 1:
        (place,) = places
        return lambda row: (row[place],)
    return itemgetter(*places)


class Tensors:
    """Rows of one or more tensors.

    Attributes:
        is_flat: as most models have it, there is one, whose rows are lists of numbers of one length.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.layout = layout_of(signature.inputs, frozenset())
        self.fields = signature.inputs
        self._fixed = tuple(block.row_shape for block in self.layout.blocks)
        [first, *others] = self.layout.blocks
        self.is_flat = not others and _is_flat(first)
        self._code, self._size = (CODES[first.dtype], first.row_shape[0]) if self.is_flat else ("x", 0)
        self._pack_row = struct.Struct(f"<{self._size}{self._code}").pack

    def rows(self, tensors: Sequence[Sequence[Any]]) -> Rows:
        """Return rows from one list of rows for each tensor, in the signature's order. Raises Rejected."""
        if self.is_flat:
            return self.flat_rows(tensors[0])
        count = len(tensors[0])
        if any(len(tensor) != count for tensor in tensors):
            raise Rejected(
                UNFIT, f"The tensors have {[len(tensor) for tensor in tensors]} rows; they need the same number."
            )
        parts: list[bytes | list[Any]] = []
        shapes = []
        for block, tensor in zip(self.layout.blocks, tensors, strict=True):
            part, shape = self._pack(block, tensor)
            parts.append(part)
            shapes.append(shape)
        return Rows(count, self.layout, parts, self._fixed if tuple(shapes) == self._fixed else tuple(shapes))

    def flat_rows(self, rows: Sequence[Sequence[Any]]) -> Rows:
        """Return rows of the one tensor there is. Raises OverflowError where it is of `float32`, for numbers beyond."""
        count = len(rows)
        if count == 1:  # As in most requests.
            packed = self._pack_row(*rows[0])
        else:
            packed = struct.pack(f"<{count * self._size}{self._code}", *chain.from_iterable(rows))
        return Rows(count, self.layout, (packed,), self._fixed)

    def _pack(self, block: Block, tensor: Sequence[Any]) -> tuple[bytes | list[Any], tuple[int, ...]]:
        shape = block.row_shape
        if _is_flat(block):
            return _packed(block, tensor), shape
        if block.is_listed:
            listed = np.array(tensor, dtype=object)
            if listed.ndim != len(shape) + 1:
                raise Rejected(UNFIT, "The rows of a tensor of texts differ in shape.")
            return listed.ravel().tolist(), listed.shape[1:]
        try:
            packed = np.array(tensor, dtype=block.dtype)
        except (ValueError, OverflowError) as cause:
            what = f"`{block.name}`" if block.name else "the tensor"
            raise Rejected(
                UNFIT, f"The rows of {what} differ in shape, or a value does not fit {block.dtype}."
            ) from cause
        if packed.ndim != len(shape) + 1:
            raise Rejected(UNFIT, f"The tensor has {packed.ndim} dimensions; the model takes {len(shape) + 1}.")
        return packed.tobytes(), packed.shape[1:]


def _is_flat(block: Block) -> bool:
    return len(block.row_shape) == 1 and block.row_shape[0] >= 0 and block.dtype in CODES


def _packed(block: Block, rows: Sequence[Any]) -> bytes:
    flat = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    return _numbers(CODES[block.dtype], flat, len(rows))


def _numbers(code: str, flat: list[Any], rows: int) -> bytes:
    """Return numbers packed; those of one row, as most requests have, twice as fast by a struct made for that many."""
    return _packer(len(flat), code)(*flat) if rows == 1 else array(code, flat).tobytes()


@cache
def _packer(count: int, code: str) -> Callable[..., bytes]:
    return struct.Struct(f"{count}{code}").pack


def nanoseconds(value: str | None) -> int:
    """Return an ISO 8601 moment as nanoseconds since 1970, in UTC where it names no zone. Raises Rejected."""
    if value is None:
        return NAT
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as cause:
        raise Rejected(
            UNFIT, "A datetime column holds a text that is no ISO 8601 moment.", "Write 2026-11-21T09:30:00."
        ) from cause
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - EPOCH
    found = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    if abs(found) >= 2**63:
        raise Rejected(UNFIT, "A datetime column holds a moment outside of the years 1678 to 2262.")
    return found


def text_of(value: Any) -> Any:
    """Return a value as the prediction log keeps it: bytes as base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
