"""How long a window waits for its actuals: as headrace.yaml says, or as long as they took so far."""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta

from headrace.config.component import Monitor
from headrace.files import write_atomically
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.watching.watchbook import place
from headrace.predictions.base import Delays
from headrace.predictions.labels import FEWEST

FILE = "delays.json"
#: Where fewer actuals are known than say something of the slowest.
UNKNOWN_S = 3600.0
#: Predictions that are older say little of how long labels take today.
LOOKBACK = timedelta(days=28)
#: So long what was found is taken for true; finding it reads all actuals of the last weeks.
KEPT_S = 300.0


@dataclass(frozen=True, slots=True)
class LabelWait:
    """How long after its last prediction a window waits for actuals, and why."""

    seconds: float
    sentence: str


def label_wait(rooms: Rooms, component: str, monitor: Monitor) -> LabelWait:
    """Return how long a component's windows wait.

    Raises:
        Unavailable: the prediction log cannot be read.
    """
    if monitor.label_delay != "auto":
        return LabelWait(monitor.label_delay, f"`monitor.label_delay` is {lasting(monitor.label_delay)}")
    known, most = delays(rooms, component), monitor.label_delay_at_most
    seconds = min(usual_s(known), most)
    if known.labels < FEWEST:
        return LabelWait(seconds, f"{known.labels} actuals do not say yet how long they take")
    sentence = f"99 of 100 actuals came within {lasting(known.within_s)}"
    if known.within_s > most:
        sentence += f", longer than `monitor.label_delay_at_most`, {lasting(most)}: windows are judged without the rest"
    return LabelWait(seconds, sentence)


def usual_s(known: Delays) -> float:
    """Return how long nearly all labels take, as far as it is known."""
    return known.within_s if known.labels >= FEWEST else UNKNOWN_S


def delays(rooms: Rooms, component: str) -> Delays:
    """Return how long actuals take; read anew every few minutes, and at every look while few are known."""
    path, now = place(rooms, component, FILE), rooms.clock.now()
    if path.exists():
        document = json.loads(path.read_text())
        if 0 <= now.timestamp() - document["at"] < KEPT_S:
            return Delays(document["labels"], document["within_s"])
    found = rooms.predictions.delays(component, since=now - LOOKBACK, now=now)
    if found.labels >= FEWEST:
        write_atomically(path, json.dumps({**asdict(found), "at": now.timestamp()}))
    return found


def lasting(seconds: float) -> str:
    """Return a time in the largest unit of which it has two."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
