"""Who may do what in an installation's PostgreSQL, as SQL that the owner of its tables runs.

An entry of the ledger is never changed, not even by a worker that was broken into: it may add entries, move the heads
of the chains, and keep the workers' own books (flows, nodes, claims).
"""

import re

from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from headrace.errors import InvalidInput
from headrace.ledger.schema import engine_of, migrate, schema_revision
from headrace.lifecycle.migration.databases import FLOWS, make_flows, told_errors
from headrace.lifecycle.nodes.sql import metadata as nodes

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ROLE = """\
DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN
    CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
  END IF;
END $$;
"""
_GRANTS = """
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {worker}, {reader};
GRANT USAGE ON SCHEMA public TO {worker}, {reader};
GRANT SELECT ON ledger_schema, entries, heads, projections TO {worker}, {reader};

-- The ledger: entries are added, never changed. The heads of chains and the outbox of aliases move.
GRANT INSERT ON entries, heads, projections TO {worker};
GRANT UPDATE ON heads TO {worker};
GRANT UPDATE (is_written) ON projections TO {worker};

-- The workers' own books.
GRANT SELECT, INSERT, UPDATE, DELETE ON nodes, claims TO {worker};
GRANT SELECT, INSERT ON installation TO {worker};
GRANT SELECT ON nodes, claims TO {reader};

-- The durable flows.
REVOKE ALL ON ALL TABLES IN SCHEMA {flows} FROM {worker}, {reader};
GRANT USAGE ON SCHEMA {flows} TO {worker}, {reader};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {flows} TO {worker};
REVOKE INSERT, UPDATE, DELETE ON {flows}.dbos_migrations FROM {worker};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA {flows} TO {worker};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {flows} TO {worker};
GRANT SELECT ON ALL TABLES IN SCHEMA {flows} TO {reader};
"""


def statements(*, worker: str, reader: str) -> str:
    """Return the SQL; a repeat changes nothing. Raises InvalidInput for a name that would need quotes."""
    for name in (worker, reader):
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"`{name}` is no plain name of a role.", "Use small letters, digits and _.")
    roles = "".join(_ROLE.format(role=name) for name in (worker, reader))
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    tables = [str(CreateTable(table, if_not_exists=True).compile(dialect=dialect)) for table in nodes.sorted_tables]
    books = "".join(f"{' '.join(table.split())};\n" for table in tables)
    return f"{roles}\n{books}{_GRANTS.format(worker=worker, reader=reader, flows=FLOWS)}"


def prepare(url: str, *, worker: str, reader: str) -> None:
    """Make all tables that workers need, as their owner, and give the roles their rights. Raises Unavailable."""
    sql = statements(worker=worker, reader=reader)
    ledger = engine_of(url)
    try:
        with told_errors():
            if schema_revision(ledger) == "":
                migrate(ledger)
    finally:
        ledger.dispose()
    engine = create_engine(url)
    try:
        with told_errors():
            make_flows(engine, FLOWS)
            with engine.begin() as connection:
                # The driver would take a percent sign or a colon for a parameter; there is none.
                connection.execute(text(sql.replace(":", r"\:")))
    finally:
        engine.dispose()
