"""Profiles of single columns: numbers by quantile bins, categories by their commonest values."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.evaluation.labels import as_text
from headrace.monitoring.statistics.dependence import correlation_time, rank_time

Array: TypeAlias = np.ndarray[Any, Any]
#: Quantile bins per numeric column: fine enough for rank tests, coarse enough for small windows.
BINS = 64
#: Values of a category that are counted by name.
TOP = 100
#: Further quantiles at both ends, where changes of spread show first.
_TAILS = (0.002, 0.005, 0.01)
#: Values of a category whose order in time is looked at.
_FOLLOWED = 10
OTHER = "\x00other"


@dataclass(frozen=True, slots=True)
class Numbers:
    """The distribution of one numeric column.

    Attributes:
        edges: shape (bins - 1,), rising; bin i holds edges[i-1] <= value < edges[i].
        counts: shape (bins,), the reference's rows in each bin.
        nulls: rows without a value, which are in no bin.
        correlation_time: by how much the rows' order in time inflates the variance of means; 1 for independent rows.
    """

    edges: Array
    counts: Array
    mean: float = float("nan")
    deviation: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    nulls: int = 0
    correlation_time: float = 1.0

    def count(self, values: Array) -> Array:
        """Return how many of `values` are in each bin; NaN counts nowhere. About 10 ns a value."""
        return self.count_rising(rising(values))

    def count_rising(self, values: Array) -> Array:
        """Return the same of values that rise and are not missing; its cost does not depend on how many."""
        bounds = np.concatenate([[0], np.searchsorted(values, self.edges), [len(values)]])
        return np.asarray(bounds[1:] - bounds[:-1])

    @property
    def rows(self) -> int:
        """Return the rows with a value."""
        return int(self.counts.sum())

    @property
    def middle(self) -> float:
        """Return about the distance between the quartiles."""
        if not len(self.edges):
            return 0.0
        at = np.searchsorted(np.cumsum(self.counts), self.rows * np.array([0.25, 0.75]))
        low, high = self.edges[np.minimum(at, len(self.edges) - 1)]
        return float(high - low)

    @property
    def is_constant(self) -> bool:
        """Tell whether all values were the same."""
        return self.rows > 0 and self.low == self.high


@dataclass(frozen=True, slots=True)
class Categories:
    """The distribution of one column of names.

    Attributes:
        counts: the commonest values; `OTHER` counts the rest, missing values are in none.
        singles: how many values were seen once only, from which the chance of an unseen one is estimated.
    """

    counts: dict[str, int]
    nulls: int = 0
    singles: int = 0
    correlation_time: float = 1.0

    @property
    def rows(self) -> int:
        """Return the rows with a value."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Counted:
    """How often each value of a window's column came, missing ones apart."""

    values: dict[str, int]
    nulls: int = 0


def rising(values: Array) -> Array:
    """Return a column's values in order, NaN left out. Numpy sorts faster than it finds each value's bin."""
    found = np.sort(np.asarray(values, float))
    return found[: np.searchsorted(found, np.nan)]  # NaN sorts above everything.


def numbers(values: Array, *, in_time_order: bool = False) -> Numbers:
    """Return the profile of a numeric column, over its own quantiles."""
    column = np.asarray(values, float)
    usable = rising(column)
    if not len(usable):
        return Numbers(np.empty(0), np.zeros(1, int), nulls=len(column))
    edges = _edges(usable)
    empty = Numbers(edges, np.zeros(len(edges) + 1, int))
    return Numbers(
        edges,
        empty.count_rising(usable),
        float(usable.mean()),
        float(usable.std()),
        float(usable[0]),
        float(usable[-1]),
        len(column) - len(usable),
        rank_time(column) if in_time_order else 1.0,
    )


def _edges(values: Array) -> Array:
    """Return quantiles of rising values; one that many rows share gets a bin of its own, so that leaving it is seen."""
    shares = np.concatenate([_TAILS, np.linspace(0, 1, BINS + 1)[1:-1], 1 - np.array(_TAILS)])
    places = np.sort(shares) * (len(values) - 1)
    below = places.astype(int)
    above = values[np.minimum(below + 1, len(values) - 1)]
    # `np.quantile` says the same, but partitions what is in order already.
    found, times = np.unique(values[below] + (places - below) * (above - values[below]), return_counts=True)
    return np.unique(np.concatenate([found, np.nextafter(found[times > 1], np.inf)]))


def categories(values: Any, *, in_time_order: bool = False) -> Categories:
    """Return the profile of a column of names (an array of texts or an Arrow array)."""
    counted = count_values(values)
    ordered = sorted(counted.values.items(), key=lambda item: (-item[1], item[0]))
    counts = dict(ordered[:TOP])
    rest = sum(count for _, count in ordered[TOP:])
    if rest:
        counts[OTHER] = rest
    singles = sum(count == 1 for count in counted.values.values())
    time = 1.0
    if in_time_order:
        groups, names = groups_of(values), set(list(counts)[:_FOLLOWED])
        common = [at for at, name in enumerate(groups.values) if name in names]
        time = max((correlation_time(groups.codes == at) for at in common), default=1.0)
    return Categories(counts, counted.nulls, singles, time)


@dataclass(frozen=True, slots=True)
class Coded:
    """Labels by number.

    Attributes:
        names: each different label's text.
        codes: shape (rows,), places in `names`.
    """

    names: tuple[str, ...]
    codes: Array

    def counts(self) -> dict[str, int]:
        """Return how often each label comes."""
        return dict(zip(self.names, np.bincount(self.codes, minlength=len(self.names)).tolist(), strict=True))


def coded(labels: Array) -> Coded:
    """Return labels by number; turning each row's into a text would cost more than all that is asked of them."""
    column = np.asarray(labels)
    try:
        found = pa.array(column, pa.string() if column.dtype.kind == "O" else None).dictionary_encode()
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        found = pa.array(as_text(column)).dictionary_encode()
    names = as_text(found.dictionary.to_numpy(zero_copy_only=False))
    return Coded(tuple(names.tolist()), found.indices.to_numpy())


def count_values(values: Any) -> Counted:
    """Return how often each value comes, by its text; whole numbers without a fraction."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _counted(values if pa.types.is_string(values.type) else values.cast(pa.string()))
    column = np.asarray(values)
    if column.dtype.kind in "iuf":
        empty = np.isnan(column)
        nulls = int(np.count_nonzero(empty))
        found, counts = np.unique(column[~empty], return_counts=True)
        return Counted({str(text_of(one)): int(n) for one, n in zip(found.tolist(), counts, strict=True)}, nulls)
    texts = column.astype(str) if column.dtype.kind != "O" else [text_of(one) for one in column.tolist()]
    return _counted(pa.array(texts, pa.string()))


def _counted(column: Any) -> Counted:
    found = pc.value_counts(column)
    names, counts = found.field("values").to_pylist(), found.field("counts").to_pylist()
    named = {name: count for name, count in zip(names, counts, strict=True) if name is not None}
    return Counted(named, column.null_count)


def text_of(value: Any) -> str | None:
    """Return the name that a value is counted by; None where it is missing."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@dataclass(frozen=True, slots=True)
class Groups:
    """Which group each row is in.

    Attributes:
        values: the groups' names.
        codes: shape (rows,), places in `values`; -1 where the value is missing.
    """

    values: tuple[str, ...]
    codes: Array


def groups_of(values: Array) -> Groups:
    """Return rows by their value's text."""
    texts = [text_of(one) for one in np.asarray(values).tolist()]
    names = sorted({one for one in texts if one is not None})
    at = {name: place for place, name in enumerate(names)}
    return Groups(tuple(names), np.array([-1 if one is None else at[one] for one in texts], np.int32))


@dataclass(frozen=True, slots=True)
class Field:
    """One input field as the reference knows it.

    Attributes:
        kind: `number`, `category`, `text`, `tensor` or `embedding`.
        width: of a tensor or an embedding.
        words: the vocabulary of a text.
        center: of an embedding's values on the holdout; `axes` the directions in which they differ most.
        is_output: whether the model gives it, as it may an embedding.
    """

    name: str
    kind: str
    width: int = 0
    words: frozenset[str] = field(default_factory=frozenset)
    center: tuple[float, ...] = ()
    axes: tuple[tuple[float, ...], ...] = ()
    is_output: bool = False
