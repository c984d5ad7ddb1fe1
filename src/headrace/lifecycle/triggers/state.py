"""What is known about a component's triggers, for people and scripts."""

from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.book import Book, books
from headrace.lifecycle.triggers.patrol import SOURCES
from headrace.types import Json


def all_states(rooms: Rooms, *, limit: int = 20) -> list[dict[str, Json]]:
    """Return the same of every component that is watched or was."""
    return [state_of(rooms, book.component, limit=limit) for book in books(rooms)]


def state_of(rooms: Rooms, component: str, *, limit: int = 20) -> dict[str, Json]:
    """Return what is watched, what waits, what is wrong, and what became of the newest events."""
    book = Book(rooms, component)
    watched = book.watched()
    sources = [source.name for source in SOURCES if watched and source.is_wanted(watched.settings)]
    return {
        "component": component,
        "folder": str(watched.folder) if watched else None,
        "sources": [*sources],
        "waiting": [event.trigger.reason for event in book.waiting()],
        "problems": dict(book.problems()),
        "log": [line.as_json() for line in book.log(limit=limit)],
    }
