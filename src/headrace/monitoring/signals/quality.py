"""Labelled quality: the answers are wrong more often, or by more, than on the holdout.

Why: this is the harm itself. It needs labels, so it comes late, and it sees only the rows that were labelled.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import mannwhitneyu, norm

from headrace.monitoring.base import Signal
from headrace.monitoring.frame import Frame
from headrace.monitoring.reference_profile import Reference, losses
from headrace.monitoring.statistics.dependence import joint_time
from headrace.monitoring.statistics.moments import moments
from headrace.monitoring.statistics.shares import clopper_pearson, fell_p
from headrace.types import Task

NAME = "labelled quality"
#: Fewer labels than this are not judged.
FEWEST = 20


class LabelledQuality:
    """Compares a window's labelled rows with the holdout: accuracy by Fisher's exact test, errors by ranks.

    Attributes:
        level: the one-sided p-value below which it fires.
        least: the smallest fall that matters: in accuracy, or relative to the mean absolute error.
    """

    name = NAME

    def __init__(self, reference: Reference, *, level: float, least: float = 0.01) -> None:
        self._reference = reference
        self._level = level
        self._least = least

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return one signal; it cannot fire on fewer than 20 labels."""
        rows = int(np.sum(frame.labelled))
        useless = f" {frame.useless} actuals are no truths (null, lists, texts for numbers)." if frame.useless else ""
        if rows < FEWEST:
            sentence = f"Only {rows} of {len(frame)} predictions have their labels; quality was not judged.{useless}"
            return [Signal(self.name, False, sentence, details={"labelled": rows, "useless": frame.useless})]
        found = losses(frame.rows(), self._reference.task)
        signal = self._accuracy(found) if self._reference.task is Task.CLASSIFICATION else self._error(found)
        details = {**signal.details, "useless": frame.useless}
        return [replace(signal, sentence=signal.sentence + ("" if signal.fired else useless), details=details)]

    def _accuracy(self, lost: np.ndarray) -> Signal:
        rows, right = len(lost), len(lost) - round(float(lost.sum()))
        before = self._reference.right / len(self._reference.losses)
        now = right / rows
        p_value = fall_p(lost, self._reference.losses, self._time(lost))
        fired = p_value <= self._level and before - now >= self._least
        interval = clopper_pearson(right, rows)
        bounds = f"95 % interval {interval.low:.2f} to {interval.high:.2f}"
        if fired:
            sentence = (
                f"Accuracy fell from {before:.2f} to {now:.2f} over the last {rows} labelled predictions "
                f"({bounds}, p = {p_value:.2g})"
            )
        else:
            sentence = f"Accuracy is {now:.2f} over {rows} labelled predictions ({bounds}); it was {before:.2f}."
        details = {"rows": rows, "before": before, "now": now, "low": interval.low, "high": interval.high}
        return Signal(self.name, fired, sentence, p_value, before - now, "accuracy", details)

    def _error(self, lost: np.ndarray) -> Signal:
        usable = lost[np.isfinite(lost)]
        if len(usable) < FEWEST:
            return Signal(self.name, False, f"Only {len(usable)} labels are numbers; quality was not judged.")
        before, found = float(self._reference.losses.mean()), moments(usable)
        now = found.mean
        time = self._time(usable)
        p_value = greater_p(usable, self._reference.losses, time)
        fired = p_value <= self._level and now - before >= self._least * before
        reach = 1.96 * found.deviation * float(np.sqrt(time / len(usable)))
        low, high = max(now - reach, 0.0), now + reach
        sentence = (
            f"The mean absolute error {'rose' if fired else 'went'} from {before:.3g} to {now:.3g} over the last "
            f"{len(usable)} labelled predictions (95 % interval {low:.3g} to {high:.3g}, p = {p_value:.2g})"
            + ("" if fired else ".")
        )
        details = {"rows": len(usable), "before": before, "now": now, "low": low, "high": high}
        return Signal(self.name, fired, sentence, p_value, now - before, "mean absolute error", details)

    def _time(self, lost: np.ndarray) -> float:
        return joint_time(self._reference.losses, lost, self._reference.loss_time)


def fall_p(now: np.ndarray, before: np.ndarray, time: float) -> float:
    """Return the one-sided p-value of "the share of right answers did not fall"; losses are 0 or 1.

    Rows that repeat each other in time say as much as fewer independent ones.
    """
    counts = (len(before) - round(float(before.sum())), len(before), len(now) - round(float(now.sum())), len(now))
    return fell_p(*(int(count / time) for count in counts)) if time > 1 else fell_p(*counts)


def greater_p(now: np.ndarray, before: np.ndarray, time: float) -> float:
    """Return the one-sided p-value of the Mann-Whitney test, its variance multiplied by the correlation time."""
    found = mannwhitneyu(now, before, alternative="greater")
    if time <= 1:
        return float(found.pvalue)
    middle, spread = len(now) * len(before) / 2, np.sqrt(len(now) * len(before) * (len(now) + len(before) + 1) / 12)
    return float(norm.sf((found.statistic - middle) / (spread * np.sqrt(time))))
