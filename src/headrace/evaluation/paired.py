"""Paired comparison: candidate against champion on the same rows, with an interval and the number of rows it needs.

Differences are oriented so that above 0 the candidate is better, whatever the metric.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t

from headrace.evaluation.base import Rows
from headrace.evaluation.labels import comparable
from headrace.evaluation.metrics import MetricKind
from headrace.types import Task, Verdict

Array: TypeAlias = np.ndarray[Any, Any]
_POWER = 0.8
_RESAMPLES = 1000
_BOOTSTRAP_CELLS = 20_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a candidate does against the champion on the same rows.

    Attributes:
        difference: candidate minus champion, turned so that above 0 is better.
        low: one-sided lower bound of the difference at the asked confidence; `high` the upper one.
        p_value: two-sided, of "no difference".
        rows_needed: about how many rows would show with 80 % power that an equal candidate is within the margin;
            0 where no number would.
    """

    rows: int
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    p_value: float
    rows_needed: int

    def verdict(self, margin: float) -> Verdict:
        """Return *pass* if it is shown to be no worse than the margin, *fail* if it is shown to be worse.

        What has no finite difference never passes.
        """
        if math.isfinite(self.difference) and self.low >= -margin:
            return Verdict.PASS
        return Verdict.FAIL if self.high < -margin else Verdict.NOT_ENOUGH_EVIDENCE


def pair(candidate: Rows, champion: Rows) -> tuple[Rows, Rows]:
    """Return both with the rows that they share, in the same order."""
    _, ours, theirs = np.intersect1d(candidate.ids, champion.ids, return_indices=True)
    return take(candidate, ours), take(champion, theirs)


def differing(candidate: Rows, champion: Rows) -> int:
    """Return how many rows, already paired, have another truth for the one than for the other."""
    ours, theirs = comparable(candidate.truth, champion.truth)
    if "f" in (ours.dtype.kind, theirs.dtype.kind):
        # The same number may have been written in single precision once.
        return int((~np.isclose(ours, theirs, rtol=1e-6, atol=0, equal_nan=True)).sum())
    return int(np.sum(ours != theirs))


def take(rows: Rows, chosen: Array) -> Rows:
    """Return the chosen rows (a mask or positions)."""
    return Rows(
        rows.ids[chosen],
        rows.truth[chosen],
        rows.answer[chosen],
        None if rows.scores is None else rows.scores[chosen],
        {name: values[chosen] for name, values in rows.slices.items()},
        rows.classes,
    )


def compare(kind: MetricKind, candidate: Rows, champion: Rows, *, margin: float, confidence: float) -> Comparison:
    """Compare two versions on the same rows, already paired.

    A share of right answers is compared exactly (McNemar) with Tango's score interval, a mean of losses by the t
    distribution of the differences, and anything else by a paired bootstrap with a fixed seed. Where the candidate
    alone has no finite value, it is the worst that there is.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _compare(kind, candidate, champion, margin, confidence)


def _compare(kind: MetricKind, candidate: Rows, champion: Rows, margin: float, confidence: float) -> Comparison:
    if kind.is_zero_one and kind.per_row is not None:
        return _shares(kind.per_row(candidate), kind.per_row(champion), margin, confidence)
    if kind.per_row is not None:
        return _means(kind, candidate, champion, margin, confidence)
    return _bootstrap(kind, candidate, champion, margin, confidence)


def tango_bound(better: int, worse: int, rows: int, z: float) -> float:
    """Return where Tango's score statistic for the difference of paired shares equals `z`.

    Tango (1998), Statistics in Medicine 17. A positive `z` gives the lower bound, a negative one the upper.

    Args:
        better: rows that only the first got right; `worse` those that only the second did.
    """

    def excess(delta: float) -> float:
        b = -better - worse + (2 * rows - better + worse) * delta
        c = -worse * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
        variance = rows * (2 * q + delta * (1 - delta))
        distance = better - worse - rows * delta
        return distance - z * math.sqrt(max(variance, 0.0))

    edge = 1 - 1e-12
    if excess(-edge) <= 0:
        return -1.0
    if excess(edge) >= 0:
        return 1.0
    return float(brentq(excess, -edge, edge, xtol=1e-10))


def rows_to_show(variance: float, margin: float, confidence: float) -> int:
    """Return the rows that show, with 80 % power, that an equal candidate is within the margin.

    Args:
        variance: of the difference of one row's losses.
    """
    if margin <= 0:
        return 0
    needed = float(norm.ppf(confidence) + norm.ppf(_POWER)) ** 2 * variance / margin**2
    return math.ceil(needed) if math.isfinite(needed) else 0


def _shares(candidate: Array, champion: Array, margin: float, confidence: float) -> Comparison:
    rows = len(candidate)
    better = int(np.sum((candidate == 1) & (champion == 0)))
    worse = int(np.sum((candidate == 0) & (champion == 1)))
    z = float(norm.ppf(confidence))
    # Where they never differ, the variance is bounded by what Tango's interval allows rather than taken for zero.
    variance = max(better + worse, 1) / rows
    return Comparison(
        rows,
        float(candidate.mean()),
        float(champion.mean()),
        (better - worse) / rows,
        tango_bound(better, worse, rows, z),
        tango_bound(better, worse, rows, -z),
        float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
        max(rows_to_show(variance, margin, confidence), math.ceil(z * z * (1 - margin) / margin) if margin else 0),
    )


def _means(kind: MetricKind, candidate: Rows, champion: Rows, margin: float, confidence: float) -> Comparison:
    assert kind.per_row is not None
    ours, theirs = kind.per_row(candidate), kind.per_row(champion)
    gains = ours - theirs if kind.higher_is_better else theirs - ours
    if not np.isfinite(gains).all():
        return _without_difference(len(gains), float(ours.mean()), float(theirs.mean()))
    rows, mean, spread = len(gains), float(gains.mean()), float(gains.std(ddof=1))
    error = spread / math.sqrt(rows)
    reach = float(t.ppf(confidence, rows - 1)) * error
    p_value = float(2 * t.sf(abs(mean) / error, rows - 1)) if error > 0 else float(mean == 0)
    needed = rows_to_show(spread * spread, margin, confidence)
    return Comparison(rows, float(ours.mean()), float(theirs.mean()), mean, mean - reach, mean + reach, p_value, needed)


def _bootstrap(kind: MetricKind, candidate: Rows, champion: Rows, margin: float, confidence: float) -> Comparison:
    rows, sign = len(candidate), 1 if kind.higher_is_better else -1
    if not kind.needs_scores and kind.task is Task.CLASSIFICATION:
        candidate, champion = _coded(candidate, champion)
    ours, theirs = kind.measure(candidate), kind.measure(champion)
    if not math.isfinite(ours - theirs):
        return _without_difference(rows, ours, theirs)
    chance = np.random.default_rng(0)
    resamples = int(np.clip(_BOOTSTRAP_CELLS // rows, 200, _RESAMPLES))
    drawn = np.empty(resamples)
    for number in range(resamples):
        chosen = chance.integers(0, rows, rows)
        drawn[number] = _gain(sign, kind.measure(take(candidate, chosen)), kind.measure(take(champion, chosen)))
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return _without_difference(rows, ours, theirs)
    difference = sign * (ours - theirs)
    # Between two draws, one of which is infinite, there is nothing to interpolate.
    low = np.quantile(drawn, 1 - confidence, method="lower")
    high = np.quantile(drawn, confidence, method="higher")
    tail = min(float(np.mean(drawn <= 0)), float(np.mean(drawn >= 0)))
    needed = rows_to_show(float(drawn.var()) * rows, margin, confidence)
    return Comparison(
        rows, ours, theirs, difference, float(low), float(high), min(1.0, 2 * max(tail, 1 / len(drawn))), needed
    )


def _gain(sign: int, ours: float, theirs: float) -> float:
    """Return how much better the candidate is: the least that there is where it alone has no finite value."""
    if math.isfinite(ours) and math.isfinite(theirs):
        return sign * (ours - theirs)
    if math.isfinite(ours) or math.isfinite(theirs):
        return math.inf if math.isfinite(ours) else -math.inf
    return math.nan


def _without_difference(rows: int, ours: float, theirs: float) -> Comparison:
    if math.isfinite(theirs) and not math.isfinite(ours):
        return Comparison(rows, ours, theirs, -math.inf, -math.inf, -math.inf, 0.0, 0)
    return Comparison(rows, ours, theirs, math.nan, -math.inf, math.inf, 1.0, 0)


def _coded(candidate: Rows, champion: Rows) -> tuple[Rows, Rows]:
    """Return both with labels as small numbers, which resamples are counted by much faster than texts."""
    found = []
    for rows in (candidate, champion):
        truth, answer = comparable(rows.truth, rows.answer)
        codes = np.unique(np.concatenate([truth, answer]), return_inverse=True)[1]
        found.append(Rows(rows.ids, codes[: len(truth)], codes[len(truth) :]))
    return found[0], found[1]
