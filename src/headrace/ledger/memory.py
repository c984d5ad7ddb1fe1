"""A ledger that forgets at the end of the process: for tests and for trying things out."""

import itertools
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace

from headrace.clock import Clock, SystemClock
from headrace.ledger.base import MOVES, Action, Draft, Entry, Projection, Verification
from headrace.ledger.chain import Head, check_chain, check_expected, check_is_move, check_is_no_move, link
from headrace.types import Stage


class MemoryLedger:
    """The `Ledger` and its `Outbox` in lists; safe for threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._chains: dict[str, list[Entry]] = {}
        self._by_key: dict[str, Entry] = {}
        self._projections: list[Projection] = []

    def append(self, draft: Draft) -> Entry:
        check_is_no_move(draft)
        with self._lock:
            return self._by_key.get(draft.key) or self._add(draft, from_version=None)

    def move(self, draft: Draft, *, expected: int | None) -> Entry:
        check_is_move(draft)
        assert draft.stage is not None
        with self._lock:
            if known := self._by_key.get(draft.key):
                return known
            check_expected(draft, expected=expected, serving=self.serving(draft.component, draft.stage))
            entry = self._add(draft, from_version=expected)
            self._projections.append(Projection(draft.component, draft.stage, entry.sequence, draft.version, False))
            return entry

    def _add(self, draft: Draft, *, from_version: int | None) -> Entry:
        entry = link(draft, self._head(draft.component), at=self._clock.now(), from_version=from_version)
        self._chains.setdefault(draft.component, []).append(entry)
        self._by_key[entry.key] = entry
        return entry

    def _head(self, component: str) -> Head:
        chain = self._chains.get(component)
        return Head(chain[-1].sequence, chain[-1].hash) if chain else Head()

    def serving(self, component: str, stage: Stage) -> Entry | None:
        for entry in reversed(self._chains.get(component, [])):
            if entry.stage == stage and entry.action in MOVES:
                return entry if entry.version is not None else None
        return None

    def history(self, component: str, *, limit: int = 100) -> Sequence[Entry]:
        return self._chains.get(component, [])[::-1][:limit]

    def select(
        self, component: str, actions: Collection[Action], *, version: int | None = None, limit: int = 100
    ) -> Sequence[Entry]:
        chain = reversed(self._chains.get(component, []))
        wanted = (entry for entry in chain if entry.action in actions and version in (None, entry.version))
        return list(itertools.islice(wanted, limit))

    def versions(self, component: str) -> Sequence[int]:
        return sorted({entry.version for entry in self._chains.get(component, []) if entry.version is not None})

    def find(self, key: str) -> Entry | None:
        return self._by_key.get(key)

    def components(self) -> Sequence[str]:
        return sorted(self._chains)

    def verify(self, component: str) -> Verification:
        return check_chain(component, self._chains.get(component, []), self._head(component))

    def unwritten(self) -> Sequence[Projection]:
        newest = {(row.component, row.stage): row for row in self._projections}
        return [row for row in newest.values() if not row.is_written]

    def mark_written(self, projection: Projection) -> None:
        with self._lock:
            self._projections = [
                replace(row, is_written=True) if _replaces(projection, row) else row for row in self._projections
            ]

    def wrote(self, component: str, stage: Stage) -> frozenset[int | None]:
        rows = [row for row in self._projections if (row.component, row.stage) == (component, stage)]
        written = [row.version for row in rows if row.is_written]
        return frozenset([*(written[-1:] or [None]), *(row.version for row in rows if not row.is_written)])


def _replaces(newer: Projection, older: Projection) -> bool:
    is_same_alias = (newer.component, newer.stage) == (older.component, older.stage)
    return is_same_alias and older.sequence <= newer.sequence
