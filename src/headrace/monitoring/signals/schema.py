"""Schema and meaning: columns that are gone, new, empty, of another kind, in another unit, or that start to move.

Why: these are changes of what the inputs *are*. Retraining on them by itself would teach the model the mistake, or use
a column that nobody has looked at; so they are named, and a lasting one asks a person.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import bdtrc

from headrace.monitoring.base import Signal
from headrace.monitoring.columns import fits
from headrace.monitoring.frame import Frame
from headrace.monitoring.profiles import OTHER, Categories, Numbers, count_values
from headrace.monitoring.reference_profile import Reference
from headrace.monitoring.statistics.shares import rose_p
from headrace.monitoring.statistics.twosample import anderson_darling, ks_distance, stacked
from headrace.types import Json, Task

BREAK, MEANING = "schema break", "change of meaning"
#: A share of rows below this is not worth telling, however significant.
LEAST = 0.01
#: Factors between units that are met: 10 to any power, seconds, hours, inches, pounds, miles, degrees per radian.
_UNITS = (10.0, 60.0, 24.0, 2.54, 2.2046, 1.609, 0.3048, 57.2958, 1.8)


class Schema:
    """Compares the window's columns with the reference's. Gives one signal for each odd thing, or a quiet one.

    Attributes:
        level: the p-value of all tests together below which one fires.
    """

    name = BREAK

    def __init__(self, reference: Reference, *, level: float) -> None:
        self._reference = reference
        tests = 3 * (len(reference.fields) + len(reference.numbers) + len(reference.names) + 1)
        self._level = level / tests

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return what is odd about the columns."""
        if not len(frame):
            return []
        found = [*self._columns(frame), *self._numbers(frame), *self._names(frame), *self._classes(frame)]
        return found or [Signal(self.name, False, "The columns are those of the holdout.")]

    def _columns(self, frame: Frame) -> Iterator[Signal]:
        known = {one.name: one for one in self._reference.fields}
        rows = len(frame)
        for name, one in known.items():
            label = f"the {'output' if one.is_output else 'input'} `{name}`" if name else "the input"
            if name not in frame.watched.kinds:
                yield _fired(BREAK, f"{label} is gone", name)
            elif frame.watched.missing[name] == rows or frame.watched.kinds[name] == "nothing":
                if not self._was_empty(name):
                    yield _fired(BREAK, f"{label} has no values any more", name)
            elif not fits(frame.watched.kinds[name], one.kind):
                yield _fired(BREAK, f"{label} was {_article(one.kind)} and is {frame.watched.kinds[name]} now", name)
            else:
                yield from self._nulls(name, label, frame.watched.missing[name], rows)
        if known:
            for name in frame.watched.kinds.keys() - known.keys():
                yield _fired(MEANING, f"there is a new input `{name}`", name)

    def _was_empty(self, name: str) -> bool:
        profile = self._reference.numbers.get(name) or self._reference.names.get(name)
        return profile is not None and not profile.rows

    def _nulls(self, name: str, label: str, missing: int, rows: int) -> Iterator[Signal]:
        profile = self._reference.numbers.get(name) or self._reference.names.get(name)
        if profile is None:
            return
        total, before, time = profile.rows + profile.nulls, profile.nulls, profile.correlation_time
        if missing / rows - before / max(total, 1) < LEAST:
            return
        p_value = rose_p(*(int(count / time) for count in (before, total, missing, rows)))
        if p_value <= self._level:
            yield _fired(
                BREAK, f"{label} is missing in {missing / rows:.0%} of the rows, before in {before / total:.0%}", name,
                p_value,
            )  # fmt: skip

    def _numbers(self, frame: Frame) -> Iterator[Signal]:
        known = {
            name: before
            for name, before in self._reference.numbers.items()
            if before.rows and name in frame.watched.numbers and len(frame.watched.rising(name))
        }
        if not known:
            return
        counts = [frame.watched.counts(name, before) for name, before in known.items()]
        distances = ks_distance(stacked([before.counts for before in known.values()]), stacked(counts))
        for (name, before), distance in zip(known.items(), distances, strict=True):
            ordered = frame.watched.rising(name)
            if before.is_constant:
                yield from _moves(name, before, ordered)
                continue
            # Another unit moves most of the rows; anything less needs no closer look.
            factor = unit_factor(before, ordered) if distance > 0.3 else 0.0
            if factor:
                yield _fired(MEANING, f"`{name}` looks like another unit: about {factor:g} times as large", name)
                continue
            yield from self._range(name, before, ordered)

    def _range(self, name: str, before: Numbers, ordered: np.ndarray) -> Iterator[Signal]:
        rows = len(ordered)
        outside = rows - int(np.searchsorted(ordered, before.high, "right") - np.searchsorted(ordered, before.low))
        if outside / rows < LEAST:
            return
        # A new value is beyond all of `rows` old ones on either side with a chance of 2 / (rows + 1).
        p_value = _at_least(outside, rows, 2 / (before.rows + 1), before.correlation_time)
        if p_value <= self._level:
            yield _fired(
                MEANING,
                f"{outside / rows:.0%} of `{name}` is outside of {before.low:.3g} to {before.high:.3g}",
                name, p_value, is_range=True,
            )  # fmt: skip

    def _names(self, frame: Frame) -> Iterator[Signal]:
        for name, before in self._reference.names.items():
            values = frame.watched.names.get(name)
            if values is None or OTHER in before.counts or not before.rows:
                continue
            yield from self._unseen(name, before, frame.watched.values(name))

    def _unseen(self, name: str, before: Categories, now: dict[str, int]) -> Iterator[Signal]:
        new = {value: count for value, count in now.items() if value not in before.counts}
        rows, unseen = sum(now.values()), sum(new.values())
        if not rows or unseen / rows < LEAST:
            return
        # Good (1953): the chance of an unseen value is about the share of those seen once.
        p_value = _at_least(unseen, rows, (before.singles + 2) / (before.rows + 1), before.correlation_time)
        if p_value <= self._level:
            commonest = ", ".join(f"`{value}`" for value in sorted(new, key=lambda one: -new[one])[:3])
            yield _fired(MEANING, f"`{name}` has new values ({commonest}) in {unseen / rows:.0%} of the rows", name,
                         p_value)  # fmt: skip

    def _classes(self, frame: Frame) -> Iterator[Signal]:
        """Truths of a class that the model cannot answer."""
        if self._reference.task is not Task.CLASSIFICATION or not self._reference.classes or not frame.labelled.any():
            return
        now = count_values(frame.truth[frame.labelled]).values
        new = {value: count for value, count in now.items() if value not in self._reference.classes}
        unseen, rows = sum(new.values()), sum(now.values())
        if unseen >= 3 and unseen / rows >= LEAST:
            commonest = ", ".join(f"`{value}`" for value in sorted(new, key=lambda one: -new[one])[:3])
            yield _fired(
                MEANING, f"{unseen / rows:.0%} of the truths are of a class that the model does not know ({commonest})",
                "truth",
            )  # fmt: skip


def unit_factor(before: Numbers, values: np.ndarray) -> float:
    """Return the factor between units if the values are the old ones times it, else 0.

    The ratio of the quartiles' distances must be that of a unit to within a fifth, and undoing it must fit far better.
    """
    spread, centre = float(np.subtract(*np.quantile(values, [0.75, 0.25]))), float(values.mean())
    if not before.middle or not spread:
        return 0.0
    ratio = spread / before.middle
    if 0.6 < ratio < 1.6 or abs(centre) < abs(before.mean) * min(ratio, 1) / 5:
        return 0.0
    powers = [10.0**power for power in range(-9, 10) if power]
    candidates = [*powers, *(unit for unit in _UNITS[1:]), *(1 / unit for unit in _UNITS[1:])]
    factor = min(candidates, key=lambda one: abs(np.log(ratio / one)))
    if abs(np.log(ratio / factor)) > np.log(1.2):
        return 0.0
    apart = float(anderson_darling(before.counts, before.count(values)))
    undone = float(anderson_darling(before.counts, before.count(values / factor)))
    return factor if undone < 8.0 and apart > 10 * max(undone, 1.0) else 0.0


def _at_least(hits: int, rows: int, share: float, time: float) -> float:
    """Return the chance of that many rows or more; rows that repeat each other count as fewer."""
    return float(bdtrc(max(hits / time - 1, 0), max(int(rows / time), 1), min(share, 1.0)))


def _moves(name: str, before: Numbers, values: np.ndarray) -> Iterator[Signal]:
    share = float(np.mean(values != before.low))
    if share >= LEAST:
        sentence = f"`{name}` was always {before.low:g} and now moves between {values.min():.3g} and {values.max():.3g}"
        yield _fired(MEANING, sentence, name, is_range=True)


def _article(kind: str) -> str:
    return {"number": "a number", "category": "a name", "text": "a text"}.get(kind, "a tensor")


def _fired(name: str, sentence: str, column: str, p_value: float | None = None, *, is_range: bool = False) -> Signal:
    # A range that is left or a constant that moves is told, but the columns still mean what they meant.
    details: dict[str, Json] = {"column": column, "asks_for_rebuild": name == MEANING and not is_range}
    return Signal(name, True, sentence, p_value, details=details)
