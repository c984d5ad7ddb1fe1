"""Estimated quality: what the answers can be expected to cost, without labels.

CBPE for classifiers, DLE for regressors (`estimate`). Why: labels come late or never. It sees harm that comes from
inputs moving to where the model is unsure, and it is blind to a change of what the same inputs mean; so it retrains
only together with output drift, in consecutive windows.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from headrace.monitoring.base import Signal
from headrace.monitoring.estimate import BLINDNESS
from headrace.monitoring.frame import Frame
from headrace.monitoring.reference_profile import Reference
from headrace.types import Json, Task

NAME = "estimated quality"


class EstimatedQuality:
    """Compares the expected loss of a window's rows with that of the holdout's."""

    name = NAME

    def __init__(self, reference: Reference, *, level: float, least: float = 0.01) -> None:
        self._reference = reference
        self._level = level
        self._least = least

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return one signal with the estimate and its interval; nothing where nothing can be estimated."""
        estimator, rows = self._reference.estimator, len(frame)
        if estimator is None or not rows:
            return []
        expected = estimator.losses(frame.answers, frame.watched)
        time = self._reference.loss_time
        mean = float(expected.mean())
        error = float(np.sqrt(time * (expected.var() / rows + estimator.variance / estimator.rows)))
        rise = mean - estimator.mean
        p_value = float(norm.sf(rise / error)) if error > 0 else 1.0
        is_class = self._reference.task is Task.CLASSIFICATION
        fired = p_value <= self._level and rise >= self._least * (1.0 if is_class else estimator.mean)
        # The interval is for the quality that the labels will show, so it holds their chance too.
        own = expected * (1 - expected) if is_class else np.square(expected)
        reach = 1.96 * float(np.sqrt(time * own.mean() * (1 / rows + 1 / estimator.rows)))
        sentence = self._sentence(mean, reach, estimator.mean, is_class, p_value)
        details: dict[str, Json] = {"before": estimator.mean, "now": mean, "reach": reach, "blindness": BLINDNESS}
        return [Signal(self.name, fired, sentence, p_value, rise, "expected loss", details)]

    def _sentence(self, mean: float, reach: float, before: float, is_class: bool, p_value: float) -> str:
        if is_class:
            low, high = max(1 - mean - reach, 0), min(1 - mean + reach, 1)
            return (
                f"accuracy is estimated at {1 - mean:.2f} (95 % interval {low:.2f} to {high:.2f}) where "
                f"{1 - before:.2f} was expected (p = {p_value:.2g}; {BLINDNESS})"
            )
        return (
            f"the mean absolute error is estimated at {mean:.3g} (± {reach:.2g}) where {before:.3g} was expected "
            f"(p = {p_value:.2g}; {BLINDNESS})"
        )
