"""Seasonal references: a Monday morning is compared with Monday mornings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from headrace.config.component import Monitor, Season
from headrace.errors import InvalidConfig
from headrace.evaluation.base import Rows
from headrace.files import write_atomically
from headrace.monitoring import reference
from headrace.monitoring.embeddings import matrix_of
from headrace.monitoring.reference_profile import Embedding, Reference, build
from headrace.types import Task

Array: TypeAlias = np.ndarray[Any, Any]
#: A season with fewer rows than this has no reference of its own.
FEWEST = 200
#: The share of a window's rows that must be in one season for it to be compared with that season.
MOST_OF = 0.8
DOCUMENT = "seasons.json"


@dataclass(frozen=True, slots=True)
class Seasons:
    """References by season; `overall` where a season has none, or none were asked for."""

    overall: Reference
    season: Season = "none"
    by_name: Mapping[str, Reference] = field(default_factory=dict)

    def at(self, moments: Sequence[datetime]) -> Reference:
        """Return the reference for a window: its season's, where most of its rows are in one."""
        names = [season_of(one, self.season) for one in moments] if self.by_name else []
        if not names:
            return self.overall
        commonest = max(set(names), key=names.count)
        if names.count(commonest) < MOST_OF * len(names):
            return self.overall
        return self.by_name.get(commonest, self.overall)


def season_of(moment: datetime, season: Season) -> str:
    """Return the name of the season that a moment (taken in UTC) is in."""
    utc = moment.astimezone(UTC)
    names = {
        "none": "", "hour": f"{utc.hour:02d}h", "weekday": f"{utc:%a}", "hour of weekday": f"{utc:%a} {utc.hour:02d}h",
    }  # fmt: skip
    return names[season]


def profile(
    rows: Rows,
    inputs: Mapping[str, Any],
    *,
    task: Task,
    monitor: Monitor,
    table: pa.Table | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> Seasons:
    """Return the reference profiles of a holdout, as `monitor` asks for them.

    With `monitor.time_column` the rows are put in order of time first, so that their dependence is measured.

    Args:
        table: the holdout's columns. `outputs` what the model gave for them, where `monitor.embedding` is one of these.

    Raises:
        InvalidConfig: the column of moments is not there, or holds something else; there is no such embedding.
    """
    embedding = embedding_of(monitor, inputs, outputs or {})
    if embedding is not None and embedding.is_output:
        inputs = {**inputs, embedding.name: matrix_of((outputs or {})[embedding.name])}
    if monitor.time_column is None:
        return Seasons(build(rows, task=task, inputs=inputs, embedding=embedding))
    moments = moments_of(table, monitor.time_column)
    order = np.array(sorted(range(len(moments)), key=moments.__getitem__))
    parts = {"": order}
    if monitor.season != "none":
        parts |= {name: order[found] for name, found in split([moments[at] for at in order], monitor.season).items()}
    made = {
        name: build(
            taken(rows, chosen), task=task, in_time_order=True, embedding=embedding,
            inputs={field: np.asarray(values)[chosen] for field, values in inputs.items()},
        )
        for name, chosen in parts.items()
    }  # fmt: skip
    return Seasons(made.pop(""), monitor.season, made)


def embedding_of(monitor: Monitor, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Embedding | None:
    """Return which output or input `monitor.embedding` names; None where it names none. Raises InvalidConfig."""
    if monitor.embedding is None:
        return None
    if monitor.embedding in outputs or monitor.embedding in inputs:
        return Embedding(monitor.embedding, monitor.embedding in outputs)
    gives, takes = (", ".join(name or "one without a name" for name in names) or "none" for names in (outputs, inputs))
    raise InvalidConfig(
        f"`monitor.embedding` names `{monitor.embedding}`; the model's outputs are {gives}, its inputs {takes}.",
        "Name one of them, have the model give the embedding as an output, or leave `monitor.embedding` out.",
    )


def split(moments: Sequence[datetime], season: Season) -> dict[str, Array]:
    """Return the rows of each season that has enough of them."""
    names = np.array([season_of(one, season) for one in moments])
    found = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    return {name: rows for name, rows in found.items() if len(rows) >= FEWEST}


def moments_of(table: pa.Table | None, column: str) -> list[datetime]:
    """Return a column's moments; those without a time zone are in UTC."""
    if table is None or column not in table.column_names:
        known = ", ".join(table.column_names) if table is not None else "no holdout file"
        raise InvalidConfig(
            f"`monitor.time_column` names `{column}`, which the holdout does not have (it has: {known}).",
            "Name the column with the moment of each row, or leave `monitor.time_column` and `monitor.season` out.",
        )
    try:
        return [_moment(value) for value in table[column].to_pylist()]
    except (TypeError, ValueError) as cause:
        raise InvalidConfig(
            f"The holdout's column `{column}` holds something that is no moment: {cause}.",
            "Write timestamps, ISO 8601 texts (2026-03-01T12:00:00Z) or seconds since 1970.",
        ) from cause


def taken(rows: Rows, chosen: Array) -> Rows:
    """Return some rows, in the order given."""
    return replace(
        rows, ids=rows.ids[chosen], truth=rows.truth[chosen], answer=rows.answer[chosen],
        scores=None if rows.scores is None else rows.scores[chosen],
        slices={name: values[chosen] for name, values in rows.slices.items()},
    )  # fmt: skip


def save(seasons: Seasons, folder: Path) -> None:
    """Write all profiles into a folder: the overall one as ever, each season's in a folder of its own."""
    reference.save(seasons.overall, folder)
    places = {name: f"season-{number}" for number, name in enumerate(sorted(seasons.by_name))}
    for name, place in places.items():
        reference.save(seasons.by_name[name], folder / place)
    write_atomically(folder / DOCUMENT, json.dumps({"season": seasons.season, "places": places}, indent=1), mode=0o644)


def load(folder: Path) -> Seasons:
    """Return the profiles in a folder. Raises NotFound and InvalidInput as `reference.load`."""
    overall = reference.load(folder)
    path = folder / DOCUMENT
    if not path.exists():  # Written before there were seasons.
        return Seasons(overall)
    document = json.loads(path.read_text())
    by_name = {name: reference.load(folder / place) for name, place in document["places"].items()}
    return Seasons(overall, document["season"], by_name)


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} ({type(value).__name__})")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
