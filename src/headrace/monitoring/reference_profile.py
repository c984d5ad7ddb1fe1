"""The reference profile: what answers, losses and inputs looked like on the holdout. It needs no data later."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from headrace.errors import InvalidInput
from headrace.evaluation.answers import Answers
from headrace.evaluation.base import Rows
from headrace.evaluation.labels import as_text
from headrace.evaluation.metrics import correct, measure_all, row_error
from headrace.monitoring.columns import Columns, expand, fields_of, vocabulary_of
from headrace.monitoring.embeddings import columns_of, fitted_rows, learned, matrix_of
from headrace.monitoring.estimate import Estimator, fit
from headrace.monitoring.profiles import Categories, Field, Groups, Numbers, categories, groups_of, numbers
from headrace.monitoring.statistics.dependence import correlation_time
from headrace.types import Json, Task

Array: TypeAlias = np.ndarray[Any, Any]
#: A numeric input with fewer different values is counted by value.
_FEW_VALUES = 10


@dataclass(frozen=True, slots=True)
class Embedding:
    """Which of the columns is an embedding, and whether the model gives it rather than takes it."""

    name: str
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """What a version's answers and inputs were like when it was judged.

    Attributes:
        rows: of the holdout.
        classes: labels in the order of the scores' columns; empty for a regressor or where there are no scores.
        answers: how often each label was answered; empty for a regressor.
        outputs: distributions of the answers' numbers: `confidence` and one per class, or `answer` for a regressor.
        losses: shape (rows,), per row: 1 for a wrong answer, or the absolute error; in the holdout's order.
        metrics: the holdout's metrics by name.
        fields: the inputs by kind; `numbers` and `names` are what is watched of them.
        estimator: what estimates quality where there are no labels; None where nothing can.
        loss_time: the correlation time of the losses; 1 for independent rows.
        slices: input to the groups of the losses' rows that are judged each by itself.
    """

    task: Task
    rows: int
    classes: tuple[str, ...]
    answers: Categories
    outputs: dict[str, Numbers]
    losses: Array
    metrics: dict[str, float]
    fields: tuple[Field, ...] = ()
    numbers: dict[str, Numbers] = field(default_factory=dict)
    names: dict[str, Categories] = field(default_factory=dict)
    estimator: Estimator | None = None
    loss_time: float = 1.0
    details: dict[str, Json] = field(default_factory=dict)
    slices: dict[str, Groups] = field(default_factory=dict)

    @property
    def embedding(self) -> str | None:
        """Return the output that holds each row's embedding; None where none is watched."""
        return next((one.name for one in self.fields if one.is_output), None)

    @property
    def right(self) -> int:
        """Return how many answers were right (classification)."""
        return len(self.losses) - round(float(self.losses.sum()))


def build(
    rows: Rows,
    *,
    task: Task,
    inputs: Mapping[str, Any] | None = None,
    vocabulary: Mapping[str, Any] | None = None,
    in_time_order: bool = False,
    embedding: Embedding | None = None,
) -> Reference:
    """Return the reference profile of answers to a holdout that fitted nothing.

    Args:
        inputs: the rows' inputs by field name: arrays of shape (rows,) or (rows, …), or Arrow arrays.
        vocabulary: texts of other rows (the training rows, say) by field name, for the share of unknown words; without
            it half of the holdout gives the words and the other half the share, so that it is never told by itself.
        in_time_order: whether the rows are a stream, so that their dependence in time can be allowed for.
        embedding: which of the inputs is one.

    Raises:
        InvalidInput: there are no rows.
    """
    if not len(rows):
        raise InvalidInput("A reference profile needs holdout rows, and there are none.")
    answers = Answers(np.asarray(rows.answer), rows.scores, rows.classes)
    outputs = {
        name: numbers(values, in_time_order=in_time_order) for name, values in output_columns(answers, task).items()
    }
    lost = losses(rows, task)
    fields, watched = _inputs(inputs or {}, vocabulary or {}, embedding)
    empty = Categories({})
    return Reference(
        task,
        len(rows),
        class_names(answers),
        categories(as_text(answers.answer), in_time_order=in_time_order) if task is Task.CLASSIFICATION else empty,
        outputs,
        lost,
        dict(measure_all(rows, task)),
        fields,
        {name: numbers(values, in_time_order=in_time_order) for name, values in watched.numbers.items()},
        {name: categories(values, in_time_order=in_time_order) for name, values in watched.names.items()},
        fit(rows, task=task, columns=watched),
        correlation_time(lost) if in_time_order else 1.0,
        {"in_time_order": in_time_order},
        # Production knows the inputs alone, so other columns of the holdout cannot be followed there.
        {name: groups_of(values) for name, values in rows.slices.items() if name in (inputs or {})},
    )


def output_columns(answers: Answers, task: Task) -> dict[str, Array]:
    """Return the numbers that answers are watched by."""
    if task is Task.REGRESSION:
        return {"answer": np.asarray(answers.answer, float)}
    if answers.scores is None:
        return {}
    scores = np.asarray(answers.scores, float)
    found = {"confidence": scores.max(axis=1)}
    return found | {f"probability of {name}": scores[:, at] for at, name in enumerate(class_names(answers))}


def class_names(answers: Answers) -> tuple[str, ...]:
    """Return the labels of the scores' columns as texts."""
    if answers.scores is None:
        return ()
    if answers.classes is None:
        return tuple(str(column) for column in range(answers.scores.shape[1]))
    return tuple(str(name) for name in as_text(np.asarray(answers.classes)))


def losses(rows: Rows, task: Task) -> Array:
    """Return each row's loss: 1 for a wrong answer, or the absolute error."""
    return 1 - correct(rows) if task is Task.CLASSIFICATION else np.abs(row_error(rows))


def _inputs(
    inputs: Mapping[str, Any], vocabulary: Mapping[str, Any], embedding: Embedding | None
) -> tuple[tuple[Field, ...], Columns]:
    fields = fields_of(_flat(inputs), {})
    known: list[Field] = []
    halves: dict[str, Array] = {}
    for one in fields:
        if embedding is not None and one.name == embedding.name:
            matrix = matrix_of(inputs[one.name])
            made = Field(one.name, "embedding", matrix.shape[1], is_output=embedding.is_output)
            known.append(learned(made, matrix))
            halves |= dict.fromkeys(columns_of(known[-1], matrix), ~fitted_rows(len(matrix)))
        elif one.kind == "text" and one.name in vocabulary:
            known.append(Field(one.name, "text", 0, vocabulary_of(vocabulary[one.name])))
        elif one.kind == "text":
            texts = list(inputs[one.name])
            known.append(Field(one.name, "text", 0, vocabulary_of(texts[::2])))
            halves[f"unknown words in {one.name}"] = ~fitted_rows(len(texts))
        elif one.kind == "number" and len(np.unique(np.asarray(inputs[one.name], float))) <= _FEW_VALUES:
            known.append(Field(one.name, "number" if _is_constant(inputs[one.name]) else "category"))
        else:
            known.append(one)
    watched = expand(_flat(inputs), known)
    for name, chosen in halves.items():
        watched.numbers[name] = np.where(chosen, watched.numbers[name], np.nan)
    return tuple(known), watched


def _is_constant(values: Any) -> bool:
    column = np.asarray(values, float)
    return len(np.unique(column[~np.isnan(column)])) <= 1


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: values.reshape(len(values), -1) if isinstance(values, np.ndarray) and values.ndim > 2 else values
        for name, values in inputs.items()
    }
