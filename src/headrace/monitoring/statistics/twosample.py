"""Two-sample tests on counts. Pure; rows have been binned before, so cost does not grow with them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from scipy.special import chdtrc, chdtri, gammaln, ndtr, ndtri

from headrace.monitoring.statistics.quadratic import tail_p

Array: TypeAlias = np.ndarray[Any, Any]
#: A chi-square test needs about this many expected rows in a cell; smaller cells are pooled.
_EXPECTED = 5.0


def stacked(counts: Sequence[Array]) -> Array:
    """Return histograms as one matrix, filled up with empty bins, which no statistic looks at."""
    found = np.zeros((len(counts), max(len(one) for one in counts)))
    for row, one in enumerate(counts):
        found[row, : len(one)] = one
    return found


def anderson_darling(reference: Array, window: Array) -> Array:
    """Return the two-sample Anderson-Darling statistic of each feature; its mean is 1 where nothing changed.

    The midrank version for tied values: Scholz and Stephens (1987), JASA 82, equation 7. The mean is exactly 1 for any
    sizes and ties: given the pooled counts, each bin's variance is its weight. (Rows that are all equal give 0.)

    Args:
        reference: shape (..., bins), counts over ordered bins. `window` likewise, over the same bins.
    """
    first, second = np.asarray(reference, float), np.asarray(window, float)
    pooled = first + second
    sizes = first.sum(axis=-1, keepdims=True), second.sum(axis=-1, keepdims=True)
    total = sizes[0] + sizes[1]
    middle = np.cumsum(pooled, axis=-1) - pooled / 2
    weight = middle * (total - middle) - total * pooled / 4
    # Both samples' terms are alike but for their size: (N M1 - n1 B) = -(N M2 - n2 B).
    apart = total * (np.cumsum(second, axis=-1) - second / 2) - sizes[1] * middle
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(weight > 0, pooled / total * np.square(apart) / weight, 0.0)
        scale = (total - 1) / total * (1 / sizes[0] + 1 / sizes[1])
        found = scale[..., 0] * terms.sum(axis=-1)
    return np.asarray(np.nan_to_num(found))


def anderson_darling_p(statistic: Array, reference: Array, scale: Array | float = 1.0) -> Array:
    """Return the chance of a statistic at least this large where nothing changed.

    It is a sum of chi-squares, whose weights are 1 / (j (j + 1)) without ties. Where many rows share few values the
    first weighs more, and the tail is heavier by up to twenty times; so each feature has the weights of its own ties.

    Args:
        statistic: shape (features,) or one. `reference`: shape (features, bins) or (bins,), which it was made with.
        scale: by how much the rows' dependence inflates the statistic (1 for independent rows).
    """
    weights = stacked([_weights(np.asarray(one, np.int64).tobytes()) for one in np.atleast_2d(reference)])
    found = np.asarray(statistic, float) / scale
    return tail_p(np.atleast_1d(found), weights).reshape(found.shape)


@lru_cache(maxsize=4096)
def _weights(raw: bytes) -> Array:
    """Return the eigenvalues of the statistic's covariance; a profile's counts are asked for in every window."""
    counts = np.frombuffer(raw, np.int64).astype(float)
    counts = counts[counts > 0]
    total = counts.sum()
    middle = np.cumsum(counts) - counts / 2
    weight = middle * (total - middle) - total * counts / 4
    counts, middle, weight = (one[weight > 0] for one in (counts, middle, weight))
    if not len(counts):
        return np.zeros(1)
    covariance = np.minimum.outer(middle, middle) * (total - np.maximum.outer(middle, middle))
    np.fill_diagonal(covariance, weight)
    scale = np.sqrt(counts / total / weight)
    return np.maximum(np.linalg.eigvalsh(covariance * np.outer(scale, scale)), 0.0)


def shift_p(reference: Array, window: Array, *, time: Array | float = 1.0) -> Array:
    """Return the p-value of "nothing changed" of each feature, from three tests that share the level.

    Normal scores for the level (three fifths; no less powerful than the t-test for any shape), Klotz's for the spread
    (a quarter), Anderson-Darling for everything else.

    Args:
        reference: shape (features, bins), counts over ordered bins. `window` likewise, over the same bins.
        time: by how much the rows' dependence inflates the variance of means (1 for independent rows).
    """
    first, second = np.asarray(reference, float), np.asarray(window, float)
    level, spread = rank_scores(first, second)
    sizes = first.sum(axis=-1), second.sum(axis=-1)
    harmonic = np.maximum(sizes[0] * sizes[1] / np.maximum(sizes[0] + sizes[1], 1), 1) / time
    level, spread = level / np.sqrt(time), spread / np.sqrt(time)
    # A sum of squared scores is skewed like a chi-square; the normal tail would be too thin above.
    above = chdtrc(harmonic, np.maximum(harmonic + spread * np.sqrt(2 * harmonic), 0.0))
    by_spread = np.where(spread > 0, 2 * above, 2 * ndtr(spread))
    by_level = 2 * ndtr(-np.abs(level))
    rest = anderson_darling_p(anderson_darling(first, second), first, time)
    return np.asarray(np.minimum(1.0, np.minimum(np.minimum(by_level / 0.6, by_spread / 0.25), rest / 0.15)))


def rank_scores(first: Array, second: Array) -> tuple[Array, Array]:
    """Return how many standard errors the second sample's mean normal score, and squared one, is from the pooled."""
    pooled = first + second
    total = np.maximum(pooled.sum(axis=-1, keepdims=True), 2)
    places = (np.cumsum(pooled, axis=-1) - pooled / 2) / total
    scores = ndtri(np.clip(places, 1e-9, 1 - 1e-9))
    rows = second.sum(axis=-1, keepdims=True)
    found = []
    for score in (scores, np.square(scores)):
        mean = (pooled * score).sum(axis=-1, keepdims=True) / total
        variance = (pooled * np.square(score - mean)).sum(axis=-1, keepdims=True) / (total - 1)
        error = np.sqrt(np.maximum(variance * rows * (total - rows) / total, 1e-300))
        found.append(np.where(variance > 0, (second * (score - mean)).sum(axis=-1, keepdims=True) / error, 0.0)[..., 0])
    return found[0], found[1]


def ks_distance(reference: Array, window: Array) -> Array:
    """Return the largest distance between the two distribution functions, of each feature (0 to 1)."""
    first, second = np.asarray(reference, float), np.asarray(window, float)
    with np.errstate(invalid="ignore"):
        one = np.cumsum(first, axis=-1) / first.sum(axis=-1, keepdims=True)
        other = np.cumsum(second, axis=-1) / second.sum(axis=-1, keepdims=True)
    return np.asarray(np.nan_to_num(np.abs(one - other).max(axis=-1)))


def chi_square_p(reference: Array, window: Array, scale: float = 1.0) -> float:
    """Return the p-value of the two-sample chi-square test on class counts, rare classes pooled; exact for two cells.

    Args:
        scale: by how much the rows' dependence inflates the statistic (1 for independent rows).
    """
    table = _pooled(np.vstack([reference, window]).astype(float))
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 1.0
    if table.shape[1] == 2 and scale == 1.0:
        return fisher_p(table)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float((np.square(table - expected) / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic / scale))


def fisher_p(table: Array) -> float:
    """Return the two-sided p-value of a table of two by two, given its margins. Fisher (1922), JRSS 85."""
    (rows, others), column = table.sum(axis=1), table[:, 0].sum()
    low, high = max(column - others, 0), min(column, rows)
    hits = np.arange(low, high + 1)
    logs = -sum(gammaln(cell + 1) for cell in (hits, rows - hits, column - hits, others - column + hits))
    shares = np.exp(logs - logs.max())
    found = shares[shares <= shares[int(table[0, 0] - low)] * (1 + 1e-7)].sum() / shares.sum()
    return float(min(found, 1.0))


def psi(reference: Array, window: Array) -> Array:
    """Return the population stability index of each feature, in nats; 0 means equal. Half a row is added to each bin.

    Sum of (c - r) * ln(c / r). Jeffreys (1946), Proc. R. Soc. A 186.

    Args:
        reference: shape (..., bins), counts; `window` over the same bins.
    """
    first, second = np.asarray(reference, float), np.asarray(window, float)
    used = (first + second > 0).astype(float)
    one, other = (first + 0.5) * used, (second + 0.5) * used
    one = one / np.maximum(one.sum(axis=-1, keepdims=True), 1)
    other = other / np.maximum(other.sum(axis=-1, keepdims=True), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(used > 0, (other - one) * np.log(other / one), 0.0)
    return np.asarray(terms.sum(axis=-1))


def psi_by_chance(bins: Array, reference_rows: Array, window_rows: Array, alpha: float) -> Array:
    """Return the index that chance alone exceeds with probability `alpha`: a chi-square over the harmonic size."""
    degrees = np.maximum(np.asarray(bins, float) - 1, 1)
    harmonic = np.maximum(reference_rows * window_rows / np.maximum(reference_rows + window_rows, 1), 1)
    return np.asarray(chdtri(degrees, alpha) / harmonic)


def _pooled(table: Array) -> Array:
    """Pool columns, smallest first, until each cell of the smaller sample expects enough rows."""
    table = table[:, table.sum(axis=0) > 0]
    share = table.sum(axis=1).min() / max(table.sum(), 1)
    while table.shape[1] > 2:
        totals = table.sum(axis=0)
        order = np.argsort(totals, kind="stable")
        if totals[order[0]] * share >= _EXPECTED:
            break
        table[:, order[1]] += table[:, order[0]]
        table = np.delete(table, order[0], axis=1)
    return table
