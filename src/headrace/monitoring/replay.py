"""Replay: what the watch says about a stream that is already there, window by window."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.config.component import Monitor
from headrace.monitoring.base import Alarm, Consequence, Window
from headrace.monitoring.judge import watch
from headrace.monitoring.memory import Memory
from headrace.monitoring.seasons import Seasons
from headrace.predictions.base import Joined, PredictionLog
from headrace.types import Json

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Seen:
    """One window and what was said about it."""

    version: int
    first: str
    last: str
    at: str
    rows: int
    labelled: int
    alarm: Alarm

    def as_json(self) -> dict[str, Json]:
        """Return it as reports keep it."""
        return {
            "version": self.version, "first": self.first, "last": self.last, "at": self.at, "rows": self.rows,
            "labelled": self.labelled, "alarm": self.alarm.as_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replay:
    """All windows of a stream, oldest first.

    Attributes:
        per_month: false alarms that the budget allows per month at this stream's traffic; 0 where it has no length.
        labels: how long windows wait for their actuals, and why; empty where nobody waits.
    """

    component: str
    windows: Sequence[Seen]
    budget: float
    per_month: float
    labels: str = ""

    def counts(self) -> dict[str, int]:
        """Return how many windows had each consequence."""
        return {one.value: sum(seen.alarm.consequence is one for seen in self.windows) for one in Consequence}

    def as_json(self) -> dict[str, Json]:
        """Return the whole replay as one document."""
        return {
            "component": self.component, "budget_per_window": self.budget, "budget_per_month": self.per_month,
            "labels": self.labels, "counts": dict(self.counts()), "windows": [seen.as_json() for seen in self.windows],
        }  # fmt: skip


def replay(
    component: str, windows: Iterator[Window], references: Mapping[int, Seasons], monitor: Monitor, memory: Memory
) -> Replay:
    """Return what the watch says about each window in turn. Versions without a reference are left out."""
    found: list[Seen] = []
    for window in windows:
        reference = references.get(window.version)
        if reference is None:
            continue
        watched = watch(window, reference, monitor, memory)
        memory = watched.memory
        at = window.rows[-1].prediction.at.isoformat(timespec="seconds")
        labelled = sum(row.is_labelled for row in window.rows)
        found.append(Seen(window.version, window.first, window.last, at, len(window.rows), labelled, watched.alarm))
    return Replay(component, found, monitor.false_alarms, per_month(found, monitor.false_alarms))


def windows_of(log: PredictionLog, component: str, rows: int, *, after: str = "") -> Iterator[Window]:
    """Yield a component's full windows, oldest first; a change of version begins a new one."""
    kept: list[Joined] = []
    while True:
        page = log.joined(component, after=after, limit=_PAGE)
        for row in page:
            if kept and row.prediction.version != kept[0].prediction.version:
                kept = []
            kept.append(row)
            if len(kept) == rows:
                yield Window(component, row.prediction.version, kept)
                kept = []
        if len(page) < _PAGE:
            return
        after = page[-1].prediction.id


def pages_of(log: PredictionLog, component: str, *, version: int) -> Iterator[Sequence[Joined]]:
    """Yield a version's rows in parts, oldest first."""
    after = ""
    while page := log.joined(component, after=after, limit=_PAGE, version=version):
        yield page
        after = page[-1].prediction.id


def per_month(found: Sequence[Seen], budget: float) -> float:
    """Return how many false alarms a budget per window allows in a month at their pace; 0 if unknown."""
    if len(found) < 2:
        return 0.0
    from datetime import datetime

    seconds = (datetime.fromisoformat(found[-1].at) - datetime.fromisoformat(found[0].at)).total_seconds()
    return budget * (len(found) - 1) / seconds * 30 * 86400 if seconds > 0 else 0.0
