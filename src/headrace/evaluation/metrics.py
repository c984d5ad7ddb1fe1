"""Metrics by name: what each is, which way is better, and its loss per row where it is a mean over rows."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from headrace.errors import InvalidConfig
from headrace.evaluation.base import Rows
from headrace.evaluation.labels import columns_of, comparable
from headrace.types import Task

Array: TypeAlias = np.ndarray[Any, Any]
_FLOOR = 1e-15


@dataclass(frozen=True, slots=True)
class MetricKind:
    """One metric.

    Attributes:
        measure: rows to the metric's value.
        per_row: rows to shape (rows,), whose mean is the metric; None where it is no mean over rows.
        is_zero_one: whether `per_row` is 0 or 1 for each row.
    """

    name: str
    task: Task
    higher_is_better: bool
    measure: Callable[[Rows], float]
    per_row: Callable[[Rows], Array] | None = None
    is_zero_one: bool = False
    needs_scores: bool = False


def metric(name: str, task: Task) -> MetricKind:
    """Return the metric of a name.

    Raises:
        InvalidConfig: there is none of that name for the task; the nearest is named.
    """
    known = {one.name: one for one in METRICS if one.task is task}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower().replace("-", "_").replace(" ", "_"), known, n=1, cutoff=0.5)
    hint = f"Did you mean `{close[0]}`? " if close else ""
    raise InvalidConfig(
        f"The gate names the metric `{name}`, which headrace does not know for {task.value}.",
        f"{hint}Known: {', '.join(sorted(known))}.",
    )


def measure_all(rows: Rows, task: Task) -> Mapping[str, float]:
    """Return every metric of the task that can be computed from these rows."""
    usable = [one for one in METRICS if one.task is task and (rows.scores is not None or not one.needs_scores)]
    with np.errstate(over="ignore", invalid="ignore"):
        values = {one.name: one.measure(rows) for one in usable} if len(rows) else {}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def correct(rows: Rows) -> Array:
    """Return shape (rows,), 1.0 where the answer is the truth."""
    truth, answer = comparable(rows.truth, rows.answer)
    return np.asarray(truth == answer, float)


def row_log_loss(rows: Rows) -> Array:
    """Return shape (rows,), minus the logarithm of the probability that was given to the truth, from 0 to 34.5."""
    return np.asarray(-np.log(np.clip(_score_of_truth(rows), _FLOOR, 1)))


def row_brier(rows: Rows) -> Array:
    """Return shape (rows,), the squared distance between the probabilities and the truth (0 to 2). Brier (1950)."""
    scores, own = _scores(rows), _score_of_truth(rows)
    return np.asarray(np.square(scores).sum(axis=1) - 2 * own + 1)


def accuracy(rows: Rows) -> float:
    """Return the share of rows whose answer is the truth."""
    return float(correct(rows).mean())


def recalls(rows: Rows) -> Mapping[str, float]:
    """Return the share of each class's rows that was answered right, by class."""
    truth, _ = comparable(rows.truth, rows.answer)
    right = correct(rows)
    return {str(one): float(right[truth == one].mean()) for one in np.unique(truth)}


def worst_class(rows: Rows) -> float:
    """Return the lowest recall of any class that the truth has."""
    return min(recalls(rows).values())


def balanced_accuracy(rows: Rows) -> float:
    """Return the mean recall over the truth's classes."""
    return float(np.mean(list(recalls(rows).values())))


def macro_precision(rows: Rows) -> float:
    """Return the mean precision over classes; 0 for a class that is never answered."""
    _, answered, _, hits = _per_class(rows)
    return float(np.mean(hits / np.maximum(answered, 1)))


def macro_f1(rows: Rows) -> float:
    """Return the mean over classes of the harmonic mean of precision and recall."""
    _, answered, present, hits = _per_class(rows)
    return float(np.mean(2 * hits / np.maximum(answered + present, 1)))


def calibration_error(rows: Rows) -> float:
    """Return the expected calibration error of the highest score over ten equal-width bins. Guo et al. (2017).

    Not a number where a score is none.
    """
    confidence = _scores(rows).max(axis=1)
    if not np.isfinite(_scores(rows)).all():
        return float("nan")
    right = correct(rows)
    bins = np.clip(confidence * 10, 0, 9).astype(int)
    counts = np.bincount(bins, minlength=10)
    gaps = np.bincount(bins, right, 10) - np.bincount(bins, confidence, 10)
    return float(np.abs(gaps).sum() / counts.sum())


def roc_auc(rows: Rows) -> float:
    """Return the area under the ROC curve; over more than two classes, the mean of each against the rest."""
    from scipy.stats import rankdata

    scores = _scores(rows)
    columns = columns_of(np.asarray(rows.truth), rows.classes, scores.shape[1])
    areas = []
    for column in range(scores.shape[1]) if scores.shape[1] > 2 else [scores.shape[1] - 1]:
        positive = columns == column
        if positive.any() and not positive.all():
            ranks = rankdata(scores[:, column])
            yes, no = positive.sum(), (~positive).sum()
            areas.append((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))
    return float(np.mean(areas)) if areas else float("nan")


def row_error(rows: Rows) -> Array:
    """Return shape (rows,), the answer minus the truth."""
    return np.asarray(np.subtract(np.asarray(rows.answer, float), np.asarray(rows.truth, float)))


def r2(rows: Rows) -> float:
    """Return the coefficient of determination; not a number where all truths are equal."""
    truth = np.asarray(rows.truth, float)
    total = float(np.square(truth - truth.mean()).sum())
    return 1 - float(np.square(row_error(rows)).sum()) / total if total > 0 else float("nan")


def mape(rows: Rows) -> float:
    """Return the mean absolute error relative to the truth; not a number where a truth is 0."""
    truth = np.asarray(rows.truth, float)
    return float(np.mean(np.abs(row_error(rows) / truth))) if np.all(truth != 0) else float("nan")


def _scores(rows: Rows) -> Array:
    if rows.scores is None:
        raise InvalidConfig(
            "The gate asks for a metric of probabilities, but the model answers with classes only.",
            "Let the model return probabilities, or gate on accuracy, macro_f1 or worst_class.",
        )
    return np.asarray(rows.scores, float)


def _score_of_truth(rows: Rows) -> Array:
    scores = _scores(rows)
    columns = columns_of(np.asarray(rows.truth), rows.classes, scores.shape[1])
    return np.asarray(np.where(columns >= 0, scores[np.arange(len(scores)), columns], 0.0))


def _per_class(rows: Rows) -> tuple[Array, Array, Array, Array]:
    truth, answer = comparable(rows.truth, rows.answer)
    names, codes = np.unique(np.concatenate([truth, answer]), return_inverse=True)
    true, given = codes[: len(truth)], codes[len(truth) :]
    count = len(names)
    hits = np.bincount(true[true == given], minlength=count)
    return names, np.bincount(given, minlength=count), np.bincount(true, minlength=count), hits


def _mean(per_row: Callable[[Rows], Array]) -> Callable[[Rows], float]:
    return lambda rows: float(np.mean(per_row(rows)))


def _kinds() -> tuple[MetricKind, ...]:
    c, r = Task.CLASSIFICATION, Task.REGRESSION

    def absolute(rows: Rows) -> Array:
        return np.abs(row_error(rows))

    def squared(rows: Rows) -> Array:
        return np.square(row_error(rows))

    return (
        MetricKind("accuracy", c, True, accuracy, correct, is_zero_one=True),
        MetricKind("balanced_accuracy", c, True, balanced_accuracy),
        MetricKind("macro_f1", c, True, macro_f1),
        MetricKind("macro_precision", c, True, macro_precision),
        MetricKind("worst_class", c, True, worst_class),
        MetricKind("log_loss", c, False, _mean(row_log_loss), row_log_loss, needs_scores=True),
        MetricKind("brier", c, False, _mean(row_brier), row_brier, needs_scores=True),
        MetricKind("calibration_error", c, False, calibration_error, needs_scores=True),
        MetricKind("roc_auc", c, True, roc_auc, needs_scores=True),
        MetricKind("mae", r, False, _mean(absolute), absolute),
        MetricKind("mse", r, False, _mean(squared), squared),
        MetricKind("rmse", r, False, lambda rows: float(np.sqrt(np.mean(squared(rows))))),
        MetricKind("median_ae", r, False, lambda rows: float(np.median(absolute(rows)))),
        MetricKind("max_error", r, False, lambda rows: float(np.max(absolute(rows)))),
        MetricKind("bias", r, False, lambda rows: float(abs(np.mean(row_error(rows))))),
        MetricKind("mape", r, False, mape),
        MetricKind("r2", r, True, r2),
    )


METRICS = _kinds()
