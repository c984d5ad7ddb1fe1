"""The patrol: all sources of all watched components are looked at in turn, each at its own pace."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.config.component import Component
from headrace.errors import HeadraceError
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Source
from headrace.lifecycle.triggers.book import Book, books
from headrace.lifecycle.triggers.commits import CommitSource
from headrace.lifecycle.triggers.cron import CronSource
from headrace.lifecycle.triggers.data import DataSource
from headrace.lifecycle.triggers.door import Door
from headrace.lifecycle.triggers.registry import RegistrySource
from headrace.lifecycle.triggers.tags import TagSource
from headrace.lifecycle.versions import recall
from headrace.types import Stage

LOG = logging.getLogger("headrace.triggers")
SOURCES: Sequence[Source] = (CommitSource(), DataSource(), CronSource(), TagSource(), RegistrySource())


def settings_of(rooms: Rooms, component: str) -> Component:
    """Return a component's present settings: its watched folder's, or those of the version that serves."""
    watched = Book(rooms, component).watched()
    if watched is not None:
        return watched.settings
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return Component(component=component)
    return recall(rooms, component, serving.version).settings


@dataclass(slots=True)
class Patrol:
    """Looks at what is due, and lets in what was seen."""

    rooms: Rooms
    door: Door
    sources: Sequence[Source] = SOURCES
    _next_s: dict[str, float] = field(default_factory=dict)
    _hints: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Look at every component whose turn it is; one component's trouble holds up no other."""
        for book in books(self.rooms):
            try:
                if self._is_due(book):
                    self._look_at(book)
                self.door.admit(book.component)
            except Exception:  # The loop's boundary: one component's trouble must not end the patrol of the others.
                LOG.exception("triggers of %s", book.component)

    def _is_due(self, book: Book) -> bool:
        now_s = self.rooms.clock.monotonic_s()
        hinted = book.hint.stat().st_mtime if book.hint.exists() else 0.0
        if hinted == self._hints.get(book.component, 0.0) and now_s < self._next_s.get(book.component, 0.0):
            return False
        self._hints[book.component] = hinted
        self._next_s[book.component] = now_s + 1.0
        return True

    def _look_at(self, book: Book) -> None:
        watched = book.watched()
        if watched is None:
            return
        self._next_s[book.component] = self.rooms.clock.monotonic_s() + watched.settings.triggers.every_s
        for source in self.sources:
            if not source.is_wanted(watched.settings):
                continue
            try:
                sighting = source.look(self.rooms, watched, book.mark(source.name))
                book.trouble(source.name, sighting.problem)
                book.note_sighting(source.name, sighting)
            except HeadraceError as error:
                book.trouble(source.name, f"{error.fact} {error.remedy}".strip())
            except Exception as error:  # A source's boundary: what nobody foresaw in one must not silence the others.
                problem = f"Nobody foresaw this: {error!r}"
                if book.problems().get(source.name) != problem:
                    LOG.exception("%s triggers of %s", source.name, book.component)
                book.trouble(source.name, problem)
