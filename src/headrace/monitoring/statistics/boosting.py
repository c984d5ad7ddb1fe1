"""A small gradient-boosted model over binned columns, for expected losses. Trees ask one question per level."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
DEPTH = 5
_TREES, _RATE, _SHRINK = 80, 0.1, 20.0


@dataclass(frozen=True, slots=True)
class Boosted:
    """A fitted model.

    Attributes:
        columns: shape (trees, DEPTH), which column each level asks about; `limits` its code above which it is yes.
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


def fit(codes: Array, target: Array, *, bins: int) -> Boosted:
    """Fit squared error; the number of trees is the one that does best on every fifth row, held out.

    Args:
        codes: shape (rows, columns), whole numbers below `bins`.
        target: shape (rows,).
    """
    held = np.arange(len(target)) % 5 == 4
    trial = _grow(codes[~held], target[~held], bins, _TREES)
    errors = [float(np.mean(np.square(target[held] - trial.base)))]
    found = np.full(int(held.sum()), trial.base)
    for number in range(len(trial.columns)):
        found += trial.leaves[number][_leaf(codes[held], trial.columns[number], trial.limits[number])]
        errors.append(float(np.mean(np.square(target[held] - found))))
    return _grow(codes, target, bins, int(np.argmin(errors)))


def _grow(codes: Array, target: Array, bins: int, trees: int) -> Boosted:
    base = float(target.mean())
    left = target - base
    columns, limits = np.zeros((trees, DEPTH), np.int32), np.zeros((trees, DEPTH), np.int32)
    leaves = np.zeros((trees, 2**DEPTH))
    for tree in range(trees):
        place = np.zeros(len(target), np.int64)
        for level in range(DEPTH):
            columns[tree, level], limits[tree, level] = _best(codes, left, place, 2**level, bins)
            place = place * 2 + (codes[:, columns[tree, level]] > limits[tree, level])
        sums = np.bincount(place, left, 2**DEPTH)
        leaves[tree] = _RATE * sums / (np.bincount(place, minlength=2**DEPTH) + _SHRINK)
        left = left - leaves[tree][place]
    return Boosted(base, columns, limits, leaves)


def _best(codes: Array, left: Array, place: Array, leaves: int, bins: int) -> tuple[int, int]:
    best, found = -1.0, (0, bins)
    for column in range(codes.shape[1]):
        cell = place * bins + codes[:, column]
        sums = np.cumsum(np.bincount(cell, left, leaves * bins).reshape(leaves, bins), axis=1)
        counts = np.cumsum(np.bincount(cell, minlength=leaves * bins).reshape(leaves, bins), axis=1)
        above, rows = sums[:, -1:] - sums, counts[:, -1:] - counts
        gain = (np.square(sums) / (counts + _SHRINK) + np.square(above) / (rows + _SHRINK)).sum(axis=0)[:-1]
        if len(gain) and gain.max() > best:
            best, found = float(gain.max()), (column, int(gain.argmax()))
    return found


def _leaf(codes: Array, asked: Array, limits: Array) -> Array:
    place = np.zeros(len(codes), np.int64)
    for column, limit in zip(asked, limits, strict=True):
        place = place * 2 + (codes[:, column] > limit)
    return place
