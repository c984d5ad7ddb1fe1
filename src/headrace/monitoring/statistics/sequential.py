"""An e-detector: watches losses one by one and may be asked after every row, without growing false alarms.

Shiryaev-Roberts e-detector with a mixture of bets. Shin, Ramdas and Rinaldo (2023), NEJSDS. Where the mean loss never
exceeds `bound`, the rows until a false alarm are at least `1 / level` on average.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
#: Rises of the mean loss that the bets are best for.
_RISES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
#: Logarithms of no evidence, and of so much that more says nothing.
_NONE, _MOST = -1e9, 300.0
#: Rows that are taken at once.
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class EDetector:
    """A detector's state; `watch` gives the next one.

    Attributes:
        bound: the largest mean loss (0 to 1) that is no cause for alarm.
        level: one over the rows until a false alarm, on average and at least.
        together: how many independent rows each loss is the mean of; means scatter less, so more can be bet.
        logs: one logarithm of evidence per bet; the detector's own value is the mean of the evidence.
        rows: seen since the last restart.
        fired_at: how many rows it took, 0 where it has not fired.
    """

    bound: float
    level: float
    logs: tuple[float, ...] = (_NONE,) * len(_RISES)
    rows: int = 0
    fired_at: int = 0
    together: float = 1.0

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
        growth = np.log1p(_bets(self.bound, self.together) * (np.asarray(losses, float)[:, None] - self.bound))
        whole = rows - rows % _BLOCK
        logs, fired_at = np.array(self.logs), self.fired_at
        for start, end, width in ((0, whole, _BLOCK), (whole, rows, rows - whole)):
            if start == end:
                continue
            over, logs = _added_up(growth[start:end].reshape(-1, width, len(_RISES)), logs, self.level)
            if not fired_at and over.any():
                fired_at = self.rows + start + int(over.argmax()) + 1
        kept = tuple(float(one) for one in logs)
        return replace(self, logs=kept, rows=self.rows + rows, fired_at=fired_at)


def _added_up(growth: Array, logs: Array, level: float) -> tuple[Array, Array]:
    """Return which rows are over `1 / level`, and the logarithms of evidence after the last.

    M[t] = (M[t-1] + 1) * f[t], solved for each block at once; only what one block hands to the next is a loop. Short
    blocks cannot overflow.

    Args:
        growth: shape (blocks, rows, bets), logarithms of f. `logs`: shape (bets,), from before.
    """
    total = np.cumsum(growth, axis=1)
    added = np.cumsum(np.exp(growth - total), axis=1)
    ends, last = np.exp(total[:, -1]), added[:, -1]
    before, tops = np.empty((len(growth), growth.shape[2])), np.empty(len(growth))
    with np.errstate(divide="ignore"):
        for block in range(len(growth)):
            # In units of e ** top, so that much evidence from before does not overflow either.
            tops[block] = top = max(float(logs.max()), 0.0)
            before[block] = np.exp(logs - top)
            grown = ends[block] * (before[block] + last[block] * np.exp(-top))
            logs = np.minimum(np.maximum(np.log(grown) + top, _NONE), _MOST)
    value = np.exp(total) * (before[:, None] + added * np.exp(-tops)[:, None, None])
    over = np.log(value.mean(axis=2)) + tops[:, None] >= -np.log(level)
    return over.ravel(), logs


def _bets(bound: float, together: float = 1.0) -> Array:
    """Return the bets that grow fastest if the mean rises by each of `_RISES`."""
    rises = np.minimum(np.array(_RISES), (1 - bound) / 2)
    return np.asarray(np.minimum(rises * together / max(bound * (1 - bound), 1e-9), 0.95 / max(bound, 1e-9)))
