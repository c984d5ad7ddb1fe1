"""Many tests at once: what is left of their p-values."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def family_p(p_values: Array) -> float:
    """Return the p-value of "nothing changed in any of them", by Bonferroni: right whatever their dependence."""
    values = np.asarray(p_values, float)
    return float(min(1.0, values.min() * len(values))) if len(values) else 1.0


def holm(p_values: Array) -> Array:
    """Return p-values adjusted for the family-wise error. Holm (1979), Scand. J. Statist. 6."""
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    found = np.empty(len(values))
    found[order] = np.minimum(steps, 1.0)
    return found


def benjamini_hochberg(p_values: Array) -> Array:
    """Return p-values adjusted for the false discovery rate. Benjamini and Hochberg (1995), JRSS B 57."""
    values = np.asarray(p_values, float)
    count = len(values)
    order = np.argsort(values, kind="stable")[::-1]
    steps = np.minimum.accumulate(values[order] * count / np.arange(count, 0, -1))
    found = np.empty(count)
    found[order] = np.minimum(steps, 1.0)
    return found
