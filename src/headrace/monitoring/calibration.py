"""Thresholds at the real window size: how large a statistic is where nothing changed, by resampling the reference."""

from functools import lru_cache

import numpy as np

from headrace.monitoring.profiles import Numbers
from headrace.monitoring.statistics.twosample import anderson_darling

_DRAWS = 200


def null_scale(profile: Numbers, rows: int) -> float:
    """Return the mean of the Anderson-Darling statistic for a window of `rows`, never below 1.

    Both window and reference are drawn anew from the profile, so that its own size and its ties count; the rows'
    dependence in time multiplies it.
    """
    return _resampled(profile.counts.tobytes(), rows) * profile.correlation_time


@lru_cache(maxsize=4096)
def _resampled(raw: bytes, rows: int) -> float:
    counts = np.frombuffer(raw, np.int64)
    size = int(counts.sum())
    if not size or not rows or len(counts) < 2:
        return 1.0
    chance = np.random.default_rng(size * 1_000_003 + rows)
    share = counts / size
    found = anderson_darling(chance.multinomial(size, share, _DRAWS), chance.multinomial(rows, share, _DRAWS))
    return max(1.0, float(found.mean()))
