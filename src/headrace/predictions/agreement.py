"""Columns whose type changed, between versions or between rows: SQL sees them as text, and all others as they are.

DuckDB reads numbers, texts and moments of unlike files as one column, and lists and structs as far as what is in them
goes together. What does not (a text that became a list) would fail every query that touches it, and is given as text:
texts as they are, everything else as its JSON.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.predictions.tables import INPUT, OUTPUT

_SCALARS = {"number", "text", "time", "blob"}


@lru_cache(maxsize=4096)
def columns_of(path: str) -> Mapping[str, pa.DataType]:
    """Return the types of a Parquet file's inputs and outputs; files never change under their names."""
    return columns(pq.read_schema(path))


def columns(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    """Return the types of a table's inputs and outputs."""
    return {field.name: field.type for field in schema if field.name.startswith((INPUT, OUTPUT))}


def disagreeing(sources: Iterable[Mapping[str, pa.DataType]]) -> frozenset[str]:
    """Return the names of the columns, in lower case as DuckDB compares them, whose types do not go together."""
    types: dict[str, set[pa.DataType]] = defaultdict(set)
    for source in sources:
        for name, kind in source.items():
            types[name.lower()].add(kind)
    return frozenset(name for name, kinds in types.items() if len(kinds) > 1 and not _agree(kinds))


def replacements(source: Mapping[str, pa.DataType], names: frozenset[str]) -> str:
    """Return what follows `SELECT *` so that a source gives these columns as text; empty where it has none of them."""
    casts = [f"{_as_text(name, kind)} AS {_quoted(name)}" for name, kind in source.items() if name.lower() in names]
    return f" REPLACE ({', '.join(casts)})" if casts else ""


def listed(table: pa.Table) -> pa.Table:
    """Return a table whose lists have no fixed length, as in Parquet: lists of two lengths are then one column."""
    for place, field in enumerate(table.schema):
        if pa.types.is_fixed_size_list(field.type):
            kind = pa.list_(field.type.value_type)
            table = table.set_column(place, field.with_type(kind), table.column(place).cast(kind))
    return table


def _agree(types: Iterable[pa.DataType]) -> bool:
    types = [kind for kind in types if not pa.types.is_null(kind)]
    kinds = {_kind(kind) for kind in types}
    if kinds == {"list"}:
        return _agree([kind.value_type for kind in types])
    if kinds == {"struct"}:
        fields: dict[str, list[pa.DataType]] = defaultdict(list)
        for kind in types:
            for place in range(kind.num_fields):
                fields[kind.field(place).name.lower()].append(kind.field(place).type)
        return all(_agree(each) for each in fields.values())
    # Anything that has but one form goes together with texts.
    return len(kinds) < 2 or (kinds <= _SCALARS and len(kinds - {"text"}) == 1)


def _kind(kind: pa.DataType) -> str:
    for name, tests in _KINDS.items():
        if any(test(kind) for test in tests):
            return name
    return str(kind)


def _as_text(name: str, kind: pa.DataType) -> str:
    column = _quoted(name)
    return f"to_json({column})::VARCHAR" if _kind(kind) in ("list", "struct") else f"{column}::VARCHAR"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_KINDS = {
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal),
    "text": (pa.types.is_string, pa.types.is_large_string),
    "time": (pa.types.is_date, pa.types.is_timestamp),
    "blob": (pa.types.is_binary, pa.types.is_large_binary),
    "list": (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    "struct": (pa.types.is_struct,),
}
