"""Rows that a component's own entry point writes: it lets the model answer and knows the truth, headrace judges.

The entry point is called with `--model FOLDER --rows FILE`, once for each version that is judged and in that version's
own environment, and writes Parquet with the columns

    truth, answer               one row for each example
    id                          what candidate and champion are paired by; the row's number where it is left out
    probability_CLASS           one for each class, from 0 to 1 and together 1, where the model gives probabilities
    …                           any others: slices that the gate may name, and the model's inputs for the watch
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.config.component import Component
from headrace.data.tables import arrays
from headrace.errors import TrainingFailed
from headrace.evaluation.base import Rows
from headrace.registry.mlmodel import read_mlmodel
from headrace.training.train import Workplace, run_entry_point
from headrace.types import Arrays, ServedVersion

Array: TypeAlias = np.ndarray[Any, Any]
TRUTH, ANSWER, ID, PROBABILITY = "truth", "answer", "id", "probability_"
_ROUNDING = 1e-3
_CHANCES = "Write one column `probability_CLASS` for each class, from 0 to 1; a row's add up to 1."


@dataclass(frozen=True, slots=True)
class Written:
    """What the entry point wrote for one version.

    Attributes:
        inputs: the rows' inputs by field name; empty where the file does not have all of the model's columns.
    """

    rows: Rows
    inputs: Arrays


def ask_entry_point(place: Workplace, component: Component, version: ServedVersion, folder: Path) -> Written:
    """Run the component's `evaluate` entry point for one version and return the rows that it wrote.

    Args:
        folder: where its log and its rows lie; a repeat with the same folder does not run it again.

    Raises:
        TrainingFailed: it failed, or wrote no rows that can be judged.
        Cancelled: the place's attendant said so.
    """
    name = component.evaluate or ""
    file = folder.absolute() / "rows.parquet"
    own = replace(place, environment=replace(place.environment, python=version.python))
    run_entry_point(own, name, {"model": str(version.model), "rows": str(file)}, folder)
    table = _read(file, name)
    return Written(_rows(table, name, component.gate.slices), _inputs(table, version))


def _read(file: Path, name: str) -> pa.Table:
    try:
        table = pq.read_table(file)
    except FileNotFoundError as error:
        raise TrainingFailed(
            f"The entry point `{name}` ran and left no rows in the file that `--rows` names.",
            "Have it write there, for example with `frame.to_parquet(args.rows)`.",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise TrainingFailed(
            f"What the entry point `{name}` wrote is no Parquet: {str(error).splitlines()[0]}",
            "Write it with `frame.to_parquet(args.rows)`.",
        ) from error
    missing = [column for column in (TRUTH, ANSWER) if column not in table.column_names]
    if missing or not table.num_rows:
        lacks = f"no column {' and no '.join(f'`{column}`' for column in missing)}" if missing else "no rows"
        raise TrainingFailed(
            f"What the entry point `{name}` wrote has {lacks} (columns: {', '.join(table.column_names) or 'none'}).",
            "Write one row for each example, with the columns `truth` and `answer`.",
        )
    empty = [column for column in (TRUTH, ANSWER) if table.column(column).null_count]
    if empty:
        raise TrainingFailed(
            f"Column `{empty[0]}` of what the entry point `{name}` wrote is empty in "
            f"{table.column(empty[0]).null_count} of {table.num_rows} rows.",
            "Leave these rows out, or fill them in.",
        )
    return table


def _rows(table: pa.Table, name: str, slices: tuple[str, ...]) -> Rows:
    columns = {column: np.asarray(table.column(column).to_pylist()) for column in (TRUTH, ANSWER)}
    ids = np.asarray(table.column(ID).to_pylist()) if ID in table.column_names else np.arange(table.num_rows)
    if len(np.unique(ids)) < len(ids):
        raise TrainingFailed(
            f"{len(ids) - len(np.unique(ids))} rows that the entry point `{name}` wrote share an `id` with another.",
            "Give every row an id of its own, the same one for every model.",
        )
    classes = [column.removeprefix(PROBABILITY) for column in table.column_names if column.startswith(PROBABILITY)]
    scores = None
    if classes:
        scores = _probabilities(table, name, classes)
    return Rows(
        ids, columns[TRUTH], columns[ANSWER], scores,
        {one: np.asarray(table.column(one).to_pylist()) for one in slices if one in table.column_names},
        np.array(classes).astype(columns[TRUTH].dtype) if classes else None,
    )  # fmt: skip


def _probabilities(table: pa.Table, name: str, classes: list[str]) -> Array:
    """Return shape (rows, classes). Raises TrainingFailed where they are no probabilities."""
    try:
        found = np.column_stack([table.column(PROBABILITY + one).to_numpy() for one in classes]).astype(float)
    except (TypeError, ValueError) as error:
        raise TrainingFailed(
            f"The probabilities that the entry point `{name}` wrote are no numbers.", _CHANCES
        ) from error
    for column, one in enumerate(classes):
        bad = ~((found[:, column] >= -_ROUNDING) & (found[:, column] <= 1 + _ROUNDING))
        if bad.any():
            raise TrainingFailed(
                f"Column `{PROBABILITY}{one}` of what the entry point `{name}` wrote holds no probability in "
                f"{bad.sum()} of {len(bad)} rows, {found[bad, column][0]:g} for example.",
                _CHANCES,
            )
    total = found.sum(axis=1)
    # A binary model's positive class may stand alone: ranks need no other.
    bad = (np.abs(total - 1) > _ROUNDING) & (len(classes) > 1)
    if bad.any():
        raise TrainingFailed(
            f"The probabilities that the entry point `{name}` wrote do not add up to 1 in {bad.sum()} of {len(bad)} "
            f"rows, but to {total[bad][0]:g} for example.",
            _CHANCES,
        )
    return found


def _inputs(table: pa.Table, version: ServedVersion) -> Arrays:
    signature = read_mlmodel(version.model).signature
    if signature is None or not signature.is_tabular:
        return {}
    has_all = all(field.name in table.column_names for field in signature.inputs if field.required)
    return arrays(table, signature) if has_all else {}
