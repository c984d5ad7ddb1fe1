"""A window by columns, which is how signals look at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from headrace.evaluation.answers import Answers, read_values
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Window
from headrace.monitoring.columns import Columns
from headrace.predictions.base import is_truth
from headrace.types import Json, Task

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows by column.

    Attributes:
        inputs: by field name, shape (rows,) or (rows, width); texts and mixed values as objects, None where missing.
        answers: what the model said.
        truth: shape (rows,), what turned out to be true; only meaningful where `labelled`.
        labelled: shape (rows,), bool.
        latency_ms: shape (rows,); empty where it is not known.
        watched: what is looked at of the inputs (`columns.expand`).
        seconds: shape (rows,), when the rows were asked, since 1970; empty where it is not known.
        useless: actuals that are no truth (null, lists, texts where numbers belong); their rows are not `labelled`.
    """

    inputs: Mapping[str, Array]
    answers: Answers
    truth: Array
    labelled: Array
    latency_ms: Array = field(default_factory=lambda: np.empty(0))
    seconds: Array = field(default_factory=lambda: np.empty(0))
    ids: Sequence[str] = ()
    watched: Columns = field(default_factory=lambda: Columns({}, {}))
    useless: int = 0

    def __len__(self) -> int:
        return len(self.answers.answer)

    def rows(self) -> Rows:
        """Return the labelled rows as evaluation takes them."""
        chosen = np.asarray(self.labelled, bool)
        scores = self.answers.scores
        return Rows(
            np.flatnonzero(chosen),
            self.truth[chosen],
            self.answers.answer[chosen],
            None if scores is None else scores[chosen],
            {},
            self.answers.classes,
        )


def frame_of(window: Window, task: Task, *, classes: Array | None = None, embedding: str | None = None) -> Frame:
    """Return a window by columns.

    Args:
        embedding: the output that is no answer but each row's embedding, watched beside the inputs.

    Raises:
        InvalidInput: the outputs say nothing that can be told for an answer.
    """
    predictions = [row.prediction for row in window.rows]
    names = list(dict.fromkeys(name for one in predictions for name in one.inputs))
    known = np.array([row.is_labelled for row in window.rows], bool)
    labelled = known & np.array([is_usable(row.actual, task) for row in window.rows], bool)
    inputs = {name: column([one.inputs.get(name) for one in predictions]) for name in names}
    if embedding is not None:
        given = [one.output.get(embedding) if isinstance(one.output, Mapping) else None for one in predictions]
        inputs[embedding] = column(given)
    return Frame(
        inputs,
        read_values([one.output for one in predictions], task, classes=classes, ignored=embedding),
        truths([row.actual for row in window.rows], labelled, task),
        labelled,
        np.array([one.latency_ms for one in predictions], float),
        np.array([one.at.timestamp() for one in predictions], float),
        [one.id for one in predictions],
        useless=int(known.sum() - labelled.sum()),
    )


def column(values: Sequence[Json]) -> Array:
    """Return one field's values: numbers as floats (None as NaN), lists as a matrix, the rest as objects."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, list):
        widths = {len(value) for value in values if isinstance(value, list)}
        if len(widths) == 1 and None not in values:
            matrix = np.array(values)
            if matrix.dtype.kind in "biuf":
                return matrix.reshape(len(values), -1).astype(np.float32)
    elif all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return np.array([np.nan if value is None else value for value in values], float)
    found = np.empty(len(values), object)
    found[:] = values
    return found


def truths(values: Sequence[Json], labelled: Array, task: Task) -> Array:
    """Return truths as numbers for a regressor (NaN where there is no number), as labels for a classifier."""
    if task is Task.REGRESSION:
        return np.array([_number(value) for value in values], float)
    known = [value for value, has in zip(values, labelled, strict=True) if has]
    if known and all(isinstance(value, int | float) for value in known):
        return np.array([value if has else -1 for value, has in zip(values, labelled, strict=True)])
    return np.array([_label(value) if has else "" for value, has in zip(values, labelled, strict=True)], object)


def is_usable(value: Json, task: Task) -> bool:
    """Tell whether an answer to the task can be compared with an actual."""
    return is_truth(value) and (task is Task.CLASSIFICATION or isinstance(value, int | float))


def _label(value: Json) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
