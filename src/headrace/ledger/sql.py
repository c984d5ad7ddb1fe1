"""The ledger in SQLite or PostgreSQL."""

import copy
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Self

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import DatabaseError

from headrace.clock import Clock, SystemClock
from headrace.files import canonical_json
from headrace.ledger.base import MOVES, Action, Draft, Entry, Projection, Verification
from headrace.ledger.chain import (
    FIRST,
    Head,
    as_json,
    check_chain,
    check_expected,
    check_is_move,
    check_is_no_move,
    link,
)
from headrace.ledger.schema import entries, heads, open_engine, projections, unavailable
from headrace.types import Actor, Stage

_MOVES = sorted(action.value for action in MOVES)


class SqlLedger:
    """The `Ledger` and its `Outbox` in a database; safe for threads and for several processes.

    Raises:
        Unavailable: the database does not answer, or its schema is not the one that this code knows.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._engine = open_engine(url)
        self._check: Callable[[Connection], None] = lambda _: None

    def guarded(self, check: Callable[[Connection], None]) -> Self:
        other = copy.copy(self)
        other._check = check
        return other

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def append(self, draft: Draft) -> Entry:
        check_is_no_move(draft)
        with self._writing() as connection:
            self._check(connection)
            head = _lock_head(connection, draft.component)
            return _find(connection, draft.key) or self._add(connection, draft, head)

    def move(self, draft: Draft, *, expected: int | None) -> Entry:
        check_is_move(draft)
        assert draft.stage is not None
        with self._writing() as connection:
            self._check(connection)
            head = _lock_head(connection, draft.component)
            if known := _find(connection, draft.key):
                return known
            check_expected(draft, expected=expected, serving=_serving(connection, draft.component, draft.stage))
            entry = self._add(connection, draft, head, from_version=expected)
            connection.execute(
                insert(projections).values(
                    component=draft.component,
                    stage=draft.stage.value,
                    sequence=entry.sequence,
                    version=draft.version,
                    is_written=False,
                )
            )
            return entry

    def _add(self, connection: Connection, draft: Draft, head: Head, *, from_version: int | None = None) -> Entry:
        entry = link(draft, head, at=self._clock.now(), from_version=from_version)
        row = as_json(entry) | {"evidence": canonical_json(dict(entry.evidence)).decode(), "hash": entry.hash}
        connection.execute(insert(entries).values(**row))
        connection.execute(
            update(heads).where(heads.c.component == draft.component).values(sequence=entry.sequence, hash=entry.hash)
        )
        return entry

    def serving(self, component: str, stage: Stage) -> Entry | None:
        with self._reading() as connection:
            entry = _serving(connection, component, stage)
        return entry if entry and entry.version is not None else None

    def history(self, component: str, *, limit: int = 100) -> Sequence[Entry]:
        query = select(entries).where(entries.c.component == component).order_by(entries.c.sequence.desc()).limit(limit)
        with self._reading() as connection:
            return [entry_of(row) for row in connection.execute(query)]

    def select(
        self, component: str, actions: Collection[Action], *, version: int | None = None, limit: int = 100
    ) -> Sequence[Entry]:
        names = [action.value for action in actions]
        query = select(entries).where(entries.c.component == component, entries.c.action.in_(names))
        if version is not None:
            query = query.where(entries.c.version == version)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(entries.c.sequence.desc()).limit(limit))
            return [entry_of(row) for row in rows]

    def versions(self, component: str) -> Sequence[int]:
        query = select(entries.c.version).where(entries.c.component == component, entries.c.version.is_not(None))
        with self._reading() as connection:
            return sorted(connection.execute(query.distinct()).scalars())

    def find(self, key: str) -> Entry | None:
        with self._reading() as connection:
            return _find(connection, key)

    def components(self) -> Sequence[str]:
        with self._reading() as connection:
            rows = connection.execute(select(heads.c.component).where(heads.c.sequence > 0).order_by(heads.c.component))
            return list(rows.scalars())

    def verify(self, component: str) -> Verification:
        query = select(entries).where(entries.c.component == component).order_by(entries.c.sequence)
        with self._reading() as connection:
            if connection.dialect.name == "postgresql":
                # Head and entries of one moment, whatever is appended meanwhile; SQLite's reads are such anyway.
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            head = connection.execute(
                select(heads.c.sequence, heads.c.hash).where(heads.c.component == component)
            ).first()
            rows = connection.execution_options(yield_per=1000).execute(query)
            return check_chain(component, map(entry_of, rows), Head(head.sequence, head.hash) if head else Head())

    def unwritten(self) -> Sequence[Projection]:
        newest = (
            select(projections.c.component, projections.c.stage, func.max(projections.c.sequence).label("sequence"))
            .group_by(projections.c.component, projections.c.stage)
            .subquery()
        )
        query = select(projections).join(
            newest,
            (projections.c.component == newest.c.component)
            & (projections.c.stage == newest.c.stage)
            & (projections.c.sequence == newest.c.sequence),
        )
        with self._reading() as connection:
            rows = connection.execute(query.where(~projections.c.is_written).order_by(projections.c.component))
            return [_projection(row) for row in rows]

    def mark_written(self, projection: Projection) -> None:
        with self._writing() as connection:
            connection.execute(
                update(projections)
                .where(projections.c.component == projection.component, projections.c.stage == projection.stage.value)
                .where(projections.c.sequence <= projection.sequence)
                .values(is_written=True)
            )

    def wrote(self, component: str, stage: Stage) -> frozenset[int | None]:
        rows = (
            select(projections.c.version)
            .where(projections.c.component == component, projections.c.stage == stage.value)
            .order_by(projections.c.sequence.desc())
        )
        with self._reading() as connection:
            written = connection.execute(rows.where(projections.c.is_written).limit(1)).scalars().all()
            pending = connection.execute(rows.where(~projections.c.is_written)).scalars().all()
        return frozenset([*(written or [None]), *pending])

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DatabaseError as error:
            raise unavailable(self._engine, error) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except DatabaseError as error:
            raise unavailable(self._engine, error) from error


def _lock_head(connection: Connection, component: str) -> Head:
    """Hold a component's chain until the transaction ends, and return its head. SQLite already holds the file."""
    is_sqlite = connection.dialect.name == "sqlite"
    new = (insert_sqlite if is_sqlite else insert_postgresql)(heads).values(component=component, sequence=0, hash=FIRST)
    connection.execute(new.on_conflict_do_nothing())
    query = select(heads.c.sequence, heads.c.hash).where(heads.c.component == component).with_for_update()
    row = connection.execute(query).one()
    return Head(row.sequence, row.hash)


def _find(connection: Connection, key: str) -> Entry | None:
    row = connection.execute(select(entries).where(entries.c.key == key)).first()
    return entry_of(row) if row else None


def _serving(connection: Connection, component: str, stage: Stage) -> Entry | None:
    row = connection.execute(
        select(entries)
        .where(entries.c.component == component, entries.c.stage == stage.value, entries.c.action.in_(_MOVES))
        .order_by(entries.c.sequence.desc())
        .limit(1)
    ).first()
    return entry_of(row) if row else None


def entry_of(row: Row[tuple[object, ...]]) -> Entry:
    values = row._mapping
    return Entry(
        **{name: values[name] for name in ("component", "sequence", "reason", "key", "version", "from_version")},
        **{name: values[name] for name in ("baseline", "previous", "hash")},
        at=datetime.fromisoformat(values["at"]),
        action=Action(values["action"]),
        actor=Actor(values["actor"]),
        stage=Stage(values["stage"]) if values["stage"] else None,
        evidence=json.loads(values["evidence"]),
    )


def _projection(row: Row[tuple[object, ...]]) -> Projection:
    values = row._mapping
    return Projection(
        component=values["component"],
        stage=Stage(values["stage"]),
        sequence=values["sequence"],
        version=values["version"],
        is_written=values["is_written"],
    )
