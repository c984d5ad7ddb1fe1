"""When a window is due: once it is full and its labels had time to come in."""

from dataclasses import dataclass
from datetime import timedelta

from headrace.lifecycle.request import WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall
from headrace.lifecycle.watching.label_wait import label_wait
from headrace.lifecycle.watching.watchbook import failure, watermark
from headrace.types import Stage


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
    version, monitor = serving.version, recall(rooms, component, serving.version).settings.monitor
    after = watermark(rooms, component, version)
    rows = rooms.predictions.joined(component, after=after, limit=monitor.window, version=version)
    if len(rows) < monitor.window:
        return Standing(None, f"{len(rows)} of the next window's {monitor.window} predictions of v{version} are in.")
    labelled = sum(row.is_labelled for row in rows)
    if labelled < len(rows):
        wait = label_wait(rooms, component, monitor)
        until = rows[-1].prediction.at + timedelta(seconds=wait.seconds)
        if rooms.clock.now() < until:
            are_in = f"{labelled} of {len(rows)} actuals are in; the others may come until {until:%F %T} UTC"
            return Standing(None, f"{are_in} ({wait.sentence}).")
    first, last = rows[0].prediction.id, rows[-1].prediction.id
    failed = failure(rooms, component, first)
    if failed and not is_asked and rooms.clock.now() < failed.again_at:
        return Standing(None, f"The window could not be judged; it is tried again at {failed.again_at:%F %T} UTC.")
    request = WatchRequest(component, version, first, last, failed.times if failed else 0)
    return Standing(request, f"{len(rows)} predictions of v{version} are due.")


def pause_s(rooms: Rooms, component: str) -> float:
    """Return how long to wait between two looks at a component's predictions."""
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return 1.0
    return recall(rooms, component, serving.version).settings.monitor.every_s
