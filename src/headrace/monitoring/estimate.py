"""Quality without labels: what each answer can be expected to cost, learnt on the holdout.

Classifiers: the chance that an answer is right, from the probability that the model gave it, calibrated by isotonic
regression (CBPE). Regressors: the expected absolute error, from inputs and answer (DLE). Both take for granted that
the same inputs still mean the same: a change of meaning (concept drift) is invisible to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import isotonic_regression

from headrace.evaluation.answers import Answers
from headrace.evaluation.base import Rows
from headrace.evaluation.labels import as_text, columns_of
from headrace.evaluation.metrics import correct, row_error
from headrace.monitoring.columns import Columns
from headrace.monitoring.profiles import OTHER, Categories, Numbers, categories, coded, numbers
from headrace.monitoring.statistics.boosting import Boosted
from headrace.monitoring.statistics.boosting import fit as boost
from headrace.types import Task

Array: TypeAlias = np.ndarray[Any, Any]
BLINDNESS = "an estimate from unlabelled rows, blind to a change of what the same inputs mean"
#: A class with fewer answers than this is calibrated together with the others.
_OWN_CURVE = 100
_FEWEST = 50
_MOST = 60_000
_ANSWER = "\x00answer"
#: So many rows of the mean error are added to each name's, for its place in their order.
_DRAWN = 20
#: More than the bins of any profile; the last code is for missing values.
_CODES = 128


@dataclass(frozen=True, slots=True)
class Curve:
    """A rising, piecewise linear map from a probability to the share of right answers."""

    at: Array
    share: Array


@dataclass(frozen=True, slots=True)
class Estimator:
    """What estimates losses.

    Attributes:
        curves: for classifiers, by answered label; `""` is for all others.
        expected: shape (2,), mean and variance of the expected loss on the holdout, and `rows` how many it had.
        model: for regressors, over the columns in `numbers` and `names`.
    """

    rows: int
    mean: float
    variance: float
    curves: dict[str, Curve] = field(default_factory=dict)
    model: Boosted | None = None
    numbers: dict[str, Numbers] = field(default_factory=dict)
    names: dict[str, Categories] = field(default_factory=dict)

    def losses(self, answers: Answers, columns: Columns) -> Array:
        """Return each row's expected loss: the chance of a wrong answer, or the expected absolute error."""
        if self.model is not None:
            given = Columns({**columns.numbers, _ANSWER: np.asarray(answers.answer, float)}, columns.names)
            return np.maximum(self.model.predict(_codes(given, self.numbers, self.names)), 0.0)
        score, labels = _given(answers), coded(answers.answer)
        found = np.empty(len(score))
        for code, label in enumerate(labels.names):
            chosen = labels.codes == code
            curve = self.curves.get(label, self.curves[""])
            found[chosen] = 1 - np.interp(score[chosen], curve.at, curve.share)
        return found


def fit(rows: Rows, *, task: Task, columns: Columns) -> Estimator | None:
    """Return what estimates losses, learnt from a labelled holdout; None where it is too small or has no scores."""
    if len(rows) < _FEWEST or (task is Task.CLASSIFICATION and rows.scores is None):
        return None
    found = _fit_curves(rows) if task is Task.CLASSIFICATION else _fit_errors(rows, columns)
    answers = Answers(np.asarray(rows.answer), rows.scores, rows.classes)
    expected = found.losses(answers, columns)
    return Estimator(
        len(rows), float(expected.mean()), float(expected.var()), found.curves, found.model, found.numbers, found.names
    )


def _fit_curves(rows: Rows) -> Estimator:
    answers = Answers(np.asarray(rows.answer), rows.scores, rows.classes)
    score, right, labels = _given(answers), correct(rows), as_text(np.asarray(rows.answer))
    curves = {"": _curve(score, right)}
    scores = np.asarray(rows.scores, float)
    if scores.shape[1] == 2:
        # Rows that were answered otherwise say as much about a class's probability; with many classes they would
        # outnumber those that count.
        true = columns_of(np.asarray(rows.truth), rows.classes, 2)
        names = as_text(np.arange(2) if rows.classes is None else np.asarray(rows.classes))
        return Estimator(
            len(rows), 0.0, 0.0,
            curves | {str(name): _curve(scores[:, at], np.asarray(true == at, float)) for at, name in enumerate(names)},
        )  # fmt: skip
    for label in np.unique(labels):
        chosen = labels == label
        if chosen.sum() >= _OWN_CURVE:
            curves[str(label)] = _curve(score[chosen], right[chosen])
    return Estimator(len(rows), 0.0, 0.0, curves)


def _curve(score: Array, right: Array) -> Curve:
    """Fit a curve. Equal scores are one point, however many rows have them; each step is kept by both of its ends."""
    at, places = np.unique(score, return_inverse=True)
    rows = np.bincount(places)
    found = isotonic_regression(np.bincount(places, right) / rows, weights=rows)
    kept = np.unique(np.concatenate([found.blocks[:-1], found.blocks[1:] - 1]))
    return Curve(at[kept], np.asarray(found.x)[kept])


def _given(answers: Answers) -> Array:
    """Return the probability that the model gave to its own answer."""
    assert answers.scores is not None
    scores = np.asarray(answers.scores, float)
    at = columns_of(np.asarray(answers.answer), answers.classes, scores.shape[1])
    return np.where(at >= 0, scores[np.arange(len(scores)), at], scores.max(axis=1))


def _fit_errors(rows: Rows, columns: Columns) -> Estimator:
    chosen = np.random.default_rng(0).permutation(len(rows))[:_MOST]
    given = {**columns.numbers, _ANSWER: np.asarray(rows.answer, float)}
    profiles = {name: numbers(np.asarray(values)[chosen]) for name, values in given.items()}
    error = np.abs(row_error(rows))[chosen]
    named = {name: _ordered(_taken(values, chosen), error) for name, values in columns.names.items()}
    codes = _codes(Columns(given, columns.names), profiles, named)[chosen]
    model = boost(codes, error, bins=_CODES)
    return Estimator(len(rows), 0.0, 0.0, {}, model, profiles, named)


def _codes(columns: Columns, profiles: Mapping[str, Numbers], named: Mapping[str, Categories]) -> Array:
    found = []
    for name, profile in profiles.items():
        values = columns.numbers.get(name)
        if values is None:  # The column is gone; the schema signal says so.
            values = np.full(_rows(columns), profile.mean)
        found.append(np.where(np.isnan(values), _CODES - 1, np.searchsorted(profile.edges, values, side="right")))
    for name, known in named.items():
        order = {value: at for at, value in enumerate(list(known.counts)[: _CODES - 1])}
        texts = [_key(one) for one in _listed(columns.names.get(name), _rows(columns))]
        found.append(np.array([order.get(text, _CODES - 1) for text in texts]))
    return np.stack(found, axis=1)


def _ordered(values: Any, error: Array) -> Categories:
    """Return a column's names in the order in which trees ask for them.

    Numbers that are few keep their order. For other names the best question of a tree is one about their order by mean
    error: Fisher (1958), JASA 53. Rare ones are drawn towards the middle.
    """
    found = categories(values)
    names = [name for name in found.counts if name != OTHER]
    try:
        rank = {name: float(name) for name in names}
    except ValueError:
        texts, overall = np.array([_key(one) for one in values.tolist()]), float(error.mean())
        rank = {name: _drawn(error[texts == name], overall) for name in names}
    order = sorted(names, key=rank.__getitem__)
    return replace(found, counts={name: found.counts[name] for name in order + [OTHER] * (OTHER in found.counts)})


def _drawn(errors: Array, overall: float) -> float:
    return float((errors.sum() + _DRAWN * overall) / (len(errors) + _DRAWN))


def _rows(columns: Columns) -> int:
    return len(columns.numbers[_ANSWER])


def _listed(values: Any, rows: int) -> list[Any]:
    return [None] * rows if values is None else values.tolist()


def _key(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _taken(values: Any, chosen: Array) -> Any:
    return values.take(chosen) if hasattr(values, "take") else np.asarray(values)[chosen]
