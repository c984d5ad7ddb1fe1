"""Labels that can be compared: the same class may come as `3`, `3.0` or `"3"`, by way of CSV, JSON or a tensor."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


def comparable(first: Array, second: Array) -> tuple[Array, Array]:
    """Return both columns in one kind: as they are where the kinds agree, as texts where they do not."""
    one, other = np.asarray(first), np.asarray(second)
    if _kind(one) == _kind(other) == "number":
        return one, other
    return as_text(one), as_text(other)


def as_text(values: Array) -> Array:
    """Return labels as texts; whole numbers without a fraction, so that 3.0 and "3" agree."""
    if values.dtype.kind == "f" and np.all(np.isfinite(values)) and np.all(values == np.round(values)):
        values = values.astype(np.int64)
    if values.dtype.kind == "O":
        return np.array([str(int(one)) if isinstance(one, float) and one.is_integer() else str(one) for one in values])
    return values.astype(str)


def columns_of(truth: Array, classes: Array | None, width: int) -> Array:
    """Return for each truth the column of the scores that stands for it; -1 where none does."""
    if classes is None:
        numbers = truth.astype(float) if truth.dtype.kind in "biuf" else None
        if numbers is not None and np.all(numbers == np.round(numbers)) and np.all((numbers >= 0) & (numbers < width)):
            return numbers.astype(np.intp)
        classes = np.unique(truth)
    known, wanted = comparable(np.asarray(classes), truth)
    order = np.argsort(known, kind="stable")
    found = np.clip(np.searchsorted(known[order], wanted), 0, len(known) - 1)
    columns = order[found]
    fits = (known[columns] == wanted) & (columns < width)
    return np.where(fits, columns, -1)


def _kind(values: Array) -> str:
    return "number" if values.dtype.kind in "biuf" else "text"
