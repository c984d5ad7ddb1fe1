"""Sequential quality: labelled losses one by one, across windows, valid at every look.

Why: a test per window forgets; a loss that creeps up by little shows only over many windows. The e-detector adds the
evidence up and keeps its rate of false alarms however often it is asked.
"""

import numpy as np

from headrace.monitoring.base import Signal
from headrace.monitoring.frame import Frame
from headrace.monitoring.reference_profile import Reference, losses
from headrace.monitoring.statistics.sequential import EDetector
from headrace.monitoring.statistics.shares import clopper_pearson
from headrace.types import Task

NAME = "sequential quality"
_TOP = 0.99
_APART = 5.0


def start(reference: Reference, *, level_per_row: float) -> EDetector:
    """Return a fresh detector. Its bound is the upper end of what the holdout's loss may truly be."""
    lost = scaled(reference, reference.losses)
    rows = max(int(len(lost) / reference.loss_time), 1)
    hits = min(round(float(lost.mean()) * rows), rows)
    bound = clopper_pearson(hits, rows, 0.9).high if rows else 0.5
    # Several rows that are one loss together count as so many where false alarms are counted.
    width, together = _width(reference), _APART if reference.loss_time > 1 else 1.0
    return EDetector(min(max(bound, 1e-3), 0.95), level_per_row * width, together=together)


def scaled(reference: Reference, lost: np.ndarray) -> np.ndarray:
    """Return losses between 0 and 1; errors of a regressor relative to the holdout's 99 % quantile."""
    usable = lost[np.isfinite(lost)]
    if reference.task is Task.CLASSIFICATION:
        return np.asarray(usable)
    top = float(np.quantile(reference.losses, _TOP)) or 1.0
    return np.asarray(np.minimum(usable / top, 1.0))


def look(detector: EDetector, reference: Reference, frame: Frame) -> tuple[EDetector, Signal]:
    """Return the detector after a window's labelled rows, and what it says. It starts over once it has fired."""
    lost = scaled(reference, losses(frame.rows(), reference.task)) if frame.labelled.any() else np.empty(0)
    width = _width(reference)
    if width > 1 and len(lost):
        groups = max(len(lost) // width, 1)
        starts = np.arange(groups) * len(lost) // groups
        lost = np.add.reduceat(lost, starts) / np.diff(starts, append=len(lost))
    after = detector.watch(lost)
    sentence = (
        f"the labelled loss has been above {detector.bound:.3g} over the last {after.rows} labels (evidence "
        f"{after.value:.3g}, where {1 / after.level:.3g} is needed)"
    )
    if not after.fired:
        return after, Signal(NAME, False, f"The labelled losses add up to no evidence ({after.value:.2g}).")
    fresh = EDetector(detector.bound, detector.level, together=detector.together)
    return fresh, Signal(NAME, True, sentence, None, after.value, "evidence")


def _width(reference: Reference) -> int:
    """Return how many rows are taken together.

    The evidence holds for losses whose past says nothing of them. Rows that repeat each other are taken together over
    so many correlation times that hardly anything of it is left; over a single one, false alarms were tenfold.
    """
    return int(np.ceil(_APART * reference.loss_time)) if reference.loss_time > 1 else 1
