"""What a window's verdict says that was not said of it before, when its labels were awaited."""

from collections.abc import Sequence

from headrace.ledger.base import Entry
from headrace.lifecycle.watching.watchbook import Judged
from headrace.monitoring.base import Consequence
from headrace.monitoring.signals import schema
from headrace.types import Json

_BY_GRAVITY = [one.value for one in Consequence]


def news(judged: Judged, early: Entry | None) -> str:
    """Return what an alarm has to tell; nothing where the early look told the same, or more.

    Args:
        early: the early look's alarm, if it gave one.
    """
    if early is None:
        return judged.sentence
    known = _fired(early.evidence["signals"])
    new = {told: signal for told, signal in _fired(judged.signals).items() if told not in known}
    if new:
        body = "; ".join(str(signal["sentence"]) for signal in new.values())
        before = ", ".join(dict.fromkeys(str(signal["name"]) for signal in known.values()))
        return f"{body[:1].upper()}{body[1:]}. Told before the labels were in: {before}."
    is_graver = _BY_GRAVITY.index(judged.consequence) > _BY_GRAVITY.index(str(early.evidence["consequence"]))
    return judged.sentence if is_graver else ""


def _fired(signals: Json | Sequence[Json]) -> dict[str, dict[str, Json]]:
    """Return what fired by what tells it apart: a signal's name, and of the columns each one's own sentence."""
    found = {}
    for one in signals if isinstance(signals, list) else []:
        if isinstance(one, dict) and one["fired"]:
            is_column = one["name"] in (schema.BREAK, schema.MEANING)
            found[str(one["sentence"] if is_column else one["name"])] = one
    return found
