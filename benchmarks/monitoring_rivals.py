"""Rivals of the power tables, in a few lines each: plain KS, Evidently's default tests, ADWIN and PageHinkley."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2_contingency, kstwo

from headrace.monitoring.frame import Frame
from headrace.monitoring.profiles import count_values


@dataclass(frozen=True, slots=True)
class Known:
    """A reference as the rivals take it, sorted and counted once: numbers by column, and the counts of names."""

    rows: int
    numbers: dict[str, np.ndarray]
    names: dict[str, dict[str, int]]


def known(reference: Frame) -> Known:
    """Return a reference for the rivals."""
    arrays = {name: values for name, values in reference.inputs.items() if isinstance(values, np.ndarray)}
    return Known(
        len(reference),
        {name: np.sort(values) for name, values in arrays.items()},
        {name: count_values(values).values for name, values in reference.inputs.items() if name not in arrays},
    )


def plain_ks(reference: Known, window: Frame) -> float:
    """Return the smallest p-value of KS on each number and chi-square on each column of names.

    All columns have equally many rows, so the largest distance has the smallest p-value (`scipy.stats.ks_2samp` with
    `method="asymp"`).
    """
    rows = len(window)
    apart = max(ks_distance(values, np.sort(window.inputs[name])) for name, values in reference.numbers.items())
    p_values = [float(kstwo.sf(apart, np.round(reference.rows * rows / (reference.rows + rows))))]
    tables = [table(counts, window.inputs[name]) for name, counts in reference.names.items()]
    return min(p_values + [float(chi2_contingency(one).pvalue) for one in tables])


def evidently_default(reference: Known, window: Frame) -> float:
    """Return how far the worst column is beyond nothing, by the tests that Evidently's preset takes by default.

    Up to 1,000 rows: KS and chi-square, as p-values; above: Wasserstein distance over the deviation and Jensen-Shannon
    distance, turned so that smaller is worse.
    """
    if reference.rows <= 1000:
        return plain_ks(reference, window)
    return -max(distance(reference, name, values) for name, values in window.inputs.items())


def distance(reference: Known, name: str, values: object) -> float:
    """Return the score of one column, as Evidently's preset takes it for references of over 1,000 rows."""
    if name in reference.numbers:
        before = reference.numbers[name]
        return wasserstein(before, np.sort(np.asarray(values))) / max(float(before.std()), 0.001)
    counts = table(reference.names[name], values).astype(float)
    one, other = counts / counts.sum(axis=1, keepdims=True)
    middle = (one + other) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.nansum(np.where(share > 0, share * np.log(share / middle), 0)) for share in (one, other)]
    return float(np.sqrt(sum(parts) / 2))


def ks_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest distance between the distributions of two sorted samples."""
    every = np.concatenate([first, second])
    shares = [np.searchsorted(one, every, side="right") / len(one) for one in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """Return the area between the distributions of two sorted samples (`scipy.stats.wasserstein_distance`)."""
    every = np.sort(np.concatenate([first, second]), kind="stable")  # Two rising runs, which it merges.
    shares = [np.searchsorted(one, every[:-1], side="right") / len(one) for one in (first, second)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(every)).sum())


def table(before: dict[str, int], now: object) -> np.ndarray:
    """Return both counts of a column of names, one below the other."""
    found = count_values(now).values
    names = sorted({*before, *found})
    return np.array([[counts.get(name, 0) for name in names] for counts in (before, found)])


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
