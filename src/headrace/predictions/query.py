"""SQL over a component's predictions and actuals, by DuckDB, in memory and without reaching for the network."""

import contextlib
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa

from headrace.errors import InvalidInput, Unavailable
from headrace.predictions.agreement import columns, columns_of, disagreeing, listed, replacements
from headrace.predictions.lots import marked
from headrace.predictions.snapshot import Snapshot

#: What `predictions` has where nothing was predicted yet.
_NO_PREDICTIONS = (
    "SELECT NULL::UUID AS id, NULL::TIMESTAMP AS made_at, NULL::INTEGER AS version, NULL::FLOAT AS latency_ms, "
    "NULL::BOOLEAN AS shadow WHERE false"
)
_FIRST = """
CREATE VIEW first_actuals AS
SELECT id, arg_min(value, seq) AS value, arg_min(number, seq) AS number, arg_min(text, seq) AS text,
       arg_min(dated_at, seq) AS dated_at, min(received) AS received, count(*) AS arrivals
FROM arrivals WHERE id IS NOT NULL GROUP BY id
"""
_JOINED = """
CREATE VIEW joined AS
SELECT p.*, a.id IS NOT NULL AS labelled, a.value AS actual_json, a.text AS actual, a.number AS actual_number,
       a.received AS actual_received
FROM predictions p LEFT JOIN first_actuals a USING (id) WHERE NOT p.shadow
"""
#: In the order of `base.Counts`.
COUNTS = """
WITH first AS (SELECT * FROM first_actuals),
arrived AS (
    SELECT a.id, a.number, a.value, f.number AS first_number, f.value AS first_value,
           row_number() OVER (PARTITION BY a.id ORDER BY a.seq) AS place
    FROM arrivals a LEFT JOIN first f ON a.id = f.id
),
asked AS (SELECT id, min(made_at) AS made_at, bool_and(shadow) AS shadow FROM predictions GROUP BY id)
SELECT
    (SELECT count(*) FROM asked WHERE NOT shadow),
    (SELECT count(*) FROM asked JOIN first USING (id) WHERE NOT shadow),
    (SELECT count(*) FROM first ANTI JOIN asked USING (id)) + (SELECT count(*) FROM arrivals WHERE id IS NULL),
    (SELECT count(*) FROM arrived WHERE id IS NOT NULL AND place > 1
        AND CASE WHEN number IS NULL OR first_number IS NULL THEN value = first_value ELSE number = first_number END),
    (SELECT count(*) FROM arrived WHERE id IS NOT NULL AND place > 1
        AND NOT CASE WHEN number IS NULL OR first_number IS NULL THEN value = first_value
                     ELSE number = first_number END),
    (SELECT count(*) FROM first f JOIN asked a USING (id) WHERE f.dated_at < a.made_at),
    (SELECT count(*) FROM first WHERE value = 'null' OR left(value, 1) IN ('[', '{')),
    (SELECT count(*) FROM asked WHERE epoch_ms(made_at) + 1000
        < ('0x' || left(replace(id::VARCHAR, '-', ''), 12))::BIGINT)
"""


@contextlib.contextmanager
def connect(
    seen: Snapshot, *, since: str = "", until: str = "", label_rates: Mapping[int, float] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with the views `predictions`, `arrivals`, `first_actuals` and `joined`.

    Columns of `predictions`: `id`, `made_at` (UTC), `version`, `latency_ms`, `shadow`, `in_<field>`, `out_<field>`,
    and `to_label`, whether the row is in the uniform sample for labelling (`lots`). A field whose values do not go
    together (a text that became a list) is text, with JSON for what was none (`agreement`).
    `arrivals` are all actuals as they came; `first_actuals` the ones that count.

    Args:
        since: only rows with ids at or above; files outside the range are not opened. `until` likewise, included.
        label_rates: version to the share of its rows that is marked; none by default.

    Raises:
        Unavailable: a segment cannot be read.
        InvalidInput: DuckDB refuses what the caller asked for.
    """
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET autoinstall_known_extensions = false; SET enable_progress_bar = false")
        try:
            _create_predictions(connection, seen, since, until, marked(label_rates or {}))
            _create_arrivals(connection, seen, since, until)
            connection.execute(_FIRST)
            connection.execute(_JOINED)
        except (OSError, pa.ArrowInvalid, duckdb.Error) as cause:
            raise _unreadable(seen, cause) from cause
        try:
            yield connection
        except (duckdb.IOException, duckdb.InvalidInputException) as cause:
            raise _unreadable(seen, cause) from cause
        except duckdb.Error as cause:
            raise InvalidInput(
                f"DuckDB cannot run this: {cause}",
                f'See what there is: headrace predictions query {seen.folder.name} "DESCRIBE joined"',
            ) from cause


def _unreadable(seen: Snapshot, cause: Exception) -> Unavailable:
    return Unavailable(
        f"A segment in {seen.folder} cannot be read: {cause}.", f"Try `headrace predictions check {seen.folder.name}`."
    )


def _create_predictions(
    connection: duckdb.DuckDBPyConnection, seen: Snapshot, since: str, until: str, mark: str
) -> None:
    files = [
        str(seen.file(segment))
        for segment in seen.manifest.predictions
        if segment.last >= since and (not until or segment.first <= until)
    ]
    parts = [listed(part.table) for part in seen.parts]
    changed = disagreeing([*map(columns_of, files), *(columns(table.schema) for table in parts)])
    groups: dict[str, list[str]] = defaultdict(list)
    for file in files:
        types = {name: kind for name, kind in columns_of(file).items() if name.lower() in changed}
        groups[str(types)].append(file)
    sources = [
        f"SELECT *{replacements(columns_of(group[0]), changed)} FROM read_parquet({_list(group)}, union_by_name = true)"
        for group in groups.values()
    ]
    for number, table in enumerate(parts):
        connection.register(f"journal_{number}", table)
        sources.append(f"SELECT *{replacements(columns(table.schema), changed)} FROM journal_{number}")
    body = " UNION ALL BY NAME ".join(sources) or _NO_PREDICTIONS
    rows = f"SELECT *, {mark} AS to_label FROM ({body}){_range(since, until)}"
    connection.execute(f"CREATE VIEW predictions AS {rows}")


def _create_arrivals(connection: duckdb.DuckDBPyConnection, seen: Snapshot, since: str, until: str) -> None:
    files = [
        str(seen.file(segment))
        for segment in seen.manifest.actuals
        if segment.last >= since and (not until or segment.first <= until)
    ]
    connection.register("pending_actuals", seen.actuals)
    body = "SELECT * FROM pending_actuals"
    if files:
        body += f" UNION ALL BY NAME SELECT * FROM read_parquet({_list(files)})"
    if seen.fetch is not None:
        # Several writers number their actuals each for itself.
        body = f"SELECT * REPLACE (epoch_us(received)::HUGEINT * 1000000000000 + seq AS seq) FROM ({body})"
    bounds = _range(since, until)
    connection.execute(f"CREATE VIEW arrivals AS SELECT * FROM ({body}){bounds}{' OR id IS NULL' if bounds else ''}")


def _range(since: str, until: str) -> str:
    bounds = [f"id {sign} '{_checked(text)}'::UUID" for sign, text in ((">=", since), ("<=", until)) if text]
    return f" WHERE ({' AND '.join(bounds)})" if bounds else ""


def _checked(text: str) -> str:
    return str(uuid.UUID(text))


def _list(files: list[str]) -> str:
    quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"[{quoted}]"
