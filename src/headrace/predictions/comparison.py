"""Whether two places hold the same predictions and actuals: counts and digests over all rows, in any order."""

from dataclasses import dataclass

import duckdb

from headrace.predictions.query import connect
from headrace.predictions.snapshot import Snapshot
from headrace.types import Json

#: `seq` is each writer's own numbering of what it got; `day` is a folder's name, which journals have not.
_OWN = frozenset({"seq", "day", "to_label"})


@dataclass(frozen=True, slots=True)
class Contents:
    """What a component's log holds.

    Attributes:
        digest: over predictions with all their columns, actuals as they came, and those that count.
    """

    predictions: int
    actuals: int
    digest: str

    def as_json(self) -> dict[str, Json]:
        return {"predictions": self.predictions, "actuals": self.actuals, "digest": self.digest}


def contents(seen: Snapshot) -> Contents:
    """Return counts and digest of all that a snapshot holds. Raises Unavailable where a file cannot be read."""
    with connect(seen) as connection:
        predictions, first = _sum(connection, "predictions")
        actuals, second = _sum(connection, "arrivals")
        _, third = _sum(connection, "first_actuals")
    return Contents(predictions, actuals, "-".join(f"{value:032x}" for value in (first, second, third)))


def _sum(connection: duckdb.DuckDBPyConnection, view: str) -> tuple[int, int]:
    names = sorted(str(row[0]) for row in connection.execute(f"DESCRIBE {view}").fetchall() if str(row[0]) not in _OWN)
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    # A text of the row that tells null from the word, and where one value ends.
    row = " || ".join(f"coalesce(length({name}::VARCHAR) || ':' || {name}::VARCHAR, '-')" for name in quoted)
    found = connection.execute(f"SELECT count(*), bit_xor(md5_number({row})) FROM {view}").fetchone()
    assert found is not None
    return int(found[0]), int(found[1] or 0)
