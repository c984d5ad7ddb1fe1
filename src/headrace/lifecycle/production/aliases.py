"""MLflow's aliases, as projections of the ledger: written from its outbox, and put back where somebody moved one."""

from contextlib import AbstractContextManager

from headrace.errors import HeadraceError, raise_together
from headrace.files import locked
from headrace.ledger.base import Outbox
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Wants
from headrace.lifecycle.triggers.book import Became, Book
from headrace.lifecycle.triggers.registry import moved_alias
from headrace.types import Stage

CHAMPION = "champion"


def project(rooms: Rooms) -> None:
    """Write every alias that the ledger's moves ask for; a repeat writes nothing.

    Raises:
        Unavailable: some could not be written, and wait for the next time; all others are.
    """
    outbox = _outbox(rooms)
    if not outbox.unwritten():
        return
    troubles = dict[str, HeadraceError]()
    with _one_hand(rooms):
        # Read again: a slow hand with an older wish would overwrite a newer one.
        for wanted in outbox.unwritten():
            if wanted.component in troubles:
                continue
            try:
                if wanted.stage is Stage.PRODUCTION:
                    rooms.registry.set_alias(wanted.component, CHAMPION, wanted.version)
                outbox.mark_written(wanted)
            except HeadraceError as error:  # A model that somebody deleted does not hold up the others.
                troubles[wanted.component] = error
    raise_together(troubles)


def guard(rooms: Rooms, component: str) -> bool:
    """Put the champion's alias back where somebody else moved it, and let their wish wait as a request.

    Returns whether it was moved. The request is kept before the alias is put back: a crash in between repeats both.
    """
    with _one_hand(rooms):
        found = _foreign(rooms, component)
        if found is not None:
            _put_back(rooms, component, *found)
    return found is not None


def _put_back(rooms: Rooms, component: str, number: int | None) -> None:
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    champion = serving.version if serving else None
    book = Book(rooms, component)
    what = "removed" if number is None else f"moved to version {number}"
    if number is None:
        rooms.registry.set_alias(component, CHAMPION, champion)
        book.tell("registry", Became.PUT_BACK, f"The alias `{CHAMPION}` was {what} by somebody else.", actor="unknown")
        return
    event = moved_alias(rooms, component, CHAMPION, number, serving.sequence if serving else 0, book.watched())
    book.add(event)
    asked = "its promotion" if event.wants is Wants.PROMOTION else "its judgement"
    # Told once it is so: where MLflow has lost the version itself, this is tried again every other second.
    rooms.registry.set_alias(component, CHAMPION, champion)
    book.say(event, Became.PUT_BACK, f"The alias `{CHAMPION}` was {what} by somebody else; it asks for {asked}.")


def _foreign(rooms: Rooms, component: str) -> tuple[int | None] | None:
    """Return what the alias points at, where that was not headrace's own hand."""
    outbox = _outbox(rooms)
    # Asked before and after, because a promotion may go on meanwhile.
    own = outbox.wrote(component, Stage.PRODUCTION)
    found = rooms.registry.alias(component, CHAMPION)
    return None if found in own | outbox.wrote(component, Stage.PRODUCTION) else (found,)


def _one_hand(rooms: Rooms) -> AbstractContextManager[None]:
    """Hold the pen: of all threads and processes of this home, one writes aliases at a time."""
    return locked(rooms.settings.locks / "aliases")


def _outbox(rooms: Rooms) -> Outbox:
    assert isinstance(rooms.ledger, Outbox)
    return rooms.ledger
