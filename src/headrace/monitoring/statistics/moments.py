"""Mean and deviation of values that may be as large as numbers get: labels are given by people and scripts."""

from dataclasses import dataclass

import numpy as np

#: Squares above this have no number.
_LARGE = 1e150


@dataclass(frozen=True, slots=True)
class Moments:
    """Of some values: their mean, and their deviation from it (of the values themselves, not of a sample)."""

    mean: float
    deviation: float


def moments(values: np.ndarray) -> Moments:
    """Return the mean and the deviation of finite values, without overflow on the way.

    Raises:
        ValueError: there is no value.
    """
    top = float(np.abs(values).max())
    scale = top if top > _LARGE else 1.0
    parts = values / scale
    return Moments(float(parts.mean()) * scale, float(parts.std()) * scale)
