"""A look into a SQLite ledger with nothing but the standard library, for commands that people type and wait for.

Importing SQLAlchemy takes longer than reading ten thousand entries. What is read here is what `SqlLedger` reads.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from headrace.ledger.base import MOVES, SCHEMA
from headrace.types import Json, Stage

_COLUMNS = (
    "component", "sequence", "at", "action", "stage", "version", "from_version", "actor", "reason", "baseline",
    "evidence", "previous", "hash",
)  # fmt: skip


def history(path: Path, component: str, *, limit: int) -> list[dict[str, Json]] | None:
    """Return the newest entries as `Entry.as_json` gives them, newest first; None where only the real one can tell."""
    query = f"SELECT {', '.join(_COLUMNS)} FROM entries WHERE component = ? ORDER BY sequence DESC LIMIT ?"  # noqa: S608
    with _opened(path) as database:
        if database is None:
            return None
        rows = database.execute(query, (component, limit)).fetchall()
    return [{**dict(zip(_COLUMNS, row, strict=True)), "evidence": json.loads(row[10])} for row in rows] or None


def production(path: Path) -> list[dict[str, Json]] | None:
    """Return what serves in production and since when, by component; None where only the real one can tell."""
    moves = sorted(action.value for action in MOVES)
    newest = (
        "SELECT version, at FROM entries WHERE component = ? AND stage = ? AND action IN (?, ?)"
        " ORDER BY sequence DESC LIMIT 1"
    )
    found: list[dict[str, Json]] = []
    with _opened(path) as database:
        if database is None:
            return None
        names = database.execute("SELECT component FROM heads WHERE sequence > 0 ORDER BY component").fetchall()
        for (name,) in names:
            row = database.execute(newest, (name, Stage.PRODUCTION.value, *moves)).fetchone() or (None, None)
            since = row[1] if row[0] is not None else None
            found.append({"component": name, "production": row[0], "since": since})
    return found


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a ledger of the schema that this code knows; None where it is no such thing."""
    if not path.exists():
        yield None
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        try:
            row = database.execute("SELECT version_num FROM ledger_schema").fetchone()
        except sqlite3.DatabaseError:
            row = None
        yield database if row and row[0] == SCHEMA else None
