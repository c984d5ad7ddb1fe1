"""The one door for all triggers: an event waits here, and becomes one flow, or a line that says why not.

At most one candidate of a component is under way. The door is asked again and again; what cannot go on waits.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from headrace.config.component import Component
from headrace.errors import Conflict, HeadraceError
from headrace.files import disk_trouble
from headrace.lifecycle.request import CandidateRequest, Cause
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Wants
from headrace.lifecycle.triggers.book import Became, Book, Line

LOG = logging.getLogger("headrace.triggers")
#: These train the same code again, so that one cooldown holds for all of them.
RETRAINING = frozenset({Cause.ALARM, Cause.DATA, Cause.CRON})


class Control(Protocol):
    """What the door may ask of the control side."""

    def is_started(self, flow: str) -> bool:
        """Tell whether there is such a flow, running or ended."""
        ...

    def under_way(self, component: str) -> str:
        """Return the component's candidate flow that waits or runs; empty where none does."""
        ...

    def promoting(self, component: str) -> str:
        """Return the component's promotion that has not moved all traffic yet; empty where none is under way."""
        ...

    def start_candidate(self, request: CandidateRequest) -> str:
        """Start a candidate's flow. Raises Conflict where another is under way."""
        ...

    def ask_for(self, event: Event) -> str:
        """Ask for a promotion and return what came of it, in a sentence. Raises Conflict, NotFound."""
        ...

    def stop(self, flow: str, *, actor: str) -> None:
        """Ask a flow to end."""
        ...


@dataclass(frozen=True, slots=True)
class Door:
    """Lets events in."""

    rooms: Rooms
    control: Control
    settings: Callable[[str], Component]

    def admit(self, component: str) -> Sequence[Line]:
        """Go on with what waits, as far as it can; return what became of each event that waits no longer."""
        book = Book(self.rooms, component)
        lines = [self._admit_or_refuse(book, event) for event in book.waiting()]
        return [line for line in lines if line is not None]

    def _admit_or_refuse(self, book: Book, event: Event) -> Line | None:
        try:
            return self._admit(book, event)
        except Exception as error:  # The event's boundary: it must not keep back those behind it.
            if disk_trouble(error) is not None:
                raise
            # Where the database is away, this raises too, and the event waits on: it is not at fault.
            self.control.is_started(event.flow_id)
            LOG.exception("%s of %s", event.trigger.key, event.component)
            book.remove(event)
            return book.say(event, Became.REFUSED, f"Nobody foresaw this: {error!r}")

    def _admit(self, book: Book, event: Event) -> Line | None:
        if self.control.is_started(event.flow_id):
            book.remove(event)
            return book.say(event, Became.REPEATED, "It came before and is one flow.", flow=event.flow_id)
        try:
            if event.wants is Wants.PROMOTION and self._waits_for_promotion(book, event):
                return None
            if event.wants is Wants.PROMOTION:
                line = book.say(event, Became.STARTED, self.control.ask_for(event), flow=event.flow_id)
            elif self._has_to_wait(book, event):
                return None
            else:
                try:
                    flow = self.control.start_candidate(event.candidate())
                except Conflict:  # A person was faster, after the look above; the next look says who.
                    return None
                book.note_start(group_of(event))
                line = book.say(event, Became.STARTED, f"{event.trigger.reason}.", flow=flow)
        except HeadraceError as error:
            if event.wants is Wants.PROMOTION and self._waits_for_promotion(book, event):
                return None
            line = book.say(event, Became.REFUSED, f"{error.fact} {error.remedy}".strip())
        book.remove(event)
        return line

    def _waits_for_promotion(self, book: Book, event: Event) -> bool:
        busy = self.control.promoting(event.component)
        why = f"{event.trigger.reason}: waits for flow {busy}." if busy else ""
        book.trouble(f"waiting {event.trigger.cause.value}", why)
        return bool(busy)

    def _has_to_wait(self, book: Book, event: Event) -> bool:
        settings = self.settings(event.component)
        busy = self.control.under_way(event.component)
        if not busy and event.trigger.cause in RETRAINING:
            # Trained now, it would be judged against a version of which nobody knows yet whether it stays.
            busy = self.control.promoting(event.component)
        if busy:
            is_older_commit = busy.startswith(f"{event.component}/{Cause.COMMIT.value}-")
            if settings.triggers.supersede == "running" and event.trigger.cause is Cause.COMMIT and is_older_commit:
                self.control.stop(busy, actor=f"the newer {event.trigger.reason}")
            book.trouble(f"waiting {event.trigger.cause.value}", f"{event.trigger.reason}: waits for flow {busy}.")
            return True
        until = self._cool_at(book, event, settings)
        if until is not None and self.rooms.clock.now() < until:
            why = f"{event.trigger.reason}: waits until {until:%Y-%m-%d %H:%M:%S} UTC, the cooldown's end."
            book.trouble(f"waiting {event.trigger.cause.value}", why)
            return True
        book.trouble(f"waiting {event.trigger.cause.value}", "")
        return False

    def _cool_at(self, book: Book, event: Event, settings: Component) -> datetime | None:
        last = book.started_at(group_of(event))
        if not last:
            return None
        is_retraining = event.trigger.cause in RETRAINING
        cooldown = settings.retrain.cooldown if is_retraining else settings.triggers.cooldown
        return datetime.fromisoformat(last) + timedelta(seconds=cooldown)


def group_of(event: Event) -> str:
    """Return what shares a cooldown with an event."""
    return "retraining" if event.trigger.cause in RETRAINING else event.trigger.cause.value
