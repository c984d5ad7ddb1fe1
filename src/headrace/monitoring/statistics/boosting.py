"""A small gradient-boosted model over binned columns, for expected losses. Every leaf asks a question of its own."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
DEPTH = 5
#: The leaves' least rows and their shrinkage are those of LightGBM and XGBoost.
_FEWEST, _MOST, _RATE, _SHRINK, _LEAF = 100, 300, 0.1, 1.0, 20
#: So many further trees without a better one end the trial.
_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class Boosted:
    """A fitted model.

    Attributes:
        columns: shape (trees, 2 ** DEPTH - 1), which column each node asks about, level by level; `limits` its code
            above which the answer is yes.
        leaves: shape (trees, 2 ** DEPTH), what each leaf adds to `base`.
    """

    base: float
    columns: Array
    limits: Array
    leaves: Array

    def predict(self, codes: Array) -> Array:
        """Return shape (rows,). Args: codes: shape (rows, columns), small whole numbers."""
        found = np.full(len(codes), self.base)
        for asked, limit, leaves in zip(self.columns, self.limits, self.leaves, strict=True):
            found += leaves[_leaf(codes, asked, limit)]
        return found


def by_nodes(levels: Array) -> Array:
    """Return what each node asks, of trees that ask one question per level."""
    return np.asarray(np.repeat(levels, 2 ** np.arange(DEPTH), axis=1))


def fit(codes: Array, target: Array, *, bins: int) -> Boosted:
    """Fit squared error, with at least a hundred trees where they are shown to help on every fifth row, held out.

    What counts is the mean of many rows. There the scatter of single rows averages out, and what too few trees leave
    unlearned does not; so the trial says whether there is something to learn, and whether yet more trees help.

    Args:
        codes: shape (rows, columns), whole numbers below `bins`.
        target: shape (rows,).
    """
    whole = _Growth.of(codes, target, bins)
    for _ in range(_trees(codes, target, bins)):
        whole.add()
    return whole.boosted()


def _trees(codes: Array, target: Array, bins: int) -> int:
    held = np.arange(len(target)) % 5 == 4
    growth = _Growth.of(codes[~held], target[~held], bins)
    found = np.full(int(held.sum()), growth.base)
    constant = np.square(target[held] - found)
    best, count, least = constant, 0, float(constant.mean())
    while len(growth.leaves) < min(_MOST, count + _PATIENCE):
        growth.add()
        found += growth.leaves[-1][_leaf(codes[held], growth.columns[-1], growth.limits[-1])]
        errors = np.square(target[held] - found)
        if errors.mean() < least:
            best, count, least = errors, len(growth.leaves), float(errors.mean())
    gain = constant - best
    is_shown = float(gain.mean()) > 2 * float(gain.std()) / np.sqrt(max(len(gain), 1))
    return max(count, _FEWEST) if is_shown else count


@dataclass
class _Growth:
    """Trees that are added one by one, each to what the ones before left over."""

    codes: Array
    bins: int
    base: float
    left: Array
    columns: list[Array]
    limits: list[Array]
    leaves: list[Array]

    @classmethod
    def of(cls, codes: Array, target: Array, bins: int) -> "_Growth":
        base = float(target.mean())
        return cls(codes, bins, base, target - base, [], [], [])

    def add(self) -> None:
        nodes = 2**DEPTH - 1
        columns, limits = np.zeros(nodes, np.int32), np.full(nodes, self.bins, np.int32)
        place, rows = np.zeros(len(self.left), np.int64), np.arange(len(self.left))
        for level in range(DEPTH):
            own = slice(2**level - 1, 2 ** (level + 1) - 1)
            columns[own], limits[own] = _best(self.codes, self.left, place, 2**level, self.bins)
            place = place * 2 + (self.codes[rows, columns[own][place]] > limits[own][place])
        sums = np.bincount(place, self.left, 2**DEPTH)
        leaves = _RATE * sums / (np.bincount(place, minlength=2**DEPTH) + _SHRINK)
        self.left = self.left - leaves[place]
        self.columns.append(columns)
        self.limits.append(limits)
        self.leaves.append(leaves)

    def boosted(self) -> Boosted:
        nodes, leaves = 2**DEPTH - 1, 2**DEPTH
        return Boosted(
            self.base,
            np.array(self.columns, np.int32).reshape(-1, nodes),
            np.array(self.limits, np.int32).reshape(-1, nodes),
            np.array(self.leaves, float).reshape(-1, leaves),
        )


def _best(codes: Array, left: Array, place: Array, leaves: int, bins: int) -> tuple[Array, Array]:
    """Return each leaf's best question; one that no row answers with yes where none is worth asking."""
    sums, rows = np.bincount(place, left, leaves), np.bincount(place, minlength=leaves)
    best = np.square(sums) / (rows + _SHRINK)
    asked, limits, every = np.zeros(leaves, np.int32), np.full(leaves, bins, np.int32), np.arange(leaves)
    for column in range(codes.shape[1]):
        cell = place * bins + codes[:, column]
        below = np.cumsum(np.bincount(cell, left, leaves * bins).reshape(leaves, bins), axis=1)[:, :-1]
        count = np.cumsum(np.bincount(cell, minlength=leaves * bins).reshape(leaves, bins), axis=1)[:, :-1]
        gain = np.square(below) / (count + _SHRINK)
        gain += np.square(sums[:, None] - below) / (rows[:, None] - count + _SHRINK)
        gain = np.where(np.minimum(count, rows[:, None] - count) >= _LEAF, gain, 0.0)
        at = gain.argmax(axis=1)
        better = gain[every, at] > best
        best = np.where(better, gain[every, at], best)
        asked, limits = np.where(better, column, asked), np.where(better, at, limits)
    return asked, limits


def _leaf(codes: Array, asked: Array, limits: Array) -> Array:
    place, rows = np.zeros(len(codes), np.int64), np.arange(len(codes))
    for level in range(DEPTH):
        node = place + (2**level - 1)
        place = place * 2 + (codes[rows, asked[node]] > limits[node])
    return place
