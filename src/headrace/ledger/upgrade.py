"""Bringing a ledger to the schema that this code knows, once a rehearsal on a copy has shown that no row changes.

SQLite is rehearsed on a copy of the file. PostgreSQL is rehearsed on a copy of the tables, in a schema and a
transaction that are both given up at the end, so that nobody else ever sees them.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData, Table, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from headrace.errors import Unavailable
from headrace.ledger.chain import Head, check_chain
from headrace.ledger.schema import (
    HEAD,
    VERSION_TABLE,
    check_revision,
    engine_of,
    migrate_within,
    revision_within,
    schema_revision,
)
from headrace.ledger.sql import entry_of

_REHEARSAL = "headrace_upgrade_rehearsal"


@dataclass(frozen=True, slots=True)
class Rows:
    """What a table holds: how many rows, and the digest of all of them in the order of their keys."""

    columns: tuple[str, ...]
    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal showed: the schemas, and the rows of each table that came through unchanged."""

    before: str
    after: str
    rows: Mapping[str, int]


def revision_of(url: str) -> str:
    """Return the schema of a ledger; empty where there is none yet. Raises Unavailable where it is newer than known."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return ""
    engine = engine_of(url)
    try:
        revision = schema_revision(engine)
        if revision > HEAD:
            check_revision(engine, revision)
    except SQLAlchemyError as error:
        raise Unavailable(f"The ledger cannot be read: {error}", "Check that the database runs and answers.") from error
    finally:
        engine.dispose()
    return revision


def copy_sqlite(source: Path, to: Path) -> None:
    """Copy a SQLite database, whoever uses it meanwhile."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as here,
        closing(sqlite3.connect(to)) as there,
    ):
        here.backup(there)
    to.chmod(0o600)


def rehearse(url: str) -> Rehearsed:
    """Migrate a copy and compare all rows; the ledger itself is only read.

    Raises:
        Unavailable: the migration fails on the copy, or changes a row or a chain there.
    """
    try:
        if not url.startswith("sqlite:///"):
            return _rehearse_in_place(url)
        with tempfile.TemporaryDirectory(prefix="headrace-rehearsal-") as folder:
            copy = Path(folder) / "ledger.db"
            copy_sqlite(Path(url.removeprefix("sqlite:///")), copy)
            return perform(f"sqlite:///{copy}")
    except Unavailable as error:
        raise Unavailable(
            f"The rehearsal on a copy failed: {error.fact}", "The ledger is as it was. Go on with the headrace you had."
        ) from error


def perform(url: str) -> Rehearsed:
    """Migrate in one transaction, given up where a row or a chain would not be as it was. Raises Unavailable."""
    engine = engine_of(url)
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            return _migrated(connection)
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise Unavailable(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()


def _migrated(connection: Connection) -> Rehearsed:
    before, was = revision_within(connection), snapshot(connection)
    migrate_within(connection)
    after = snapshot(connection, columns={name: rows.columns for name, rows in was.items()})
    changed = [name for name, rows in was.items() if after.get(name) != rows]
    if changed:
        raise Unavailable(f"The rows of {', '.join(changed)} would not be as they were.")
    broken = broken_chain(connection)
    if broken:
        raise Unavailable(f"A chain is broken: {broken}.")
    return Rehearsed(before, revision_within(connection), {name: rows.count for name, rows in was.items()})


def _rehearse_in_place(url: str) -> Rehearsed:
    engine = engine_of(url)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            here = connection.execute(text("SELECT current_schema()")).scalar_one()
            connection.execute(text(f"CREATE SCHEMA {_REHEARSAL}"))
            for name in [*snapshot(connection), VERSION_TABLE]:
                copy = f'{_REHEARSAL}."{name}"'
                connection.execute(text(f'CREATE TABLE {copy} (LIKE "{here}"."{name}" INCLUDING ALL)'))
                connection.execute(text(f'INSERT INTO {copy} SELECT * FROM "{here}"."{name}"'))  # noqa: S608
            connection.execute(text(f"SET LOCAL search_path TO {_REHEARSAL}"))
            try:
                return _migrated(connection)
            finally:
                transaction.rollback()
    except SQLAlchemyError as error:
        raise Unavailable(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()


def snapshot(connection: Connection, *, columns: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, Rows]:
    """Return what the ledger's tables hold, of all their columns or of the named ones."""
    names = [name for name in ("entries", "heads", "projections") if inspect(connection).has_table(name)]
    found = {}
    for name in names:
        table = Table(name, MetaData(), autoload_with=connection)
        wanted = [table.c[column] for column in (columns or {}).get(name, [column.name for column in table.columns])]
        digest, count = hashlib.sha256(), 0
        for row in connection.execute(select(*wanted).order_by(*table.primary_key.columns)):
            digest.update(repr(tuple(row)).encode())
            count += 1
        found[name] = Rows(tuple(column.name for column in wanted), count, digest.hexdigest())
    return found


def broken_chain(connection: Connection) -> str:
    """Return what is wrong with a chain; empty where all are whole."""
    heads = Table("heads", MetaData(), autoload_with=connection)
    entries = Table("entries", MetaData(), autoload_with=connection)
    for head in connection.execute(select(heads.c.component, heads.c.sequence, heads.c.hash)):
        rows = connection.execute(
            select(entries).where(entries.c.component == head.component).order_by(entries.c.sequence)
        )
        found = check_chain(head.component, map(entry_of, rows), Head(head.sequence, head.hash))
        if found.problem:
            return f"{head.component}: {found.problem}"
    return ""
