"""The tail of a sum of weighted chi-squares, which is what quadratic rank statistics are where nothing changed."""

from typing import Any, TypeAlias

import numpy as np
from scipy.special import ndtr

Array: TypeAlias = np.ndarray[Any, Any]
#: Halvings that find the saddlepoint to more digits than the approximation has.
_STEPS = 40
#: Nearer to the mean than this share of it the formula divides nought by nought; such values are no evidence.
_MIDDLE = 0.05


def tail_p(values: Array, weights: Array) -> Array:
    """Return the chance that a sum of squared standard normals, each times its weight, is at least so large.

    Lugannani and Rice's saddlepoint approximation: Kuonen (1999), Biometrika 86. Within about a tenth in the tail.

    Args:
        values: shape (tests,). `weights`: shape (tests, terms), not negative; 1 is returned where all are 0.
    """
    found, given = np.asarray(values, float), np.asarray(weights, float)
    top, mean = given.max(axis=1, initial=0.0), given.sum(axis=1)
    p_values, tail = np.ones(len(found)), (top > 0) & (found > mean * (1 + _MIDDLE))
    if tail.any():
        # In units of the largest weight: the saddlepoint is then between 0 and a half.
        unit = given[tail] / top[tail, None]
        p_values[tail] = _saddlepoint(found[tail] / top[tail], unit)
    return p_values


def _saddlepoint(values: Array, weights: Array) -> Array:
    low, high = np.zeros(len(values)), np.full(len(values), 0.5)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        is_below = (weights / (1 - 2 * weights * middle[:, None])).sum(axis=1) < values
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    left = 1 - 2 * weights * low[:, None]
    curve = 2 * np.square(weights / left).sum(axis=1)
    root = np.sqrt(2 * (low * values + np.log(left).sum(axis=1) / 2))
    return np.asarray(ndtr(-(root + np.log(low * np.sqrt(curve) / root) / root)))
