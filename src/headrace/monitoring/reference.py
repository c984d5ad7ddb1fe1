"""The reference profile: what answers, losses and inputs looked like on the holdout. No training data is needed later.

Saved as one JSON document and one `.npz` of plain arrays; nothing is pickled.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from headrace.errors import InvalidInput, NotFound
from headrace.evaluation.answers import Answers
from headrace.evaluation.base import Rows
from headrace.evaluation.labels import as_text
from headrace.evaluation.metrics import correct, measure_all, row_error
from headrace.files import write_atomically
from headrace.types import Json, Task

Array: TypeAlias = np.ndarray[Any, Any]
FORMAT = 1
DOCUMENT, ARRAYS = "reference.json", "reference.npz"
#: Quantile bins per numeric column: fine enough for rank tests, coarse enough for small windows.
BINS = 64


@dataclass(frozen=True, slots=True)
class Numbers:
    """The distribution of one numeric column.

    Attributes:
        edges: shape (bins - 1,), rising; bin i holds edges[i-1] <= value < edges[i].
        counts: shape (bins,), the reference's rows in each bin.
        mean: of the reference's rows; NaN where there are none.
    """

    edges: Array
    counts: Array
    mean: float = float("nan")

    def count(self, values: Array) -> Array:
        """Return how many of `values` are in each bin; NaN counts nowhere."""
        usable = values[~np.isnan(values)]
        return np.bincount(np.searchsorted(self.edges, usable, side="right"), minlength=len(self.edges) + 1)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a version's answers were like when it was judged.

    Attributes:
        rows: of the holdout.
        classes: labels in the order of the scores' columns; empty for a regressor or where there are no scores.
        answers: label to how often it was answered; empty for a regressor.
        outputs: distributions of the answers' numbers: `confidence` and one per class, or `answer` for a regressor.
        losses: shape (labelled rows,), per row: 1 for a wrong answer, or the absolute error; in the holdout's order.
        metrics: the holdout's metrics by name.
    """

    task: Task
    rows: int
    classes: tuple[str, ...]
    answers: dict[str, int]
    outputs: dict[str, Numbers]
    losses: Array
    metrics: dict[str, float]
    details: dict[str, Json] = field(default_factory=dict)

    @property
    def right(self) -> int:
        """Return how many answers were right (classification)."""
        return len(self.losses) - round(float(self.losses.sum()))


def build(rows: Rows, *, task: Task) -> Reference:
    """Return the reference profile of answers to a holdout that fitted nothing.

    Raises:
        InvalidInput: there are no rows.
    """
    if not len(rows):
        raise InvalidInput("A reference profile needs holdout rows, and there are none.")
    answers = Answers(np.asarray(rows.answer), rows.scores, rows.classes)
    columns = output_columns(answers, task)
    counts: dict[str, int] = {}
    if task is Task.CLASSIFICATION:
        labels, found = np.unique(as_text(answers.answer), return_counts=True)
        counts = {str(label): int(count) for label, count in zip(labels, found, strict=True)}
    return Reference(
        task,
        len(rows),
        class_names(answers),
        counts,
        {name: numbers(values) for name, values in columns.items()},
        losses(rows, task),
        dict(measure_all(rows, task)),
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


def numbers(values: Array) -> Numbers:
    """Return the distribution of a column, over its own quantiles."""
    usable = values[~np.isnan(values)]
    if not len(usable):
        return Numbers(np.empty(0), np.zeros(1, int))
    edges = np.unique(np.quantile(usable, np.linspace(0, 1, BINS + 1)[1:-1]))
    empty = Numbers(edges, np.zeros(len(edges) + 1, int))
    return Numbers(edges, empty.count(usable), float(usable.mean()))


def save(reference: Reference, folder: Path) -> None:
    """Write a profile into a folder."""
    arrays = {"losses": reference.losses}
    for position, one in enumerate(reference.outputs.values()):
        arrays |= {f"outputs_{position}_edges": one.edges, f"outputs_{position}_counts": one.counts}
        arrays[f"outputs_{position}_mean"] = np.array(one.mean)
    document: dict[str, Json] = {
        "format": FORMAT,
        "task": reference.task.value,
        "rows": reference.rows,
        "classes": list(reference.classes),
        "answers": dict(reference.answers),
        "outputs": list(reference.outputs),
        "metrics": dict(reference.metrics),
        "details": reference.details,
    }
    raw = io.BytesIO()
    np.savez_compressed(raw, allow_pickle=False, **arrays)
    write_atomically(folder / ARRAYS, raw.getvalue(), mode=0o644)
    write_atomically(folder / DOCUMENT, json.dumps(document, indent=1), mode=0o644)


def load(folder: Path) -> Reference:
    """Return the profile in a folder.

    Raises:
        NotFound: there is none.
        InvalidInput: it is of a format that this headrace does not know.
    """
    try:
        document = json.loads((folder / DOCUMENT).read_text())
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            arrays = dict(stored)
    except FileNotFoundError as cause:
        raise NotFound(
            f"There is no reference profile in {folder}.", "Release the version again to make one."
        ) from cause
    if document["format"] != FORMAT:
        raise InvalidInput(f"The reference profile in {folder} has format {document['format']}, not {FORMAT}.")
    outputs = {
        name: Numbers(*(arrays[f"outputs_{position}_{part}"] for part in ("edges", "counts", "mean")))
        for position, name in enumerate(document["outputs"])
    }
    return Reference(
        Task(document["task"]),
        document["rows"],
        tuple(document["classes"]),
        document["answers"],
        outputs,
        arrays["losses"],
        document["metrics"],
        document["details"],
    )
