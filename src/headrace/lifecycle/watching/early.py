"""The early look: a full window whose labels are awaited is judged once by all that needs none.

A schema break or failing requests right after a change of version must not wait for labels, which may take hours.
"""

from dataclasses import asdict, dataclass

from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.request import EarlyRequest, Outcome, State, early_id
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall, version_folder
from headrace.lifecycle.watching.looks import keep, looks_of, remembered_early
from headrace.lifecycle.watching.service_facts import facts_of
from headrace.lifecycle.watching.watch import go_back, is_old_news, judged_of, sound
from headrace.lifecycle.watching.watchbook import Judged, note_failure, rows_until, watermark
from headrace.monitoring import judge, seasons
from headrace.monitoring.base import Consequence, Window
from headrace.types import Json


@dataclass(frozen=True, slots=True)
class Looked:
    """What an early look found, in stored form; `service` is what the counters said."""

    judged: Judged
    service: dict[str, Json]


def look(durable: Durable, rooms: Rooms, request: EarlyRequest) -> Outcome:
    """The flow: look at one window without its labels, and act on what cannot wait."""
    try:
        looked = durable.step("judge", look_at, rooms, request)
        durable.step("act", act_early, rooms, request, looked.judged)
        # Last, so that a look that broke off is made again. What it wrote is named by the window, and written once.
        durable.step("mark", keep, rooms, request, looked.judged, looked.service)
    except Superseded:
        raise
    except Exception as error:  # The window's boundary, as for its verdict.
        durable.step("note", note_failure, rooms, request, getattr(error, "fact", repr(error)))
        raise
    judged = looked.judged
    return Outcome(
        request.flow_id, request.component, State.DONE, request.version, fact=judged.sentence,
        evidence={
            "consequence": judged.consequence, "signals": judged.signals, "rows": judged.rows, "labels": "awaited",
        },
    )  # fmt: skip


def look_at(rooms: Rooms, request: EarlyRequest) -> Looked:
    """Look at the window with every detector that needs no labels."""
    settings = recall(rooms, request.component, request.version).settings
    journal = rooms.journal(request.flow_id)
    with journal.step("judge", f"{settings.monitor.window} predictions of v{request.version}, unlabelled") as note:
        known = seasons.load(version_folder(rooms, request.component, request.version) / "reference")
        before = looks_of(rooms, request.component, request.version)
        rows = rows_until(rooms, request, settings.monitor.window, after=before[-1].last if before else "")
        facts = facts_of(rooms, request, settings, since=before[-1].counters if before else None)
        window = Window(request.component, request.version, rows)
        past = remembered_early(rooms, request.component)
        watched = judge.look_early(window, known, settings.monitor, past, facts=facts.service)
        note.found = watched.alarm.sentence
    return Looked(judged_of(watched.alarm, watched.memory, facts, len(rows)), asdict(facts.service))


def act_early(rooms: Rooms, request: EarlyRequest, judged: Judged) -> None:
    """Write an alarm to the ledger, and go back where it says so. Where the verdict was quicker, that has done it."""
    if judged.consequence == Consequence.NONE.value or is_old_news(judged):
        return
    if watermark(rooms, request.component, request.version) >= request.last:
        return
    sound(rooms, request, judged, judged.sentence, key=f"{early_id(request)}/alarm", retrains=False)
    if judged.consequence == Consequence.ROLL_BACK.value:
        go_back(rooms, request, judged)
