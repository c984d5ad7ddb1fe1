"""Quality by slice: a group of rows is answered worse than on the holdout.

Why: a group that is a tenth of the rows can lose a fifth of its right answers while the whole hardly moves. The groups
are those that `gate.slices` names, as far as they are inputs; like all labelled quality it needs labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from headrace.monitoring.base import Signal
from headrace.monitoring.frame import Frame
from headrace.monitoring.profiles import groups_of
from headrace.monitoring.reference_profile import Reference, losses
from headrace.monitoring.signals.quality import FEWEST, fall_p, greater_p
from headrace.monitoring.statistics.moments import moments
from headrace.types import Json, Task

Array: TypeAlias = np.ndarray[Any, Any]
NAME = "quality by slice"


@dataclass(frozen=True, slots=True)
class SliceLoss:
    """One group's mean loss on the holdout and now."""

    name: str
    value: str
    rows: int
    before: float
    now: float
    p_value: float


class SlicedQuality:
    """Compares each group's labelled losses with those that it had on the holdout.

    Attributes:
        level: the p-value, shared between all groups, below which one fires.
        least: the smallest rise of the loss that matters: in accuracy, or relative to the mean absolute error.
    """

    name = NAME

    def __init__(self, reference: Reference, *, level: float, least: float = 0.01) -> None:
        self._reference = reference
        self._level = level
        self._least = least

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return one signal for all groups, or nothing where no group has enough labels."""
        found = sorted(self.slices(frame), key=lambda one: one.p_value)
        if not found:
            return []
        worse = [one for one in found if one.p_value * len(found) <= self._level and self._matters(one)]
        p_value = min(found[0].p_value * len(found), 1.0)
        if not worse:
            sentence = f"In none of {len(found)} slices is the quality shown to be worse (p = {p_value:.2g})."
            return [Signal(self.name, False, sentence, p_value)]
        told = "; ".join(self._sentence(one) for one in worse[:3])
        more = f" and {len(worse) - 3} more slices" if len(worse) > 3 else ""
        details: dict[str, Json] = {
            f"{one.name} = {one.value}": {
                "rows": one.rows, "before": one.before, "now": one.now, "p_value": one.p_value,
            }
            for one in worse
        }  # fmt: skip
        rise = worse[0].now - worse[0].before
        return [Signal(self.name, True, told + more, p_value, rise, "mean loss", details)]

    def slices(self, frame: Frame) -> Iterator[SliceLoss]:
        """Yield the groups that have enough labels here and on the holdout."""
        known = self._reference.slices
        if not known or int(np.sum(frame.labelled)) < FEWEST:
            return
        lost = losses(frame.rows(), self._reference.task)
        usable = np.isfinite(lost)
        for name, groups in known.items():
            values = frame.inputs.get(name)
            if values is None:
                continue
            now = groups_of(np.asarray(values)[np.asarray(frame.labelled, bool)])
            for code, value in enumerate(now.values):
                if value not in groups.values:
                    continue
                own = lost[usable & (now.codes == code)]
                past = self._reference.losses[groups.codes == groups.values.index(value)]
                if min(len(own), len(past)) >= FEWEST:
                    p_value = self._p(own, past)
                    yield SliceLoss(name, value, len(own), float(past.mean()), moments(own).mean, p_value)

    def _p(self, now: Array, before: Array) -> float:
        test = fall_p if self._reference.task is Task.CLASSIFICATION else greater_p
        return test(now, before, self._reference.loss_time)

    def _matters(self, one: SliceLoss) -> bool:
        scale = 1.0 if self._reference.task is Task.CLASSIFICATION else one.before
        return one.now - one.before >= self._least * scale

    def _sentence(self, one: SliceLoss) -> str:
        group, end = f"`{one.name}` = {one.value}", f"over {one.rows} labelled predictions (p = {one.p_value:.2g})"
        if self._reference.task is Task.CLASSIFICATION:
            return f"accuracy for {group} fell from {1 - one.before:.2f} to {1 - one.now:.2f} {end}"
        return f"the mean absolute error for {group} rose from {one.before:.3g} to {one.now:.3g} {end}"
