"""Embeddings: what rows mean, as an encoder puts it, watched by where they lie among the holdout's.

Why: a text can change its subject with the usual length, capitals and hardly any unknown word. An encoder's numbers say
so, a few of them: along the directions in which the holdout's own differ most, how long they are, and how much of them
lies in no such direction.
"""

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from headrace.monitoring.profiles import Field

Array: TypeAlias = np.ndarray[Any, Any]
#: Directions that are watched one by one.
DIRECTIONS = 6
#: Digits that are kept of a direction; the profile is a text.
_DIGITS = 6


def learned(field: Field, values: Any) -> Field:
    """Return an embedding's field with the directions in which its even rows differ most.

    The odd ones are for the profile: rows lie closer to directions that were fitted to them than new rows do.
    """
    matrix = matrix_of(values)
    matrix = matrix[fitted_rows(len(matrix))].astype(float)
    center = matrix.mean(axis=0) if len(matrix) else np.zeros(field.width)
    _, _, axes = np.linalg.svd(matrix - center, full_matrices=False)
    return replace(field, center=_kept(center), axes=tuple(_kept(one) for one in axes[:DIRECTIONS]))


def fitted_rows(rows: int) -> Array:
    """Return which rows the directions were fitted to."""
    return np.asarray(np.arange(rows) % 2 == 0)


def columns_of(field: Field, values: Any) -> dict[str, Array]:
    """Return what is watched of embeddings; nothing where they have another width than the holdout's.

    Args:
        values: shape (rows, width), or one list per row.
    """
    matrix = matrix_of(values)
    if matrix.shape[1:] != (field.width,) or not field.axes:
        return {}
    apart = matrix - np.array(field.center, np.float32)
    # Not `@`: on a crowded machine the threads of the linear algebra wait for each other far longer than this takes.
    along = np.einsum("ij,kj->ik", apart, np.array(field.axes, np.float32))
    rest = np.maximum(np.square(apart).sum(axis=1) - np.square(along).sum(axis=1), 0.0)
    columns = {f"direction {at + 1} of {field.name}": along[:, at] for at in range(along.shape[1])}
    return columns | {
        f"norm of {field.name}": np.sqrt(np.square(matrix).sum(axis=1)),
        f"distance of {field.name} from all directions": np.sqrt(rest),
    }


def matrix_of(values: Any) -> Array:
    """Return embeddings as one matrix; a row without one, or of another width than the first, is NaN throughout."""
    column = np.asarray(values)
    if column.ndim > 1:
        return column.reshape(len(column), -1).astype(np.float32)
    width = next((len(one) for one in column if one is not None), 0)
    empty = np.full(width, np.nan)
    rows = [one if one is not None and len(one) == width else empty for one in column]
    return np.array(rows, np.float32).reshape(len(column), width)


def _kept(values: Array) -> tuple[float, ...]:
    return tuple(np.round(values, _DIGITS).tolist())
