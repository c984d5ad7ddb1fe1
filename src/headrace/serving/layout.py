"""How a model's rows lie in memory on the way to a worker: a signature compiled into blocks, and rows in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from headrace.errors import InvalidInput
from headrace.types import UNNAMED, Arrays, Field, FieldKind, Signature

#: MLflow column types and how their values travel. What is not here travels as JSON.
COLUMN_DTYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "datetime": "datetime64[ns]",
    "binary": "base64",
}
LISTED = frozenset({"json", "base64"})
#: Tensor dtypes whose values are texts.
TEXTS = frozenset({"str", "string", "object", "bytes"})
#: The signature of a model that was logged without one: any numbers.
ANY_TENSOR = Signature((Field(UNNAMED, FieldKind.TENSOR, "float64", (-1,)),))


@dataclass(frozen=True, slots=True)
class Block:
    """One buffer of a batch: a tensor, or the columns of a table that have one type, row by row.

    Attributes:
        columns: their names; empty for a tensor.
        dtype: numpy's name, or `json` and `base64` for values that travel as a list.
        row_shape: without the first axis; -1 where free.
    """

    name: str
    columns: tuple[str, ...]
    dtype: str
    row_shape: tuple[int, ...]

    @property
    def is_listed(self) -> bool:
        return self.dtype in LISTED


@dataclass(frozen=True, slots=True)
class Layout:
    """What a batch for one model looks like.

    Attributes:
        container: what the model is given: `array`, `dict` of arrays, or `frame`.
        order: a frame's columns in the signature's order.
        texts: places of the blocks that may hold texts.
    """

    container: str
    blocks: tuple[Block, ...]
    order: tuple[str, ...] = ()
    texts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(n for n, block in enumerate(self.blocks) if block.dtype == "json"))


class Rows(msgspec.Struct, gc=False):
    """Rows of one request, ready to join a batch.

    Attributes:
        parts: one for each block: packed bytes, or the list of values of a listed block.
        shapes: the row shape of each block, which tells what can join what.
    """

    count: int
    layout: Layout
    parts: Sequence[bytes | list[Any]]
    shapes: tuple[tuple[int, ...], ...]

    def as_arrays(self) -> Arrays:
        """Return the rows as arrays by field name, as `rows_of` took them."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for block, part, shape in zip(self.layout.blocks, self.parts, self.shapes, strict=True):
            values = np.array(part, object) if isinstance(part, list) else np.frombuffer(part, block.dtype)
            whole = values.reshape(self.count, *shape)
            found |= {name: whole[:, at] for at, name in enumerate(block.columns)} or {block.name: whole}
        return found


@lru_cache(1024)
def layout_of(inputs: tuple[Field, ...], absent: frozenset[str]) -> Layout:
    """Compile a signature's inputs; `absent` names optional columns that the rows at hand do not have.

    The same inputs give the same object, so that a batch can compare layouts by identity. Clients choose what is
    absent: what nobody used for long is forgotten, and at worst two requests stay apart that could be joined.
    """
    fields = [field for field in inputs if field.name not in absent]
    if inputs[0].kind is FieldKind.TENSOR:
        is_single = len(fields) == 1 and fields[0].name == UNNAMED
        blocks = tuple(Block(field.name, (), _tensor_dtype(field), field.shape[1:]) for field in fields)
        return Layout("array" if is_single else "dict", blocks)
    by_dtype: dict[str, list[str]] = {}
    for one in fields:
        by_dtype.setdefault(COLUMN_DTYPES.get(one.dtype, "json"), []).append(one.name)
    blocks = tuple(Block("", tuple(names), dtype, (len(names),)) for dtype, names in by_dtype.items())
    return Layout("frame", blocks, tuple(field.name for field in fields))


def rows_of(signature: Signature, arrays: Arrays) -> Rows:
    """Return arrays by field name as rows. Optional columns may be absent.

    Raises:
        InvalidInput: a field is missing, or the arrays differ in length.
    """
    lengths = {len(values) for values in arrays.values()}
    if len(lengths) != 1:
        raise InvalidInput(f"The inputs have {sorted(lengths)} rows; they must all have the same number.")
    missing = [field.name for field in signature.inputs if field.name not in arrays]
    needed = [field.name for field in signature.inputs if field.required and field.name in missing]
    if needed:
        raise InvalidInput(f"The inputs lack {', '.join(f'`{name}`' for name in needed)}, which the model requires.")
    layout = layout_of(signature.inputs, frozenset(missing))
    packed = [_pack(block, arrays) for block in layout.blocks]
    return Rows(lengths.pop(), layout, [part for part, _ in packed], tuple(shape for _, shape in packed))


def _pack(block: Block, arrays: Arrays) -> tuple[bytes | list[Any], tuple[int, ...]]:
    if not block.columns:
        values = np.asarray(arrays[block.name])
        if block.is_listed:
            return values.ravel().tolist(), values.shape[1:]
        return np.ascontiguousarray(values, block.dtype).tobytes(), values.shape[1:]
    columns = [np.asarray(arrays[name]) for name in block.columns]
    if block.is_listed:
        return [
            value for row in zip(*(column.tolist() for column in columns), strict=True) for value in row
        ], block.row_shape
    return np.stack([column.astype(block.dtype) for column in columns], axis=1).tobytes(), block.row_shape


def _tensor_dtype(field: Field) -> str:
    return "json" if field.dtype in TEXTS else field.dtype
