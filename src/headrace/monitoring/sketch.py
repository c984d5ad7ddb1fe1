"""Mergeable sketches of a column: any number of rows in a few kilobytes, from several machines put together.

Quantiles by KLL, distinct values by HLL, the commonest by frequent items (Apache DataSketches). A profile made of a
sketch can stand for one made of the rows.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from datasketches import frequent_items_error_type, frequent_strings_sketch, hll_sketch, hll_union, kll_doubles_sketch

from headrace.monitoring.profiles import BINS, OTHER, TOP, Categories, Numbers

Array: TypeAlias = np.ndarray[Any, Any]
_RANKS, _REGISTERS, _ITEMS = 2000, 12, 10


class NumberSketch:
    """A numeric column's sketch."""

    def __init__(self) -> None:
        self._ranks = kll_doubles_sketch(_RANKS)
        self.nulls = 0
        self._sums = np.zeros(2)

    def update(self, values: Array) -> None:
        """Take in some more rows; NaN is missing."""
        usable = np.asarray(values, float)
        usable = usable[~np.isnan(usable)]
        self.nulls += len(values) - len(usable)
        self._sums += [usable.sum(), np.square(usable).sum()]
        self._ranks.update(usable)

    def merge(self, other: "NumberSketch") -> None:
        """Take in another sketch's rows."""
        self._ranks.merge(other._ranks)
        self.nulls += other.nulls
        self._sums += other._sums

    @property
    def rows(self) -> int:
        """Return the rows with a value."""
        return int(self._ranks.n)

    def profile(self) -> Numbers:
        """Return the column's profile; its counts are right to about a thousandth of the rows."""
        if not self.rows:
            return Numbers(np.empty(0), np.zeros(1, int), nulls=self.nulls)
        shares = np.linspace(0, 1, BINS + 1)[1:-1]
        edges = np.unique(np.array(self._ranks.get_quantiles(shares.tolist())))
        below = np.array(self._ranks.get_cdf(np.nextafter(edges, -np.inf).tolist()))
        counts = np.diff(np.round(below * self.rows).astype(int), prepend=0)
        mean = self._sums[0] / self.rows
        spread = np.sqrt(max(self._sums[1] / self.rows - mean**2, 0.0))
        low, high = float(self._ranks.get_min_value()), float(self._ranks.get_max_value())
        return Numbers(edges, counts, float(mean), float(spread), low, high, self.nulls)


class NameSketch:
    """The sketch of a column of names."""

    def __init__(self) -> None:
        self._items = frequent_strings_sketch(_ITEMS)
        self._distinct = hll_sketch(_REGISTERS)
        self.rows = self.nulls = 0

    def update(self, values: Iterable[str | None]) -> None:
        """Take in some more rows; None is missing."""
        for value in values:
            if value is None:
                self.nulls += 1
                continue
            self._items.update(value)
            self._distinct.update(value)
            self.rows += 1

    def merge(self, other: "NameSketch") -> None:
        """Take in another sketch's rows."""
        self._items.merge(other._items)
        union = hll_union(_REGISTERS)
        union.update(self._distinct)
        union.update(other._distinct)
        self._distinct = union.get_result()
        self.rows += other.rows
        self.nulls += other.nulls

    @property
    def distinct(self) -> float:
        """Return about how many different values there are."""
        return float(self._distinct.get_estimate())

    def profile(self) -> Categories:
        """Return the column's profile by its commonest values."""
        found = self._items.get_frequent_items(frequent_items_error_type.NO_FALSE_POSITIVES)
        counts = {str(item[0]): int(item[1]) for item in found[:TOP]}
        rest = self.rows - sum(counts.values())
        return Categories(counts | ({OTHER: rest} if rest > 0 else {}), self.nulls)
