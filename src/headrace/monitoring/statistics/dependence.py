"""How much rows in time order repeat each other."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
#: Sums are cut where the lag is this many times the time found so far (Sokal's window).
_WINDOW = 5.0
#: Fewer rows than this tell nothing of their order.
_FEWEST = 50
#: So many lags cost less one by one than by Fourier's transform.
_DIRECT = 64


def correlation_time(values: Array) -> float:
    """Return by how much the variance of a mean exceeds that of independent rows; 1 where they are independent.

    The integrated autocorrelation time, 1 + 2 * sum of autocorrelations, with Sokal's automatic window. Values of
    independent rows scatter around 1, so anything within two standard errors of it counts as 1.

    Args:
        values: shape (rows,), in order of time.
    """
    series = _centred(values)
    return _time(_sums(series, _lags(series)), len(series)) if len(series) else 1.0


def joint_time(before: Array, now: Array, least: float) -> float:
    """Return the correlation time of two samples that one test compares, never below `least`; 1 where that is 1.

    Where losses are rare, a sample that happens to have few of them has few clusters of them too: it makes the other
    look worse and calls its rows independent, both at once. The other sample knows what the first one missed.

    Args:
        before: shape (rows,), in order of time, and `now` likewise.
        least: the correlation time of `before`.
    """
    if least <= 1:
        return least
    first, second = _centred(before), _centred(now)
    if not len(first) or not len(second):
        return least
    lags = min(_lags(first), len(second) // 2)
    return max(least, _time(_sums(first, lags) + _sums(second, lags), len(first) + len(second)))


def _centred(values: Array) -> Array:
    """Return values around their mean; none where they say nothing of their order."""
    series = np.asarray(values, float)
    series = series[np.isfinite(series)]
    return series - series.mean() if len(series) >= _FEWEST and np.ptp(series) > 0 else np.empty(0)


def _lags(series: Array) -> int:
    """Return how many lags, 0 among them, are summed up."""
    first = total = _sum(series, 0)
    for lag in range(1, min(_DIRECT, len(series) // 2)):
        total += 2 * _sum(series, lag)
        if lag >= _WINDOW * total / first:
            return lag + 1
    times = 2 * np.cumsum(_sums(series, len(series) // 2)) / first - 1
    enough = np.flatnonzero(np.arange(len(times)) >= _WINDOW * times)
    return int(enough[0]) + 1 if len(enough) else len(times)


def _sums(series: Array, lags: int) -> Array:
    """Return, for each lag, the sum of products of values so far apart."""
    if lags <= _DIRECT:
        return np.array([_sum(series, lag) for lag in range(lags)])
    power = np.abs(np.fft.rfft(series, 2 * len(series))) ** 2
    return np.fft.irfft(power)[:lags]


def _sum(series: Array, lag: int) -> float:
    # Not `@`: on a crowded machine the threads of the linear algebra wait for each other far longer than this takes.
    return float((series[lag:] * series[: len(series) - lag]).sum())


def _time(sums: Array, rows: int) -> float:
    found = float(2 * sums.sum() / sums[0]) - 1
    scatter = float(np.sqrt(2 * (2 * len(sums) - 1) / rows))
    return found * (1 + scatter) if found > 1 + 2 * scatter else 1.0


def rank_time(values: Array) -> float:
    """Return the correlation time of a column's ranks, the larger of their level's and their spread's."""
    usable = np.asarray(values, float)
    usable = usable[np.isfinite(usable)]
    if len(usable) < _FEWEST:
        return 1.0
    ranks = np.empty(len(usable))
    ranks[np.argsort(usable, kind="stable")] = np.arange(len(usable)) / len(usable) - 0.5
    return max(correlation_time(ranks), correlation_time(np.square(ranks)))
