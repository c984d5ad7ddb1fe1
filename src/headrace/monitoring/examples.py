"""Rows worth a look: those that the model got wrong or was unsure of, for people and labelling tools.

They are for review. A training set made of them alone would teach a distorted world, so none is chosen for being hard.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.evaluation.answers import read_values
from headrace.evaluation.labels import comparable
from headrace.monitoring.labelling import Task as Labelling
from headrace.predictions.base import Joined
from headrace.types import Task


@dataclass(frozen=True, slots=True)
class HardExample:
    """One row with the reason why it is here.

    Attributes:
        hardness: 1 and more for wrong answers, below 1 for unsure ones; the higher, the harder.
    """

    row: Joined
    reason: str
    hardness: float


def hardest_of(
    pages: Iterable[Sequence[Joined]], task: Task, *, classes: Sequence[str] = (), most: int = 200,
    usual_error: float | None = None, embedding: str | None = None,
) -> list[HardExample]:  # fmt: skip
    """Return the hardest rows of many pages; no more than one page and the hardest are kept in memory."""
    kept: list[HardExample] = []
    for page in pages:
        kept += hard_examples(page, task, classes=classes, most=most, usual_error=usual_error, embedding=embedding)
        kept = sorted(kept, key=lambda one: -one.hardness)[:most]
    return kept


def hard_examples(
    rows: Sequence[Joined], task: Task, *, classes: Sequence[str] = (), most: int = 200,
    usual_error: float | None = None, embedding: str | None = None,
) -> list[HardExample]:  # fmt: skip
    """Return the hardest rows, hardest first: wrong answers by how sure they were, then right ones by how unsure.

    Args:
        usual_error: of a regressor; errors over twice as large are hard. By default the rows' own median.
        embedding: the output that is no answer.
    """
    if not rows:
        return []
    outputs, labels = [row.prediction.output for row in rows], np.array(classes) if classes else None
    answers = read_values(outputs, task, classes=labels, ignored=embedding)
    truth = [row.actual for row in rows]
    known = np.array([row.is_labelled for row in rows])
    if task is Task.REGRESSION:
        errors = [
            abs(float(given) - float(true)) if has and isinstance(true, int | float) else 0.0
            for given, true, has in zip(answers.answer, truth, known, strict=True)
        ]
        scale = usual_error or (float(np.median([one for one in errors if one])) if any(errors) else 1.0)
        found = [
            HardExample(row, f"off by {error:.3g}", error / scale)
            for row, error in zip(rows, errors, strict=True)
            if error > 2 * scale
        ]
    else:
        found = _classified(rows, answers.answer, answers.scores, known)
    return sorted(found, key=lambda one: -one.hardness)[:most]


def _classified(
    rows: Sequence[Joined], answer: np.ndarray, scores: np.ndarray | None, known: np.ndarray
) -> list[HardExample]:
    actuals = np.array([str(row.actual) if has else "" for row, has in zip(rows, known, strict=True)])
    true, given = comparable(actuals, answer.astype(str))
    found = []
    for at, row in enumerate(rows):
        sure = float(scores[at].max()) if scores is not None else 1.0
        second = float(np.sort(scores[at])[-2]) if scores is not None and scores.shape[1] > 1 else 0.0
        if known[at] and true[at] != given[at]:
            found.append(HardExample(row, f"answered {given[at]} ({sure:.0%} sure); it was {true[at]}", 1 + sure))
        elif scores is not None and sure - second < 0.2:
            found.append(HardExample(row, f"unsure: {sure:.0%} for {given[at]}, {second:.0%} for another", 1 - sure))
    return found


def as_tasks(examples: Sequence[HardExample]) -> list[Labelling]:
    """Return examples as rows to label."""
    return [Labelling(one.row, one.reason, {"hardness": round(one.hardness, 4)}) for one in examples]
