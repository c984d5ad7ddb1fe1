"""A new version of the training data: the old rows and what production has taught since.

Never only the new rows, and never all of them: a share is kept out of training, for the gate.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from headrace.config.component import Component, DataInput, Retrain
from headrace.data.tables import WEIGHT, LabelledTable, read_table
from headrace.errors import InvalidConfig
from headrace.files import sha256_file
from headrace.lifecycle.request import CandidateRequest, Cause
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.base import Joined, is_truth
from headrace.predictions.ids import lowest


@dataclass(frozen=True, slots=True)
class Gathered:
    """The data that this candidate trains on and is judged by, beyond what headrace.yaml names.

    Attributes:
        train_data: the new training file; empty where the component's own is used.
        recent: labelled production rows that training does not see; empty where there are none.
        added: production rows added; kept_out: production rows kept for the gate.
    """

    train_data: str = ""
    recent: str = ""
    added: int = 0
    kept_out: int = 0


def gather(rooms: Rooms, request: CandidateRequest, component: Component) -> Gathered:
    """Write the new data version into `home/data`, named by its digest."""
    if not request.with_production_rows:
        return Gathered()
    retrain, now = component.retrain, rooms.clock.now()
    after = lowest(now - timedelta(seconds=retrain.newest)) if retrain.newest else ""
    thinned = retrain.half_life if retrain.weight is None else None
    rows = [
        row
        for row in rooms.predictions.joined(component.component, after=after)
        if row.is_labelled and is_truth(row.actual) and is_taken(row, now=now, half_life_s=thinned)
    ]
    if not rows and request.trigger.cause is Cause.CRON:
        return Gathered()  # The clock came due, and production has taught nothing yet.
    train = train_input(component)
    journal = rooms.journal(request.flow_id)
    with journal.step("gather", "adding labelled production rows to the training data") as note:
        old = read_table(train, Path(request.folder))
        kept = [row for row in rows if is_kept_out(row.prediction.id, retrain.keep_out)]
        added = [row for row in rows if not is_kept_out(row.prediction.id, retrain.keep_out)]
        whole = whole_table(old)
        tables = [whole, as_table(added, whole, train)]
        if retrain.weight is not None:
            check_is_no_feature(rows)
            counts = [weight_of(row, retrain, now=now) for row in added]
            tables = [weighted(whole, None), weighted(tables[1], counts)]
        folder = rooms.settings.home / "data" / component.component
        # Training reads what it always reads: a CSV file stays one.
        kind = ".csv" if old.path.suffix == ".csv" else ".parquet"
        new = write_table(pa.concat_tables(tables), folder, "train", kind=kind)
        recent = write_table(as_table(kept, whole, train), folder, "recent") if kept else ""
        note.found = (
            f"{whole.num_rows} old rows + {len(added)} labelled production rows; {len(kept)} more are kept for the gate"
        )
    return Gathered(new, recent, len(added), len(kept))


def whole_table(old: LabelledTable) -> pa.Table:
    """Return a training file with all of its columns, labels and ids included."""
    if old.path.suffix == ".parquet":
        return pq.read_table(old.path)
    return pa_csv.read_csv(old.path) if old.path.suffix == ".csv" else old.table


def train_input(component: Component) -> DataInput:
    """Return the training data's input. Raises InvalidConfig where production rows cannot be added to it."""
    train = component.data.train
    if train is None or not train.parameter or not train.label:
        raise InvalidConfig(
            "Production rows can be added only where headrace.yaml says how training gets its data.",
            "Add `data: {train: {uri: FILE, label: COLUMN, parameter: PARAMETER}}`.",
        )
    return train


def is_kept_out(prediction_id: str, share: float) -> bool:
    """Tell whether a row is for the gate; the same row always gets the same answer."""
    digest = hashlib.sha256(prediction_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def is_taken(row: Joined, *, now: datetime, half_life_s: float | None) -> bool:
    """Tell whether a row is learned from: one that is a half-life old with a chance of one half.

    The row's id decides, so that a row which was left out once is not taken later.
    """
    if half_life_s is None:
        return True
    digest = hashlib.sha256(f"retrain-age:{row.prediction.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < math.pow(0.5, age_s(row, now) / half_life_s)


def weight_of(row: Joined, retrain: Retrain, *, now: datetime) -> float:
    """Return what a production row counts beside the training rows' 1: half of it when it is a half-life old."""
    faded = math.pow(0.5, age_s(row, now) / retrain.half_life) if retrain.half_life else 1.0
    return (retrain.weight or 1.0) * faded


def age_s(row: Joined, now: datetime) -> float:
    return max((now - row.prediction.at).total_seconds(), 0.0)


def weighted(table: pa.Table, weights: Sequence[float] | None) -> pa.Table:
    """Return a table with weights in its column `weight`; None keeps what it has, and gives 1 where it has none."""
    at = table.schema.get_field_index(WEIGHT)
    if weights is None:
        kept = table.column(WEIGHT).cast(pa.float64()) if at >= 0 else pa.array([1.0] * table.num_rows, pa.float64())
    else:
        kept = pa.array([float(f"{one:.4g}") for one in weights], pa.float64())
    return table.append_column(WEIGHT, kept) if at < 0 else table.set_column(at, WEIGHT, kept)


def as_table(rows: Sequence[Joined], like: pa.Table, train: DataInput) -> pa.Table:
    """Return labelled production rows in the shape of the training table; columns that they lack are null."""
    special = {train.label, train.id} | (set() if has_feature(rows, WEIGHT) else {WEIGHT})
    features = [name for name in like.column_names if name not in special]
    columns: dict[str, list[object]] = {name: [] for name in like.column_names}
    for row in rows:
        values = feature_values(row, features)
        for name in like.column_names:
            if name == train.label:
                columns[name].append(row.actual)
            elif name == train.id:
                columns[name].append(id_like(row.prediction.id, like.schema.field(name).type))
            elif name in special:
                columns[name].append(1.0)
            else:
                columns[name].append(values.get(name))
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in like.schema]
    return pa.Table.from_arrays(arrays, schema=like.schema)


def has_feature(rows: Sequence[Joined], name: str) -> bool:
    """Tell whether the model takes an input of that name."""
    return any(name in row.prediction.inputs for row in rows)


def check_is_no_feature(rows: Sequence[Joined]) -> None:
    """Raise InvalidConfig where the column for weights would overwrite what the model takes."""
    if has_feature(rows, WEIGHT):
        raise InvalidConfig(
            f"`retrain.weight` writes the column `{WEIGHT}`, and the model takes an input of that name.",
            "Give the input another name, or leave `retrain.weight` out.",
        )


def feature_values(row: Joined, features: Sequence[str]) -> dict[str, object]:
    """Return a logged row's inputs by column.

    One tensor without a name is the only feature column's value, or is spread over the feature columns in order.
    """
    inputs = row.prediction.inputs
    if len(inputs) == 1:
        (name, value), *_ = inputs.items()
        if name not in features and len(features) == 1:
            return {features[0]: value}
        if name not in features and isinstance(value, list) and len(value) == len(features):
            return dict(zip(features, value, strict=True))
    return dict(inputs)


def id_like(prediction_id: str, kind: pa.DataType) -> object:
    """Return an id that fits the training table's id column: the prediction's own, or a number made of it.

    Such a number is negative, or large where the column is unsigned: rows are seldom counted there.
    """
    if pa.types.is_floating(kind):
        bits = {16: 10, 32: 23, 64: 52}[kind.bit_width]  # More whole numbers than these it cannot tell apart.
    elif pa.types.is_integer(kind):
        bits = min(kind.bit_width - 1, 62)  # Arrow takes Python's whole numbers for signed ones first.
    else:
        return prediction_id
    number = int.from_bytes(hashlib.sha256(prediction_id.encode()).digest()[:8], "big") >> (64 - bits)
    return (1 << bits) + number if pa.types.is_unsigned_integer(kind) else -1 - number


def write_table(table: pa.Table, folder: Path, name: str, *, kind: str = ".parquet") -> str:
    """Write a table, as Parquet or as CSV, under its digest and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.tmp"
    if kind == ".csv":
        pa_csv.write_csv(table, temporary)
    else:
        pq.write_table(table, temporary)
    final = folder / f"{name}-{sha256_file(temporary)[:16]}{kind}"
    temporary.replace(final)
    return str(final)
