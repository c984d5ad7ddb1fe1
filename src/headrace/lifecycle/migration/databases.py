"""The three databases of a home, from their SQLite files into PostgreSQL: ledger, flows, MLflow's store.

Rehearsed first into schemas of their own beside the real ones, which are dropped again. The rows of one database are
copied in one transaction, so that each is there whole or not at all.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from headrace.config.settings import Settings
from headrace.errors import Conflict, Unavailable
from headrace.ledger.schema import HEAD, VERSION_TABLE, engine_of, migrate, schema_revision
from headrace.ledger.upgrade import Rows, broken_chain
from headrace.lifecycle.migration.tables import copy_tables
from headrace.registry.tables import REVISION_TABLE, create_tables

REHEARSAL = "headrace_rehearsal"
FLOWS = "dbos"
FLOWS_REVISION = "dbos_migrations"
Told = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """Copies of a home's SQLite files; None where the home has none of a kind."""

    ledger: Path | None
    flows: Path | None
    mlflow: Path | None


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows go: URLs with everything in them, and the schema of the flows."""

    ledger: str
    mlflow: str
    flows_schema: str = FLOWS


@contextmanager
def copied_sources(settings: Settings, *, with_mlflow: bool) -> Iterator[Sources]:
    """Give copies of a home's databases; the files themselves are only read, not even opened as databases."""
    with tempfile.TemporaryDirectory(prefix="headrace-migration-") as name:
        found: dict[str, Path | None] = {}
        for kind, file in (("ledger", "ledger.db"), ("flows", "flows.db"), ("mlflow", "mlflow.db")):
            source = settings.home / file
            is_wanted = source.exists() and (kind != "mlflow" or with_mlflow)
            found[kind] = _copied(source, Path(name)) if is_wanted else None
        yield Sources(**found)


def refuse_unfinished_flows(sources: Sources) -> None:
    """Raise Conflict where a flow has not ended: what it holds points into the old home."""
    if sources.flows is None:
        return
    with closing(sqlite3.connect(sources.flows)) as database:
        query = "SELECT workflow_uuid FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
        found = [str(row[0]) for row in database.execute(query)]
    if found:
        raise Conflict(
            f"{len(found)} flows have not ended ({', '.join(found[:3])}).",
            "Let them end, or stop them: headrace up, headrace stop FLOW, headrace down. Then repeat the command.",
        )


def rehearse(sources: Sources, places: Places, change: Callable[[str], str], told: Told) -> dict[str, Rows]:
    """Copy everything into schemas that are dropped at the end, and return the rows. Raises Unavailable."""
    scratch = Places(in_schema(places.ledger, REHEARSAL), in_schema(places.mlflow, REHEARSAL), f"{REHEARSAL}_flows")
    urls = {places.ledger: (REHEARSAL, scratch.flows_schema), places.mlflow: (REHEARSAL,)}
    try:
        for url, schemas in urls.items():
            _drop(url, schemas)
            _execute(url, f"CREATE SCHEMA {REHEARSAL}")
        return perform(sources, scratch, change, told)
    finally:
        for url, schemas in urls.items():
            _drop(url, schemas)


def perform(sources: Sources, places: Places, change: Callable[[str], str], told: Told) -> dict[str, Rows]:
    """Copy everything and return the rows of each table, by database and name. A repeat replaces what a first left.

    Raises:
        Unavailable: a database does not answer, or its rows afterwards are not those that were read.
    """
    found: dict[str, Rows] = {}
    with told_errors():
        if sources.ledger is not None:
            found |= _named("ledger", _copy_ledger(sources.ledger, places.ledger, told))
        if sources.flows is not None:
            found |= _named("flows", _copy_flows(sources.flows, places, told))
        if sources.mlflow is not None:
            found |= _named("mlflow", _copy_mlflow(sources.mlflow, places.mlflow, change, told))
    return found


def in_schema(url: str, schema: str) -> str:
    """Return the URL of the same database with another schema as the connection's own."""
    parsed = make_url(url)
    given = str(parsed.query.get("options", ""))
    changed = parsed.update_query_dict({"options": f"{given} -csearch_path={schema}".strip()})
    return changed.render_as_string(hide_password=False)


def tables_of(url: str, schema: str | None = None) -> Collection[str]:
    """Return the names of a database's tables. Raises Unavailable."""
    engine = create_engine(url)
    try:
        with told_errors():
            return inspect(engine).get_table_names(schema)
    finally:
        engine.dispose()


def make_flows(engine: Engine, schema: str) -> None:
    """Make the durable engine's tables where they are absent or old."""
    # Private, and the same in all of 3.4.
    from dbos._migration import ensure_dbos_schema, run_dbos_migrations, should_migrate

    if should_migrate(engine, schema, True):
        ensure_dbos_schema(engine, schema)
        run_dbos_migrations(engine, schema, True)


def _copy_ledger(source: Path, url: str, told: Told) -> dict[str, Rows]:
    engine = engine_of(url)
    try:
        if schema_revision(engine) == "":
            migrate(engine)
        with _reading(source) as here, engine.begin() as there:
            revision = str(here.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar())  # noqa: S608
            if revision != HEAD:
                raise Unavailable(f"The ledger has schema {revision}, not {HEAD}.", "Run `headrace upgrade` first.")
            rows = copy_tables(here, there, left_out={VERSION_TABLE}, told=told)
            broken = broken_chain(there)
            if broken:
                raise Unavailable(
                    f"A chain is broken: {broken}.", "Look at it with `headrace history`; nothing was kept."
                )
            return rows
    finally:
        engine.dispose()


def _copy_flows(source: Path, places: Places, told: Told) -> dict[str, Rows]:
    engine = create_engine(places.ledger)
    try:
        make_flows(engine, places.flows_schema)
        with _reading(source) as here, engine.begin() as there:
            return copy_tables(here, there, schema=places.flows_schema, left_out={FLOWS_REVISION}, told=told)
    finally:
        engine.dispose()


def _copy_mlflow(source: Path, url: str, change: Callable[[str], str], told: Told) -> dict[str, Rows]:
    newest = create_tables(url)
    engine = create_engine(url)
    try:
        with _reading(source) as here, engine.begin() as there:
            revision = here.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalar()  # noqa: S608
            if revision != newest:
                raise Unavailable(
                    f"The MLflow store here has schema {revision}, the one there {newest}.",
                    "Bring both to that of the installed MLflow: mlflow db upgrade URL",
                )
            return copy_tables(here, there, left_out={REVISION_TABLE}, change=change, told=told)
    finally:
        engine.dispose()


def _named(database: str, rows: Mapping[str, Rows]) -> dict[str, Rows]:
    return {f"{database}.{name}": found for name, found in rows.items()}


@contextmanager
def _reading(path: Path) -> Iterator[Connection]:
    engine: Engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _copied(source: Path, folder: Path) -> Path:
    # With its log, and as files: opening it would leave files of SQLite's beside it. Nobody writes to it meanwhile.
    for ending in ("", "-wal"):
        part = source.with_name(source.name + ending)
        if part.exists():
            shutil.copyfile(part, folder / part.name)
    return folder / source.name


def _drop(url: str, schemas: Collection[str]) -> None:
    for schema in schemas:
        _execute(url, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    try:
        with told_errors(), engine.begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


@contextmanager
def told_errors() -> Iterator[None]:
    """Turn a database's refusals into Unavailable."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise Unavailable(
            f"The database does not take it: {cause}",
            "See that it runs, and that its role owns it; then repeat the command. The old home is as it was.",
        ) from error
