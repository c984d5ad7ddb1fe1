"""What a migration leaves in the database that it fills: whose it is, and how far it came."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import create_engine, text

from headrace.errors import Conflict
from headrace.lifecycle.migration.databases import told_errors

TABLE = "headrace_migration"


@dataclass(frozen=True, slots=True)
class Mark:
    """One migration's line in its database.

    Attributes:
        source: the machine and folder that it comes from; home: where its files go.
    """

    url: str
    source: str
    home: str

    def state(self) -> str:
        """Return how far an earlier run came: nothing, `under way` or `done`.

        Raises:
            Conflict: the database was filled from another home.
            Unavailable: it does not answer.
        """
        engine = create_engine(self.url)
        try:
            with told_errors(), engine.connect() as connection:
                if not connection.execute(text(f"SELECT to_regclass('{TABLE}')")).scalar():
                    return ""
                row = connection.execute(text(f"SELECT source, home, state FROM {TABLE}")).first()  # noqa: S608
        finally:
            engine.dispose()
        if row is None:
            return ""
        if (row.source, row.home) != (self.source, self.home):
            raise Conflict(
                f"This database was filled from {row.source} for {row.home} ({row.state}).", "Name an empty database."
            )
        return str(row.state)

    def note(self, state: str, at: datetime) -> None:
        """Write down how far this run has come."""
        values = {"source": self.source, "home": self.home, "state": state, "at": at.isoformat()}
        engine = create_engine(self.url)
        try:
            with told_errors(), engine.begin() as connection:
                connection.execute(
                    text(f"CREATE TABLE IF NOT EXISTS {TABLE} (source text, home text, state text, at text)")
                )
                connection.execute(text(f"DELETE FROM {TABLE}"))  # noqa: S608 - a constant
                insert = f"INSERT INTO {TABLE} VALUES (:source, :home, :state, :at)"  # noqa: S608
                connection.execute(text(insert), values)
        finally:
            engine.dispose()
