"""All rows of one database into the tables of another of the same names, counted and digested on both sides."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    text,
)

from headrace.errors import Unavailable
from headrace.files import canonical_json
from headrace.ledger.upgrade import Rows

AT_ONCE = 1000


def copy_tables(
    source: Connection,
    to: Connection,
    *,
    schema: str | None = None,
    left_out: Collection[str] = (),
    change: Callable[[str], str] = lambda value: value,
    told: Callable[[str, int], None] = lambda name, rows: None,
) -> dict[str, Rows]:
    """Replace the rows of every table in `to` by those of the table of the same name in `source`, and compare.

    Args:
        schema: where the tables of `to` lie; the connection's own by default.
        left_out: tables that each database has for itself (its schema's revision).
        change: what becomes of a text (a path that moved).
        told: called with each table and its rows once it is there.

    Raises:
        Unavailable: the tables or columns are not the same on both sides, or the rows afterwards are not.
    """
    here, there = _reflected(source, None, left_out), _reflected(to, schema, left_out)
    _refuse_other_schema(here, there)
    by_name = {table.name: table for table in here}
    # Others may keep theirs in the same database.
    there = [table for table in there if table.name in by_name]
    for table in reversed(there):
        to.execute(delete(table))
    found = {}
    for table in there:
        before = _Digest()
        columns = [table.c[column.name] for column in by_name[table.name].columns]
        for rows in _pieces(source, by_name[table.name]):
            converted = [
                [_converted(value, of.type, change) for value, of in zip(row, columns, strict=True)] for row in rows
            ]
            before.add(converted)
            names = [column.name for column in columns]
            to.execute(insert(table), [dict(zip(names, row, strict=True)) for row in converted])
        _advance_sequences(to, table)
        after = _Digest()
        for rows in to.execute(select(*columns)).partitions(AT_ONCE):
            after.add(rows)
        found[table.name] = after.rows(columns)
        if after.rows(columns) != before.rows(columns):
            raise Unavailable(
                f"The table {table.name} has {after.count} rows that are not the {before.count} that were copied.",
                "Nothing was kept; tell the developers of headrace.",
            )
        told(table.name, after.count)
    return found


def _reflected(connection: Connection, schema: str | None, left_out: Collection[str]) -> list[Table]:
    metadata = MetaData(schema=schema)
    metadata.reflect(connection, resolve_fks=False)
    return [table for table in metadata.sorted_tables if table.name not in left_out]


def _refuse_other_schema(here: Sequence[Table], there: Sequence[Table]) -> None:
    sides = [{table.name: {column.name for column in table.columns} for table in tables} for tables in (here, there)]
    missing = [name for name in sides[0] if name not in sides[1]]
    missing += [
        f"{name}.{column}"
        for name, columns in sides[0].items()
        for column in sorted(columns - sides[1].get(name, columns))
    ]
    if missing:
        raise Unavailable(
            f"The tables there lack {', '.join(missing[:5])}, which those here have: the schemas differ.",
            "Bring what is here to the schema of the libraries that are installed: headrace upgrade, mlflow db upgrade",
        )


def _pieces(source: Connection, table: Table) -> Iterator[Sequence[Sequence[Any]]]:
    # Raw, because what SQLite keeps is not always what its schema says.
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    rows = source.execute(text(f'SELECT {names} FROM "{table.name}"'))  # noqa: S608 - reflected names
    yield from rows.partitions(AT_ONCE)


def _converted(value: Any, kind: Any, change: Callable[[str], str]) -> Any:  # noqa: PLR0911 - one line for each kind
    """Return a value of SQLite as the other database's column takes it."""
    if value is None:
        return None
    if isinstance(kind, Boolean):
        return bool(value)
    if isinstance(kind, JSON):
        return json.loads(value) if isinstance(value, str) else value
    if isinstance(kind, DateTime):
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(kind, LargeBinary):
        return value.encode() if isinstance(value, str) else value
    if isinstance(kind, String):
        return change(value if isinstance(value, str) else str(value))
    if isinstance(kind, Float):
        return float(value)
    return int(value) if isinstance(kind, Integer) else value


class _Digest:
    """A sum over rows, in whatever order they come: databases sort texts each in its own way."""

    def __init__(self) -> None:
        self.count = self._sum = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            line = repr([_plain(value) for value in row]).encode()
            self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest())) % 2**256
            self.count += 1

    def rows(self, columns: Sequence[Column[Any]]) -> Rows:
        return Rows(tuple(column.name for column in columns), self.count, f"{self._sum:064x}")


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float | Decimal):
        return repr(float(value))
    if isinstance(value, Mapping | list):
        return canonical_json(value).decode()  # type: ignore[arg-type]
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value.isoformat() if isinstance(value, datetime) else value


def _advance_sequences(connection: Connection, table: Table) -> None:
    """Let the database's own numbering go on after the numbers that were copied."""
    if connection.dialect.name != "postgresql":
        return
    place = f'"{table.schema}"."{table.name}"' if table.schema else f'"{table.name}"'
    for column in table.primary_key.columns:
        if isinstance(column.type, Integer):
            sequence = connection.execute(select(func.pg_get_serial_sequence(place, column.name))).scalar()
            last = connection.execute(select(func.max(column))).scalar()
            if sequence and last is not None:
                connection.execute(select(func.setval(sequence, last)))
