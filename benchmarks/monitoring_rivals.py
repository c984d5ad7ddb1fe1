"""Rivals of the power tables, in a few lines each: plain KS, Evidently's default tests, ADWIN and PageHinkley."""

import numpy as np
from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

from headrace.monitoring.frame import Frame
from headrace.monitoring.profiles import count_values


def plain_ks(reference: Frame, window: Frame) -> float:
    """Return the smallest p-value of KS on each number and chi-square on each column of names."""
    return min(_p(reference.inputs[name], values) for name, values in window.inputs.items())


def evidently_default(reference: Frame, window: Frame) -> float:
    """Return how far the worst column is beyond nothing, by the tests that Evidently's preset takes by default.

    Up to 1,000 rows: KS and chi-square, as p-values; above: Wasserstein distance over the deviation and Jensen-Shannon
    distance, turned so that smaller is worse.
    """
    if len(reference) <= 1000:
        return plain_ks(reference, window)
    return -max(distance(reference.inputs[name], values) for name, values in window.inputs.items())


def page_hinkley(losses: np.ndarray, threshold: float, allowed: float = 0.005) -> int:
    """Return the rows until it fires, 0 where it does not. Page (1954), with the usual allowed change."""
    seen = np.arange(1, len(losses) + 1)
    total = np.cumsum(losses - np.cumsum(losses) / seen - allowed)
    fired = np.flatnonzero(total - np.minimum.accumulate(np.minimum(total, 0)) > threshold)
    return int(fired[0]) + 1 if len(fired) else 0


def adwin(losses: np.ndarray, delta: float, every: int = 32) -> int:
    """Return the rows until both sides of some cut differ. Bifet and Gavalda (2007), equation 3.1."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    for end in range(2 * every, len(losses) + 1, every):
        cuts = np.arange(every, end, every)
        first, second = sums[cuts] / cuts, (sums[end] - sums[cuts]) / (end - cuts)
        mean = sums[end] / end
        variance = mean * (1 - mean)
        harmonic = 1 / (1 / cuts + 1 / (end - cuts))
        tail = np.log(2 * np.log(end) / delta)
        bound = np.sqrt(2 / harmonic * variance * tail) + 2 / (3 * harmonic) * tail
        if np.any(second - first > bound):
            return end
    return 0


def _p(before: object, now: object) -> float:
    if isinstance(before, np.ndarray):
        return float(ks_2samp(before, now, method="asymp").pvalue)
    table = _table(before, now)
    return float(chi2_contingency(table).pvalue)


def distance(before: object, now: object) -> float:
    if isinstance(before, np.ndarray):
        return float(wasserstein_distance(before, np.asarray(now)) / max(before.std(), 0.001))
    table = _table(before, now).astype(float)
    one, other = table / table.sum(axis=1, keepdims=True)
    middle = (one + other) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.nansum(np.where(share > 0, share * np.log2(share / middle), 0)) for share in (one, other)]
    return float(np.sqrt(sum(parts) / 2))


def _table(before: object, now: object) -> np.ndarray:
    first, second = count_values(before).values, count_values(now).values
    names = sorted({*first, *second})
    return np.array([[counts.get(name, 0) for name in names] for counts in (first, second)])
