"""Output drift: the answers and their probabilities are no longer spread as on the holdout.

Why: a harmful shift of the inputs moves the answers' probabilities, while a harmless one often does not, so this is
quiet where tests on every input cry wolf. It cannot see a change of meaning that leaves the inputs alone.
"""

from collections.abc import Sequence

import numpy as np

from headrace.monitoring.base import Signal
from headrace.monitoring.frame import Frame
from headrace.monitoring.profiles import coded
from headrace.monitoring.reference_profile import Reference, output_columns
from headrace.monitoring.statistics.multiplicity import family_p
from headrace.monitoring.statistics.twosample import (
    anderson_darling,
    anderson_darling_p,
    chi_square_p,
    ks_distance,
)
from headrace.types import Json, Task

NAME = "output drift"


class OutputDrift:
    """Tests the confidence, each class's probability and the class mix, and fires on the smallest p-value of all.

    Attributes:
        level: the p-value of the whole family below which it fires.
    """

    name = NAME

    def __init__(self, reference: Reference, *, level: float) -> None:
        self._reference = reference
        self._level = level

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return one signal for the whole of the outputs, its details by column."""
        if not len(frame):
            return [Signal(self.name, False, "There were no predictions.")]
        found = self._numbers(frame)
        if self._reference.task is Task.CLASSIFICATION:
            found.insert(1, self._classes(frame))
        if not found:
            return [Signal(self.name, False, "The answers have nothing that can be compared.")]
        p_value = family_p(np.array([one.p_value for one in found]))
        fired = p_value <= self._level
        # The plainest evidence that suffices by itself is told: confidence and class mix stand before single classes.
        enough = [one for one in found if (one.p_value or 0.0) * len(found) <= self._level]
        worst = enough[0] if enough else min(found, key=lambda one: one.p_value or 0.0)
        sentence = worst.sentence if fired else f"The answers are spread as on the holdout (p = {p_value:.2g})."
        details: dict[str, Json] = {one.name: {"p_value": one.p_value, "effect": one.effect} for one in found}
        return [Signal(self.name, fired, sentence, p_value, worst.effect, worst.unit, details)]

    def _numbers(self, frame: Frame) -> list[Signal]:
        columns = output_columns(frame.answers, self._reference.task)
        found = []
        for name, before in self._reference.outputs.items():
            if name not in columns:
                continue
            now = before.count(np.asarray(columns[name], float))
            statistic = anderson_darling(before.counts, now)
            p_value = float(anderson_darling_p(statistic, before.counts, before.correlation_time))
            distance = float(ks_distance(before.counts, now))
            sentence = (
                f"the answers' {name} changed from {before.mean:.3g} to {float(np.nanmean(columns[name])):.3g} on "
                f"average (p = {p_value:.2g})"
            )
            found.append(Signal(name, False, sentence, p_value, distance, "largest distance of the distributions"))
        return found

    def _classes(self, frame: Frame) -> Signal:
        known = self._reference.answers
        now = coded(frame.answers.answer).counts()
        names = sorted({*known.counts, *now})
        before = np.array([known.counts.get(name, 0) for name in names])
        current = np.array([now.get(name, 0) for name in names])
        p_value = chi_square_p(before, current, known.correlation_time)
        moves = current / current.sum() - before / max(before.sum(), 1)
        at = int(np.abs(moves).argmax())
        sentence = (
            f"the answer `{names[at]}` went from {before[at] / max(before.sum(), 1):.0%} to "
            f"{current[at] / current.sum():.0%} of the rows (p = {p_value:.2g})"
        )
        return Signal("class mix", False, sentence, p_value, float(np.abs(moves).sum() / 2), "share of rows that moved")
