"""What a model's raw output says: a class with its probabilities, or a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from headrace.errors import InvalidInput
from headrace.types import Arrays, Json, Task

Array: TypeAlias = np.ndarray[Any, Any]
_SCORES = ("probabilities", "probability", "probs", "scores", "logits", "predict_proba")
_LABELS = ("label", "labels", "answer", "class", "prediction", "predictions", "predict", "output")


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to some rows.

    Attributes:
        answer: shape (rows,), labels or numbers.
        scores: shape (rows, classes), probabilities, or None where the model gives only labels or numbers.
        classes: shape (classes,), the label that each column of `scores` stands for.
    """

    answer: Array
    scores: Array | None = None
    classes: Array | None = None


def task_of(truth: Array) -> Task:
    """Return the task that a column of truths looks like: fractions are regressed, anything else is classified."""
    values = np.asarray(truth)
    if values.dtype.kind == "f" and not np.all(values[np.isfinite(values)] == np.round(values[np.isfinite(values)])):
        return Task.REGRESSION
    many = values.dtype.kind in "iuf" and len(np.unique(values)) > max(50, len(values) // 5)
    return Task.REGRESSION if many else Task.CLASSIFICATION


def read_outputs(outputs: Arrays, task: Task, *, classes: Array | None = None, ignored: str | None = None) -> Answers:
    """Return what a batch's outputs say.

    One matrix is probabilities, or logits where its rows do not add up to 1; with several outputs, the one called
    `probabilities` (scores, logits …) and the one called `label` (answer, prediction …) are taken.

    Args:
        classes: the labels in the order of the model's columns; by default the columns' numbers.
        ignored: an output that is no answer.

    Raises:
        InvalidInput: no answer can be told among the outputs.
    """
    columns = {name: _stacked(column) for name, column in outputs.items() if name != ignored or len(outputs) == 1}
    scores = _choose(columns, _SCORES, 2)
    labels = _choose(columns, _LABELS, 1)
    if task is Task.REGRESSION:
        numbers = labels if labels is not None else scores
        if numbers is None:
            raise _no_answer(columns)
        return Answers(np.asarray(numbers, float).reshape(len(numbers), -1)[:, 0])
    if scores is None and labels is None:
        raise _no_answer(columns)
    if scores is None:
        assert labels is not None
        return Answers(labels)
    chances = probabilities(scores)
    names = np.arange(chances.shape[1]) if classes is None else np.asarray(classes)
    return Answers(labels if labels is not None else names[chances.argmax(axis=1)], chances, names)


def read_values(
    outputs: Sequence[Json], task: Task, *, classes: Array | None = None, ignored: str | None = None
) -> Answers:
    """Return what logged outputs, one JSON value per row, say."""
    if outputs and isinstance(outputs[0], Mapping):
        names = [name for name in outputs[0] if name != ignored]
        columns = {name: np.array([_member(row, name) for row in outputs]) for name in names}
        return read_outputs(columns, task, classes=classes)
    return read_outputs({"": np.array(outputs)}, task, classes=classes)


def probabilities(scores: Array) -> Array:
    """Return scores as probabilities: as they are where they are, by the logistic function or softmax otherwise."""
    values = np.asarray(scores, float).reshape(len(scores), -1)
    if values.shape[1] == 1:
        inside = values.size and np.all((values >= 0) & (values <= 1))
        chance = values if inside else 1 / (1 + np.exp(-np.clip(values, -500, 500)))
        return np.hstack([1 - chance, chance])
    if np.all(values >= 0) and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        return values
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _choose(columns: Mapping[str, Array], names: Sequence[str], dimensions: int) -> Array | None:
    fitting = {name: column for name, column in columns.items() if (column.ndim > 1) == (dimensions > 1)}
    for name in names:
        if name in fitting:
            return fitting[name]
    return next(iter(fitting.values())) if len(fitting) == 1 else None


def _stacked(column: Any) -> Array:
    values = np.asarray(column)
    return values.reshape(len(values), -1) if values.ndim > 1 else values


def _member(row: Json, name: str) -> Any:
    return row.get(name) if isinstance(row, dict) else None


def _no_answer(columns: Mapping[str, Array]) -> InvalidInput:
    names = ", ".join(f"`{name}` {column.shape}" for name, column in columns.items()) or "nothing"
    return InvalidInput(
        f"No answer can be told among the model's outputs ({names}).",
        "Name one output `probabilities` or `label`, or return a single one.",
    )
