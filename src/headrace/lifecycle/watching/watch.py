"""The watch: a window of predictions is judged.

An alarm starts a candidate with its reason attached; gate, acceptance and approval are the same as for people.
"""

import contextlib
import math
from datetime import timedelta

from headrace.errors import Conflict
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.production.rollback import roll_back
from headrace.lifecycle.request import Cause, Outcome, State, Trigger, WatchRequest, early_id
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event
from headrace.lifecycle.triggers.book import Book
from headrace.lifecycle.versions import recall, version_folder
from headrace.lifecycle.watching.looks import facts_at
from headrace.lifecycle.watching.service_facts import Facts, facts_of
from headrace.lifecycle.watching.told import news
from headrace.lifecycle.watching.watchbook import Judged, mark, note_failure, remembered, rows_until
from headrace.monitoring import judge, seasons
from headrace.monitoring.base import Alarm, Consequence, Window
from headrace.monitoring.memory import Memory
from headrace.types import Actor, Json, Stage


def watch(durable: Durable, rooms: Rooms, request: WatchRequest) -> Outcome:
    """The flow: judge one window, and act on what was found."""
    try:
        judged = durable.step("judge", judge_window, rooms, request)
        follow_up = durable.step("act", act, rooms, request, judged)
        if follow_up is not None:
            durable.step("trigger", knock, rooms, follow_up)
        # Last, so that a window whose judging broke off anywhere before is judged again.
        durable.step("mark", mark, rooms, request, judged, follow_up.flow_id if follow_up else "")
    except Superseded:
        raise
    except Exception as error:  # The window's boundary: whatever it was, it is tried again after a while.
        durable.step("note", note_failure, rooms, request, getattr(error, "fact", repr(error)))
        raise
    return Outcome(
        request.flow_id, request.component, State.DONE, request.version, fact=judged.sentence,
        evidence={"consequence": judged.consequence, "signals": judged.signals, "rows": judged.rows},
        next_flow=follow_up.flow_id if follow_up else "",
    )  # fmt: skip


def judge_window(rooms: Rooms, request: WatchRequest) -> Judged:
    """Look at the window with every detector and make one verdict."""
    settings = recall(rooms, request.component, request.version).settings
    journal = rooms.journal(request.flow_id)
    with journal.step("judge", f"the last {settings.monitor.window} predictions of v{request.version}") as note:
        rows = rows_until(rooms, request, settings.monitor.window)
        profile = seasons.load(version_folder(rooms, request.component, request.version) / "reference")
        window = Window(request.component, request.version, rows)
        # Counters are read once for each window; what came after an early look belongs to the next one.
        known = facts_at(rooms, request) or facts_of(rooms, request, settings)
        past = remembered(rooms, request.component)
        watched = judge.watch(window, profile, settings.monitor, past, facts=known.service)
        alarm = watched.alarm
        note.found = alarm.sentence
    return judged_of(alarm, watched.memory, known, len(rows))


def judged_of(alarm: Alarm, memory: Memory, known: Facts, rows: int) -> Judged:
    """Return a verdict in stored form."""
    signals = [signal_json(alarm, i) for i in range(len(alarm.signals))]
    return Judged(
        alarm.consequence.value, alarm.sentence, signals, rows, memory.as_json(), alarm.repeats, known.counters,
        alarm.since,
    )  # fmt: skip


def signal_json(alarm: Alarm, index: int) -> Json:
    """Return one signal of an alarm as JSON; what is no finite number there is None, or no ledger would take it."""
    signal = alarm.signals[index]
    return {
        "name": signal.name,
        "fired": signal.fired,
        "p_value": _finite(signal.p_value),
        "effect": _finite(signal.effect),
        "sentence": signal.sentence,
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def knock(rooms: Rooms, event: Event) -> None:
    """Let an alarm wait at the door of all triggers."""
    Book(rooms, event.component).add(event)


def act(rooms: Rooms, request: WatchRequest, judged: Judged) -> Event | None:
    """Write an alarm to the ledger; return the candidate that it starts, if the component wants one and may."""
    if judged.consequence == Consequence.NONE.value:
        return None
    retrains = judged.consequence == Consequence.RETRAIN.value and may_retrain(rooms, request, judged)
    if is_old_news(judged) and not retrains:
        return None
    sentence = news(judged, rooms.ledger.find(f"{early_id(request)}/alarm"))
    if sentence:
        sound(rooms, request, judged, sentence, key=f"{request.window_id}/alarm", retrains=retrains)
    if judged.consequence == Consequence.ROLL_BACK.value:
        go_back(rooms, request, judged)
    if not retrains:
        return None
    trigger = Trigger(Cause.ALARM, request.first, "monitor", judged.sentence, {"alarm": request.flow_id})
    folder = recall(rooms, request.component, request.version).folder
    return Event(request.component, trigger, folder=folder, with_production_rows=True)


def is_old_news(judged: Judged) -> bool:
    """Tell whether the window before gave the same alarm; this one is in `windows.jsonl` all the same."""
    return bool(judged.repeats) and judged.consequence != Consequence.ROLL_BACK.value


def sound(rooms: Rooms, request: WatchRequest, judged: Judged, sentence: str, *, key: str, retrains: bool) -> None:
    """Write an alarm to the ledger, once for each key."""
    evidence: dict[str, Json] = {
        "window": {"first": request.first, "last": request.last, "rows": judged.rows},
        "consequence": judged.consequence,
        "since": judged.since,
        "retrains": retrains,
        "signals": judged.signals,
    }
    actor, version = Actor("monitor"), request.version
    rooms.ledger.append(
        Draft(request.component, Action.ALARM, actor, sentence, key, version=version, evidence=evidence)
    )


def go_back(rooms: Rooms, request: WatchRequest, judged: Judged) -> None:
    """Take back a promotion whose version does worse than the one before; what a person rolled back to stays."""
    key = f"{request.window_id}/rollback"
    serving = rooms.ledger.serving(request.component, Stage.PRODUCTION)
    may = serving is not None and serving.version == request.version and serving.action is Action.PROMOTED
    if not may and rooms.ledger.find(key) is None:
        return
    with contextlib.suppress(Conflict):  # Nothing to go back to, or somebody was faster.
        roll_back(rooms, request.component, to=None, actor=Actor("monitor"), reason=judged.sentence, key=key)


def may_retrain(rooms: Rooms, request: WatchRequest, judged: Judged) -> bool:
    """Tell whether the component retrains on what was found and no alarm did within its cooldown.

    Labels that show a loss are `quality`. An estimated loss with output drift, in consecutive windows, is `drift`.
    """
    retrain = recall(rooms, request.component, request.version).settings.retrain
    is_labelled = any(
        isinstance(one, dict) and one["fired"] and one["name"] in judge.LABELLED for one in judged.signals
    )
    if ("quality" if is_labelled else "drift") not in retrain.on:
        return False
    since = rooms.clock.now() - timedelta(seconds=retrain.cooldown)
    return not any(
        entry.evidence.get("retrains") and entry.key != f"{request.window_id}/alarm" and entry.at > since
        for entry in rooms.ledger.select(request.component, {Action.ALARM}, limit=1000)
    )
