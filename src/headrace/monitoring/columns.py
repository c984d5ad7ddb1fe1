"""From input fields to watched columns: a text becomes its length and unknown words, a tensor a few sums."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.monitoring import embeddings
from headrace.monitoring.profiles import Field, Numbers, count_values, rising

Array: TypeAlias = np.ndarray[Any, Any]
WORD = re.compile(r"[^\W_]+|&\w+;|[<>&;#]")
#: A text field has more different values than this, and longer ones than names are.
_FEW, _LONG = 50, 30.0
#: Random directions that tensors are projected on.
DIRECTIONS = 6


@dataclass(frozen=True, slots=True)
class Columns:
    """What is watched of some rows.

    Attributes:
        numbers: column name to shape (rows,), NaN where missing.
        names: column name to values that are counted by name.
        kinds: input field to the kind that its values look like now.
        missing: input field to its rows without a value.
    """

    numbers: dict[str, Array]
    names: dict[str, Any]
    kinds: dict[str, str] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    sorted: dict[str, Array] = field(default_factory=dict)
    counted: dict[str, Array] = field(default_factory=dict)
    named: dict[str, dict[str, int]] = field(default_factory=dict)

    def rising(self, name: str) -> Array:
        """Return a column's values in order, missing ones left out; sorted once, however many signals ask."""
        if name not in self.sorted:
            self.sorted[name] = rising(self.numbers[name])
        return self.sorted[name]

    def counts(self, name: str, profile: Numbers) -> Array:
        """Return a column's rows in each bin of its profile; counted once."""
        if name not in self.counted:
            self.counted[name] = profile.count_rising(self.rising(name))
        return self.counted[name]

    def values(self, name: str) -> dict[str, int]:
        """Return how often each value of a column of names comes; counted once."""
        if name not in self.named:
            self.named[name] = count_values(self.names[name]).values
        return self.named[name]


def fields_of(inputs: Mapping[str, Any], vocabulary: Mapping[str, frozenset[str]]) -> tuple[Field, ...]:
    """Return what kind of field each input is."""
    found = []
    for name, values in inputs.items():
        kind = kind_of(values)
        if kind == "text" and not _is_long(values):
            kind = "category"
        width = values.shape[1] if kind == "tensor" else 0
        found.append(Field(name, kind, width, vocabulary.get(name, frozenset()) if kind == "text" else frozenset()))
    return tuple(found)


def expand(inputs: Mapping[str, Any], fields: Iterable[Field]) -> Columns:
    """Return the watched columns of some rows; fields that the reference does not know are left out."""
    found = Columns({}, {})
    for name, values in inputs.items():
        found.kinds[name] = kind_of(values)
        found.missing[name] = missing(values)
    for known in fields:
        if known.name in inputs and fits(found.kinds[known.name], known.kind):
            _add(found, known, inputs[known.name])
    return found


def kind_of(values: Any) -> str:
    """Return `number`, `tensor` or `text`, as the values look."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return "number" if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) else "text"
    column = np.asarray(values)
    if column.ndim > 1:
        return "tensor"
    if column.dtype.kind in "iuf":
        return "number"
    if column.dtype.kind == "O" and len(column) and all(one is None for one in column):
        return "nothing"
    return "text"


def missing(values: Any) -> int:
    """Return how many values are missing."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return int(values.null_count)
    column = np.asarray(values)
    if column.dtype.kind == "f":
        return int(np.count_nonzero(np.isnan(column))) if column.ndim == 1 else 0
    return sum(one is None for one in column) if column.dtype.kind == "O" else 0


def words(text: str) -> list[str]:
    """Return a text's words as written; markup and entities count as words, so that broken ones are noticed."""
    return WORD.findall(text)


def vocabulary_of(texts: Iterable[Any]) -> frozenset[str]:
    """Return the words of some texts."""
    return frozenset(word for text in texts if text is not None for word in words(str(text)))


#: What the values of some kinds may look like.
_LOOKS_LIKE = {"category": ("text", "number"), "embedding": ("tensor", "text")}


def fits(now: str, known: str) -> bool:
    """Tell whether values that look like `now` are of a kind."""
    return now == known or now in _LOOKS_LIKE.get(known, ())


def _add(found: Columns, known: Field, values: Any) -> None:
    if known.kind == "number":
        found.numbers[known.name] = np.asarray(values, float)
    elif known.kind == "category":
        found.names[known.name] = values
    elif known.kind == "text":
        found.numbers.update(_text_columns(known, values))
    elif known.kind == "embedding":
        found.numbers.update(embeddings.columns_of(known, values))
    else:
        found.numbers.update(_tensor_columns(known, np.asarray(values, np.float32).reshape(len(values), -1)))


def _text_columns(known: Field, values: Any) -> dict[str, Array]:
    texts = values.to_pylist() if isinstance(values, pa.Array | pa.ChunkedArray) else list(values)
    rows = len(texts)
    length, unknown, capitals = np.full(rows, np.nan), np.full(rows, np.nan), np.full(rows, np.nan)
    for row, text in enumerate(texts):
        if text is None:
            continue
        found = words(str(text))
        length[row] = len(str(text))
        if found:
            unknown[row] = sum(word not in known.words for word in found) / len(found)
            capitals[row] = sum(word[0].isupper() for word in found) / len(found)
    columns = {f"length of {known.name}": length, f"capitals in {known.name}": capitals}
    return columns | ({f"unknown words in {known.name}": unknown} if known.words else {})


def _tensor_columns(known: Field, values: Array) -> dict[str, Array]:
    if values.shape[1] != known.width:
        return {}
    label = known.name or "the input"
    columns = {f"mean of {label}": values.mean(axis=1), f"spread of {label}": values.std(axis=1)}
    directions = np.random.default_rng(known.width).standard_normal((known.width, DIRECTIONS)).astype(np.float32)
    projected = values @ (directions / np.sqrt(known.width))
    return columns | {f"projection {at + 1} of {label}": projected[:, at] for at in range(DIRECTIONS)}


def _is_long(values: Any) -> bool:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if pc.count_distinct(values).as_py() <= _few(len(values) - values.null_count):
            return False
        values = values.to_pylist()
    given = [str(text) for text in values if text is not None]
    if len(set(given)) <= _few(len(given)):
        return False
    return bool(given) and float(np.mean([len(text) for text in given])) > _LONG


def _few(rows: int) -> int:
    return min(_FEW, max(rows // 5, 2))
