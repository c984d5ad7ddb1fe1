"""How much rows in time order repeat each other."""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
#: Sums are cut where the lag is this many times the time found so far (Sokal's window).
_WINDOW = 5.0


def correlation_time(values: Array) -> float:
    """Return by how much the variance of a mean exceeds that of independent rows; 1 where they are independent.

    The integrated autocorrelation time, 1 + 2 * sum of autocorrelations, with Sokal's automatic window. Values of
    independent rows scatter around 1, so anything within two standard errors of it counts as 1.

    Args:
        values: shape (rows,), in order of time.
    """
    series = np.asarray(values, float)
    series = series[np.isfinite(series)]
    rows = len(series)
    if rows < 50 or np.ptp(series) == 0:
        return 1.0
    centred = series - series.mean()
    power = np.abs(np.fft.rfft(centred, 2 * rows)) ** 2
    autocovariance = np.fft.irfft(power)[: rows // 2]
    times = 2 * np.cumsum(autocovariance / autocovariance[0]) - 1
    lags = np.arange(len(times))
    enough = np.flatnonzero(lags >= _WINDOW * times)
    at = int(enough[0]) if len(enough) else len(times) - 1
    found = float(times[at])
    scatter = np.sqrt(2 * (2 * at + 1) / rows)
    return found * (1 + scatter) if found > 1 + 2 * scatter else 1.0


def rank_time(values: Array) -> float:
    """Return the correlation time of a column's ranks, the larger of their level's and their spread's."""
    usable = np.asarray(values, float)
    usable = usable[np.isfinite(usable)]
    if len(usable) < 50:
        return 1.0
    ranks = np.argsort(np.argsort(usable, kind="stable"), kind="stable") / len(usable) - 0.5
    return max(correlation_time(ranks), correlation_time(np.square(ranks)))
