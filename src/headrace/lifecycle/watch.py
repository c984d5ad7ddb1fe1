"""The watch: a window of predictions is judged once it is full and its labels had time to come in.

An alarm starts a candidate with its reason attached; gate, acceptance and approval are the same as for people.
"""

import contextlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from headrace.errors import Conflict
from headrace.files import write_atomically
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.request import Cause, Outcome, State, Trigger, WatchRequest
from headrace.lifecycle.rollback import roll_back
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event
from headrace.lifecycle.triggers.book import Book
from headrace.lifecycle.versions import recall, version_folder
from headrace.monitoring import judge, seasons
from headrace.monitoring.base import Alarm, Consequence, Window
from headrace.monitoring.memory import Memory
from headrace.types import Actor, Json, Stage

MEMORY = "memory.json"


@dataclass(frozen=True, slots=True)
class Judged:
    """One judged window, in stored form."""

    consequence: str
    sentence: str
    signals: list[Json]
    rows: int
    memory: dict[str, Json] = field(default_factory=dict)
    repeats: int = 0


def due(rooms: Rooms, component: str) -> WatchRequest | None:
    """Return the next window to judge, or None while it is not full or its labels may still come."""
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return None
    settings = recall(rooms, component, serving.version).settings
    monitor = settings.monitor
    log = rooms.predictions
    after = watermark(rooms, component, serving.version)
    rows = log.joined(component, after=after, limit=monitor.window, version=serving.version)
    if len(rows) < monitor.window:
        return None
    newest = rows[-1].prediction.at
    is_labelled = all(row.is_labelled for row in rows)
    if not is_labelled and rooms.clock.now() - newest < timedelta(seconds=monitor.label_delay):
        return None
    return WatchRequest(component, serving.version, rows[0].prediction.id, rows[-1].prediction.id)


def pause_s(rooms: Rooms, component: str) -> float:
    """Return how long to wait between two looks at a component's predictions."""
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return 1.0
    return recall(rooms, component, serving.version).settings.monitor.every_s


def watch(durable: Durable, rooms: Rooms, request: WatchRequest) -> Outcome:
    """The flow: judge one window, and act on what was found."""
    judged = durable.step("judge", judge_window, rooms, request)
    follow_up = durable.step("act", act, rooms, request, judged)
    durable.step("mark", mark, rooms, request, judged, follow_up.flow_id if follow_up else "")
    if follow_up is not None:
        durable.step("trigger", knock, rooms, follow_up)
    return Outcome(
        request.flow_id, request.component, State.DONE, request.version, fact=judged.sentence,
        evidence={"consequence": judged.consequence, "signals": judged.signals, "rows": judged.rows},
        next_flow=follow_up.flow_id if follow_up else "",
    )  # fmt: skip


def judge_window(rooms: Rooms, request: WatchRequest) -> Judged:
    """Look at the window with every detector and make one verdict."""
    settings = recall(rooms, request.component, request.version).settings
    log = rooms.predictions
    journal = rooms.journal(request.flow_id)
    with journal.step("judge", f"the last {settings.monitor.window} predictions of v{request.version}") as note:
        after = watermark(rooms, request.component, request.version)
        rows = log.joined(request.component, after=after, limit=settings.monitor.window, version=request.version)
        profile = seasons.load(version_folder(rooms, request.component, request.version) / "reference")
        window = Window(request.component, request.version, rows)
        watched = judge.watch(window, profile, settings.monitor, remembered(rooms, request.component))
        alarm = watched.alarm
        note.found = alarm.sentence
    signals = [signal_json(alarm, i) for i in range(len(alarm.signals))]
    memory = watched.memory.as_json()
    return Judged(alarm.consequence.value, alarm.sentence, signals, len(rows), memory, alarm.repeats)


def remembered(rooms: Rooms, component: str) -> Memory:
    """Return what the judge remembers of a component's windows."""
    path = _folder(rooms, component, MEMORY)
    return Memory.from_json(json.loads(path.read_text())) if path.exists() else Memory()


def signal_json(alarm: Alarm, index: int) -> Json:
    """Return one signal of an alarm as JSON."""
    signal = alarm.signals[index]
    return {
        "name": signal.name,
        "fired": signal.fired,
        "p_value": signal.p_value,
        "effect": signal.effect,
        "sentence": signal.sentence,
    }


def knock(rooms: Rooms, event: Event) -> None:
    """Let an alarm wait at the door of all triggers."""
    Book(rooms, event.component).add(event)


def act(rooms: Rooms, request: WatchRequest, judged: Judged) -> Event | None:
    """Write an alarm to the ledger; return the candidate that it starts, if the component wants one and may."""
    if judged.consequence == Consequence.NONE.value:
        return None
    if judged.repeats and judged.consequence == Consequence.WARN.value:
        return None  # The first window said so already; it is in `windows.jsonl` all the same.
    retrains = judged.consequence == Consequence.RETRAIN.value and may_retrain(rooms, request, judged)
    evidence: dict[str, Json] = {
        "window": {"first": request.first, "last": request.last, "rows": judged.rows},
        "consequence": judged.consequence,
        "retrains": retrains,
        "signals": judged.signals,
    }
    rooms.ledger.append(
        Draft(
            request.component, Action.ALARM, Actor("monitor"), judged.sentence, f"{request.flow_id}/alarm",
            version=request.version, evidence=evidence,
        )
    )  # fmt: skip
    if judged.consequence == Consequence.ROLL_BACK.value:
        go_back(rooms, request, judged)
    if not retrains:
        return None
    trigger = Trigger(Cause.ALARM, request.first, "monitor", judged.sentence, {"alarm": request.flow_id})
    folder = recall(rooms, request.component, request.version).folder
    return Event(request.component, trigger, folder=folder, with_production_rows=True)


def go_back(rooms: Rooms, request: WatchRequest, judged: Judged) -> None:
    """Take back a promotion whose version does worse than the one before; what a person rolled back to stays."""
    serving = rooms.ledger.serving(request.component, Stage.PRODUCTION)
    if serving is None or serving.version != request.version or serving.action is not Action.PROMOTED:
        return
    with contextlib.suppress(Conflict):  # Nothing to go back to, or somebody was faster.
        roll_back(
            rooms, request.component, to=None, actor=Actor("monitor"), reason=judged.sentence,
            key=f"{request.flow_id}/rollback",
        )  # fmt: skip


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
        entry.evidence.get("retrains") and entry.key != f"{request.flow_id}/alarm" and entry.at > since
        for entry in rooms.ledger.select(request.component, {Action.ALARM}, limit=1000)
    )


def watermark(rooms: Rooms, component: str, version: int) -> str:
    """Return the id of the last judged prediction of a version."""
    path = _folder(rooms, component, "watermarks.json")
    marks: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return marks.get(str(version), "")


def mark(rooms: Rooms, request: WatchRequest, judged: Judged, next_flow: str) -> None:
    """Keep the verdict, and remember that the window was judged."""
    if all(window["flow"] != request.flow_id for window in windows(rooms, request.component)):
        verdict: dict[str, Json] = {
            "flow": request.flow_id,
            "at": rooms.clock.now().isoformat(),
            "version": request.version,
            "first": request.first,
            "last": request.last,
            "rows": judged.rows,
            "consequence": judged.consequence,
            "sentence": judged.sentence,
            "signals": judged.signals,
            "next_flow": next_flow,
        }
        with _folder(rooms, request.component, "windows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(verdict) + "\n")
    write_atomically(_folder(rooms, request.component, MEMORY), json.dumps(judged.memory))
    path = _folder(rooms, request.component, "watermarks.json")
    marks: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    write_atomically(path, json.dumps({**marks, str(request.version): request.last}))


def windows(rooms: Rooms, component: str) -> list[dict[str, Json]]:
    """Return all verdicts on a component's windows, oldest first."""
    path = _folder(rooms, component, "windows.jsonl")
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _folder(rooms: Rooms, component: str, file: str) -> Path:
    folder = rooms.settings.home / "watch" / component
    folder.mkdir(parents=True, exist_ok=True)
    return folder / file
