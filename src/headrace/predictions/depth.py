"""How deep a value may be nested to be kept: what cannot be read back on any stack must not come into the log."""

import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

#: Levels of lists and objects. Readers, JSON and Parquet take some hundreds, and fewer below a deep stack.
DEEPEST = 32
_NESTING = {list, tuple, dict}


def is_too_deep(value: Any, *, most: int = DEEPEST) -> bool:
    """Tell whether a value has more than `most` levels of lists and objects; level by level, whatever the stack.

    Linear in what is in the value; a list of numbers costs some nanoseconds for each.
    """
    level = [value] if type(value) in _NESTING else []
    for _ in range(most):
        holders = [inner for inner in map(_contents, level) if not _adds_up(inner) and not _is_flat(inner)]
        if not holders:
            return False
        level = [one for inner in holders for one in inner if type(one) in _NESTING]
    return bool(level)


def first_too_deep(columns: Iterable[tuple[str, Any]]) -> str | None:
    """Return the name of the first column with a value that is nested too deep; None where there is none."""
    listed = [(name, _listed(column)) for name, column in columns if _may_nest(column)]
    if not listed or _is_flat(chain.from_iterable(column for _, column in listed)):
        return None
    return next((name for name, column in listed if any(map(is_too_deep, column))), None)


def _may_nest(column: Any) -> bool:
    return not isinstance(column, np.ndarray) or column.dtype.kind == "O"


def _listed(column: Any) -> Any:
    return column.tolist() if isinstance(column, np.ndarray) else column


def _contents(one: Any) -> Iterable[Any]:
    return one.values() if type(one) is dict else one


def _adds_up(values: Iterable[Any]) -> bool:
    """Tell whether all are numbers, in a quarter of the time that their types take: embeddings come this way."""
    try:
        sum(values)
    except (TypeError, OverflowError):
        return False
    return True


def _is_flat(values: Iterable[Any]) -> bool:
    return _NESTING.isdisjoint(map(type, values))


def flat_json(text: str) -> Any:
    """Return a value from its JSON; None where it is nested deeper than this stack takes, from before `DEEPEST`."""
    try:
        return json.loads(text)
    except RecursionError:
        return None
