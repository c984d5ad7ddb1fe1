"""When a window is due: once it is full and its labels had time to come in; and until then once, without them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from headrace.lifecycle.request import EarlyRequest, WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall
from headrace.lifecycle.watching.label_wait import label_wait
from headrace.lifecycle.watching.looks import Look, looks_of
from headrace.lifecycle.watching.watchbook import failure, rows_until, set_back, unjudged
from headrace.predictions.ids import time_of
from headrace.types import Stage

#: A window whose verdict is so near is not looked at before it.
SOON = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a component's next window is.

    Attributes:
        request: the window to judge now; None where none is due.
        sentence: what is due, or what it waits for.
    """

    request: WatchRequest | None
    sentence: str


def standing(rooms: Rooms, component: str, *, is_asked: bool = False) -> Standing:
    """Return the next window to judge, or what it waits for.

    Args:
        is_asked: whether a person asks now, who need not wait for the next try after a failure.
    """
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return Standing(None, f"No version of {component} is in production.")
    ahead = set_back(rooms, component, serving.version)
    found = _of_version(rooms, component, serving.version, is_asked=is_asked)
    if not ahead:
        return found
    told = (
        f"The clock was ahead: predictions of v{serving.version} that bear times up to {time_of(ahead):%F %T} UTC were "
        f"judged. What comes now is judged all the same."
    )
    return replace(found, sentence=f"{told} {found.sentence}")


def _of_version(rooms: Rooms, component: str, version: int, *, is_asked: bool) -> Standing:
    monitor = recall(rooms, component, version).settings.monitor
    looks = looks_of(rooms, component, version)
    rows = rows_until(rooms, _seen(component, looks[0]), monitor.window) if looks else []
    if not rows:  # None was looked at, or they were pruned since.
        looks = []
        rows = unjudged(rooms, component, version, limit=monitor.window)
        if len(rows) < monitor.window:
            are_in = f"{len(rows)} of the next window's {monitor.window} predictions of v{version} are in."
            return Standing(None, are_in)
    found = WatchRequest(component, version, rows[0].prediction.id, rows[-1].prediction.id)
    request = _seen(component, looks[0]) if looks else found
    labelled = sum(row.is_labelled for row in rows)
    if labelled < len(rows):
        wait = label_wait(rooms, component, monitor)
        asked = rows[-1].prediction.at
        if looks:  # It was asked before that, whatever a clock that was ahead then wrote.
            asked = min(asked, datetime.fromisoformat(looks[0].at))
        until = asked + timedelta(seconds=wait.seconds)
        if rooms.clock.now() < until:
            are_in = f"{labelled} of {len(rows)} actuals are in; the others may come until {until:%F %T} UTC"
            waits = f"{are_in} ({wait.sentence})."
            if until - rooms.clock.now() <= SOON and not looks:
                return Standing(None, waits)
            return _early(rooms, request, monitor.window, looks, waits, is_asked=is_asked)
    return _unless_failed(rooms, request, f"{len(rows)} predictions of v{version} are due.", is_asked=is_asked)


def _seen(component: str, look: Look) -> WatchRequest:
    return WatchRequest(component, look.version, look.first, look.last)


def _early(
    rooms: Rooms, oldest: WatchRequest, window: int, looks: Sequence[Look], waits: str, *, is_asked: bool
) -> Standing:
    """Return the first full window that was not looked at yet, which may be a later one than the oldest that waits."""
    first, last = oldest.first, oldest.last
    if looks:
        after = looks[-1].last
        rows = unjudged(rooms, oldest.component, oldest.version, limit=window, after=after)
        if len(rows) < window:
            return Standing(None, f"{waits} What needs no labels was judged at {looks[0].at}: {looks[0].sentence}")
        first, last = rows[0].prediction.id, rows[-1].prediction.id
    request = EarlyRequest(oldest.component, oldest.version, first, last)
    due = f"{window} predictions of v{oldest.version} wait for their labels; what needs none is due."
    return _unless_failed(rooms, request, due, is_asked=is_asked)


def _unless_failed(rooms: Rooms, request: WatchRequest, due: str, *, is_asked: bool) -> Standing:
    failed = failure(rooms, request.component, request.first)
    if failed and not is_asked and rooms.clock.now() < failed.again_at:
        return Standing(None, f"The window could not be judged; it is tried again at {failed.again_at:%F %T} UTC.")
    return Standing(replace(request, attempt=failed.times if failed else 0), due)


def pause_s(rooms: Rooms, component: str) -> float:
    """Return how long to wait between two looks at a component's predictions."""
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return 1.0
    return recall(rooms, component, serving.version).settings.monitor.every_s
