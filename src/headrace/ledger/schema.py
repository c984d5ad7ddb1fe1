"""The ledger's tables and how a ledger is opened. Alembic is imported only where a schema must be made or moved."""

import sqlite3
from pathlib import Path

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from headrace.errors import Unavailable
from headrace.files import use_wal
from headrace.ledger.base import SCHEMA

#: The newest revision in `migrations/versions`.
HEAD = SCHEMA
VERSION_TABLE = "ledger_schema"
MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 30
_MIGRATION_LOCK = 0x6865616472616365  # "headrace", the number of PostgreSQL's advisory lock

metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    Column("component", String(63), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", String(40), nullable=False),
    Column("action", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("stage", String(32)),
    Column("version", Integer),
    Column("from_version", Integer),
    Column("baseline", String(64), nullable=False),
    Column("evidence", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("entries_by_stage", "component", "stage", "sequence"),
    Index("entries_by_action", "component", "action", "sequence"),
)

#: One row per chain. Writers lock it, so that a chain grows by one entry at a time.
heads = Table(
    "heads",
    metadata,
    Column("component", String(63), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

projections = Table(
    "projections",
    metadata,
    Column("component", String(63), primary_key=True),
    Column("stage", String(32), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer),
    Column("is_written", Boolean, nullable=False),
)


def open_engine(url: str) -> Engine:
    """Return an engine on a ledger whose schema is the one that this code knows; an empty database gets it.

    Raises:
        Unavailable: the database does not answer, takes texts in no encoding, or has a schema that is older or newer
            than this code.
    """
    engine = engine_of(url)
    try:
        revision = schema_revision(engine)
        if revision == "":
            check_encoding(engine)
            migrate(engine)
            revision = HEAD
    except DatabaseError as error:
        raise unavailable(engine, error) from error
    check_revision(engine, revision)
    return engine


def engine_of(url: str) -> Engine:
    """Return an engine on a database, whatever it holds."""
    parsed = make_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Without an encoding of the client's, a database in SQL_ASCII answers in bytes, on which SQLAlchemy breaks.
    options = {"timeout": _BUSY_S} if is_sqlite else {"client_encoding": "utf8"}
    engine = create_engine(parsed, connect_args=options, pool_pre_ping=not is_sqlite)
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def check_encoding(engine: Engine) -> None:
    """Raise Unavailable where a PostgreSQL database does not know what its texts are written in."""
    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding == "SQL_ASCII":
        raise Unavailable(
            f"The database {engine.url.render_as_string(hide_password=True)} has the encoding SQL_ASCII, which is none",
            "Make another one, and name it: CREATE DATABASE headrace ENCODING 'UTF8' TEMPLATE template0",
        )


def _configure_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver's own transactions would end at each DDL statement and could not begin IMMEDIATE.
    connection.isolation_level = None
    use_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def schema_revision(engine: Engine) -> str:
    """Return the revision that a database is at; empty where it holds no ledger."""
    with engine.connect() as connection:
        return revision_within(connection)


def revision_within(connection: Connection) -> str:
    """Return the revision that an open transaction sees; empty where there is no ledger."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return str(found or "")


def migrate(engine: Engine, *, to: str = HEAD) -> None:
    """Bring a database to a revision, in one transaction; of several processes at once, one does it."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        migrate_within(connection, to=to)


def migrate_within(connection: Connection, *, to: str = HEAD) -> None:
    """Bring a database to a revision as a part of an open transaction."""
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    if revision_within(connection) == to:
        return
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def check_revision(engine: Engine, revision: str) -> None:
    """Raise Unavailable where a ledger's schema is older or newer than the one that this code knows."""
    if revision == HEAD:
        return
    place = engine.url.render_as_string(hide_password=True)
    if revision > HEAD:
        raise Unavailable(
            f"The ledger at {place} has schema {revision}; this headrace knows schemas up to {HEAD}",
            "Install the headrace that wrote it, or a newer one",
        )
    raise Unavailable(
        f"The ledger at {place} has schema {revision}; this headrace needs {HEAD}",
        "Run `headrace upgrade`: it backs the ledger up, rehearses on a copy and compares before it changes anything",
    )


def unavailable(engine: Engine, error: DatabaseError) -> Unavailable:
    """Return what a database's refusal means to a user."""
    place = engine.url.database if engine.dialect.name == "sqlite" else engine.url.render_as_string(hide_password=True)
    cause = str(error.orig).strip().splitlines()[0]
    remedies = {
        "disk is full": "Free some space, then repeat the command; nothing was half-written",
        "readonly": f"Give yourself the right to write {place}, then repeat the command",
        "unable to open": f"Check that the folder of {place} exists and may be written",
        "not a database": f"Something overwrote {place}; move it aside and restore a backup of it",
        "certificate": "Name the authority that signed the server's certificate (`sslrootcert=FILE` in the URL), and "
        "the server as its certificate does",
        "locked": "Another process holds the ledger; stop it or wait for it, then repeat the command",
    }
    remedy = next(
        (text for part, text in remedies.items() if part in cause), "Check that the database runs and answers"
    )
    return Unavailable(f"The ledger at {place} cannot be used: {cause}", remedy)
