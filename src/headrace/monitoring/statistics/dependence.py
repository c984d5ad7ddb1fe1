"""How much rows in time order repeat each other."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
#: Sums are cut where the lag is this many times the time found so far (Sokal's window).
_WINDOW = 5.0
#: Fewer rows than this tell nothing of their order.
_FEWEST = 50


def correlation_time(values: Array) -> float:
    """Return by how much the variance of a mean exceeds that of independent rows; 1 where they are independent.

    The integrated autocorrelation time, 1 + 2 * sum of autocorrelations, with Sokal's automatic window. Values of
    independent rows scatter around 1, so anything within two standard errors of it counts as 1.

    Args:
        values: shape (rows,), in order of time.
    """
    return _cautious(_autocovariance(values))


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
    found, other = _autocovariance(before), _autocovariance(now)
    if not len(found.sums) or not len(other.sums):
        return least
    lags = min(_lags(found) + 1, len(other.sums))
    return max(least, _cautious(_Autocovariance(found.sums[:lags] + other.sums[:lags], found.rows + other.rows)))


@dataclass(frozen=True, slots=True)
class _Autocovariance:
    """Sums of products of values that are as many rows apart as the place says; empty where nothing can be said."""

    sums: Array
    rows: int


def _autocovariance(values: Array) -> _Autocovariance:
    series = np.asarray(values, float)
    series = series[np.isfinite(series)]
    rows = len(series)
    if rows < _FEWEST or np.ptp(series) == 0:
        return _Autocovariance(np.empty(0), rows)
    power = np.abs(np.fft.rfft(series - series.mean(), 2 * rows)) ** 2
    return _Autocovariance(np.fft.irfft(power)[: rows // 2], rows)


def _lags(found: _Autocovariance) -> int:
    times = _times(found)
    enough = np.flatnonzero(np.arange(len(times)) >= _WINDOW * times)
    return int(enough[0]) if len(enough) else len(times) - 1


def _times(found: _Autocovariance) -> Array:
    return np.asarray(2 * np.cumsum(found.sums / found.sums[0]) - 1)


def _cautious(found: _Autocovariance) -> float:
    if not len(found.sums):
        return 1.0
    at = _lags(found)
    time = float(_times(found)[at])
    scatter = np.sqrt(2 * (2 * at + 1) / found.rows)
    return time * (1 + scatter) if time > 1 + 2 * scatter else 1.0


def rank_time(values: Array) -> float:
    """Return the correlation time of a column's ranks, the larger of their level's and their spread's."""
    usable = np.asarray(values, float)
    usable = usable[np.isfinite(usable)]
    if len(usable) < _FEWEST:
        return 1.0
    ranks = np.empty(len(usable))
    ranks[np.argsort(usable, kind="stable")] = np.arange(len(usable)) / len(usable) - 0.5
    return max(correlation_time(ranks), correlation_time(np.square(ranks)))
