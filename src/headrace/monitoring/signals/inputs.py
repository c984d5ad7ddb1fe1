"""Input drift: single inputs are no longer spread as on the holdout.

Why: it says *where* a change comes from, and it needs neither labels nor outputs. Alone it only warns: most shifts of
inputs harm nobody. A column fires only if it is both beyond chance (Benjamini-Hochberg over all columns) and beyond
what is worth mentioning (population stability index at least 0.02 above what chance gives at this window's size).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from headrace.monitoring.base import Signal
from headrace.monitoring.columns import Columns
from headrace.monitoring.frame import Frame
from headrace.monitoring.profiles import OTHER, Categories, Numbers
from headrace.monitoring.reference_profile import Reference
from headrace.monitoring.statistics.multiplicity import benjamini_hochberg
from headrace.monitoring.statistics.twosample import (
    chi_square_p,
    psi,
    psi_by_chance,
    shift_p,
    stacked,
)
from headrace.types import Json

Array: TypeAlias = np.ndarray[Any, Any]
NAME = "input drift"
#: How far the index must be above what chance gives.
LEAST = 0.02
_COARSE = 10


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column's drift.

    Attributes:
        excess: the stability index above what chance gives at this size.
    """

    column: str
    p_value: float
    excess: float
    sentence: str


class InputDrift:
    """Tests every watched column of the inputs."""

    name = NAME

    def __init__(self, reference: Reference, *, level: float, least: float = LEAST) -> None:
        self._reference = reference
        self._level = level
        self._least = least

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return one signal for all inputs; its details name the columns that drifted, worst first."""
        found = self.drifts(frame)
        if not found:
            return []
        adjusted = benjamini_hochberg(np.array([one.p_value for one in found]))
        drifted = [
            one
            for one, p_value in zip(found, adjusted, strict=True)
            if p_value <= self._level and one.excess >= self._least
        ]
        drifted.sort(key=lambda one: -one.excess)
        p_value = float(adjusted.min())
        if not drifted:
            return [Signal(self.name, False, f"{len(found)} columns are spread as on the holdout.", p_value)]
        more = f" and {len(drifted) - 3} more columns changed" if len(drifted) > 3 else ""
        sentence = "; ".join(one.sentence for one in drifted[:3]) + more
        details: dict[str, Json] = {
            one.column: {"p_value": one.p_value, "excess": one.excess, "sentence": one.sentence} for one in drifted
        }
        effect = drifted[0].excess
        return [Signal(self.name, True, sentence, p_value, effect, "stability index beyond chance", details)]

    def drifts(self, frame: Frame) -> list[ColumnDrift]:
        """Return each column's drift, tested or not worth testing left out."""
        columns, tests = frame.watched, len(self._reference.numbers) + len(self._reference.names)
        alpha = self._level / max(tests, 1)
        known = {
            name: before
            for name, before in self._reference.numbers.items()
            if name in columns.numbers and not before.is_constant and before.rows
        }
        found = _numbers(known, columns, alpha) if known else []
        return found + [
            _names(name, names, columns.values(name), alpha)
            for name, names in self._reference.names.items()
            if name in columns.names and names.rows
        ]


def _numbers(known: Mapping[str, Numbers], columns: Columns, alpha: float) -> list[ColumnDrift]:
    """Return the drift of all numeric columns, tested in one go."""
    now = {name: columns.counts(name, before) for name, before in known.items()}
    first, second = stacked([one.counts for one in known.values()]), stacked(list(now.values()))
    rows, times = second.sum(axis=1), np.array([one.correlation_time for one in known.values()])
    p_values = shift_p(first, second, time=times)
    pairs = [coarse(one.counts, now[name]) for name, one in known.items()]
    coarse_first, coarse_second = stacked([one for one, _ in pairs]), stacked([other for _, other in pairs])
    bins = np.array([len(one) for one, _ in pairs])
    excess = psi(coarse_first, coarse_second) - times * psi_by_chance(bins, first.sum(axis=1), rows, alpha)
    found = []
    for at, (name, before) in enumerate(known.items()):
        mean = float(columns.rising(name).mean()) if rows[at] else float("nan")
        sentence = f"`{name}` went from {before.mean:.3g} to {mean:.3g} on average (p = {p_values[at]:.2g})"
        found.append(ColumnDrift(name, float(p_values[at]), float(excess[at]), sentence))
    return found


def _names(name: str, before: Categories, values: dict[str, int], alpha: float) -> ColumnDrift:
    keys = list(before.counts)
    now = [values.get(key, 0) for key in keys]
    unseen = sum(values.values()) - sum(now)
    if OTHER in before.counts:
        now[keys.index(OTHER)] += unseen
    elif unseen:
        keys, now = [*keys, OTHER], [*now, unseen]
    first = np.array([before.counts.get(key, 0) for key in keys])
    second = np.array(now)
    p_value = chi_square_p(first, second, before.correlation_time)
    shares = second / max(second.sum(), 1) - first / max(first.sum(), 1)
    at = int(np.abs(shares).argmax())
    by_chance = psi_by_chance(np.array(len(keys)), np.array(first.sum()), np.array(second.sum()), alpha)
    excess = float(psi(first, second) - by_chance * before.correlation_time)
    label = "other values" if keys[at] == OTHER else f"`{keys[at]}`"
    share = first[at] / max(first.sum(), 1)
    sentence = f"in `{name}`, {label} went from {share:.0%} to {share + shares[at]:.0%} of the rows (p = {p_value:.2g})"
    return ColumnDrift(name, p_value, excess, sentence)


def coarse(before: Array, now: Array) -> tuple[Array, Array]:
    """Return both histograms over about ten bins that hold equal shares of the first."""
    if len(before) <= _COARSE:
        return before, now
    group = np.minimum((np.cumsum(before) - before / 2) * _COARSE // max(before.sum(), 1), _COARSE - 1).astype(int)
    return np.bincount(group, before, _COARSE), np.bincount(group, now, _COARSE)
