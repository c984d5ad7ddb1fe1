"""An e-detector: watches losses one by one and may be asked after every row, without growing false alarms.

Shiryaev-Roberts e-detector with a mixture of bets. Shin, Ramdas and Rinaldo (2023), NEJSDS. Where the mean loss never
exceeds `bound`, the rows until a false alarm are at least `1 / level` on average.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
#: Rises of the mean loss that the bets are best for.
_RISES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
#: Logarithms of no evidence, and of so much that more says nothing.
_NONE, _MOST = -1e9, 300.0


@dataclass(frozen=True, slots=True)
class EDetector:
    """A detector's state; `watch` gives the next one.

    Attributes:
        bound: the largest mean loss (0 to 1) that is no cause for alarm.
        level: one over the rows until a false alarm, on average and at least.
        logs: one logarithm of evidence per bet; the detector's own value is the mean of the evidence.
        rows: seen since the last restart.
        fired_at: how many rows it took, 0 where it has not fired.
    """

    bound: float
    level: float
    logs: tuple[float, ...] = (_NONE,) * len(_RISES)
    rows: int = 0
    fired_at: int = 0

    @property
    def value(self) -> float:
        """Return the evidence against "nothing changed"; it fires at `1 / level`."""
        return float(np.exp(np.minimum(np.array(self.logs), _MOST)).mean())

    @property
    def fired(self) -> bool:
        """Tell whether it has."""
        return self.fired_at > 0

    def watch(self, losses: Array) -> "EDetector":
        """Return the detector after some more losses, each between 0 and 1."""
        rows = len(losses)
        if not rows:
            return self
        # M[t] = (M[t-1] + 1) * f[t], solved for all t at once in logarithms.
        growth = np.log1p(_bets(self.bound) * (np.asarray(losses, float)[:, None] - self.bound))
        total = np.cumsum(growth, axis=0)
        starts = np.logaddexp.accumulate(growth - total, axis=0)
        logs = total + np.logaddexp(np.array(self.logs), starts)
        over = np.flatnonzero(np.exp(np.minimum(logs, _MOST)).mean(axis=1) >= 1 / self.level)
        fired_at = self.fired_at or (self.rows + int(over[0]) + 1 if len(over) else 0)
        kept = tuple(float(one) for one in np.minimum(logs[-1], _MOST))
        return EDetector(self.bound, self.level, kept, self.rows + rows, fired_at)


def _bets(bound: float) -> Array:
    """Return the bets that grow fastest if the mean rises by each of `_RISES`."""
    rises = np.minimum(np.array(_RISES), (1 - bound) / 2)
    return np.asarray(np.minimum(rises / max(bound * (1 - bound), 1e-9), 0.95 / max(bound, 1e-9)))
