"""New training data is what training reads already: the same columns, and a CSV file stays one."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from headrace.clock import ManualClock
from headrace.config.component import Component, Data, DataInput, Retrain
from headrace.config.settings import Settings
from headrace.data.tables import read_table
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import InvalidConfig
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.candidates.retrain import Gathered, gather, id_like, whole_table, write_table
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actual, Prediction


@pytest.mark.parametrize(("kind", "read"), [(".csv", pa_csv.read_csv), (".parquet", pq.read_table)])
def test_a_table_is_written_as_training_reads_it_under_its_digest(tmp_path: Path, kind: str, read: object) -> None:
    table = pa.table({"text": ["a, b", 'say "so"', ""], "x": [1.5, 2.0, 3.0]})
    first = write_table(table, tmp_path, "train", kind=kind)
    assert write_table(table, tmp_path, "train", kind=kind) == first
    assert Path(first).suffix == kind
    assert callable(read)
    assert read(first).to_pydict() == table.to_pydict()
    assert [path.name for path in tmp_path.iterdir()] == [Path(first).name]


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_the_old_training_file_keeps_its_labels_and_ids(tmp_path: Path, kind: str) -> None:
    table = pa.table({"id": [1, 2], "x": [0.5, 1.5], "label": ["a", "b"]})
    path = write_table(table, tmp_path, "train", kind=kind)
    old = read_table(DataInput(uri=path, label="label", id="id"), tmp_path)
    assert whole_table(old).to_pydict() == table.to_pydict()


def rooms_in(tmp_path: Path, clock: ManualClock) -> Rooms:
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    return Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())


def gathered(rooms: Rooms, folder: Path, retrain: Retrain, table: pa.Table, *, kind: str = ".parquet") -> Gathered:
    path = write_table(table, folder, "old", kind=kind)
    train = DataInput(uri=path, label="label", parameter="data")
    request = CandidateRequest("c", str(folder), Trigger(Cause.ALARM, "k", "monitor", "r"), with_production_rows=True)
    return gather(rooms, request, Component(component="c", data=Data(train=train), retrain=retrain))


def answered(rooms: Rooms, rows: int, **inputs: float) -> None:
    at = rooms.clock.now()
    made = [Prediction(one, "c", 1, at, dict(inputs), "a", 1.0) for one in Ids(rooms.clock).batch(rows)]
    rooms.predictions.append(made)
    rooms.predictions.append_actuals("c", [Actual(one.id, "b", at) for one in made])


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_production_rows_get_weights_that_halve_with_their_age_and_none_is_left_out(tmp_path: Path, kind: str) -> None:
    clock = ManualClock()
    rooms = rooms_in(tmp_path, clock)
    for day in (0.0, 1.0, 2.0):
        answered(rooms, 40, x=day)
        clock.advance(86400)
    retrain = Retrain(newest=2.5 * 86400, half_life=86400.0, keep_out=0.25, weight=4.0)
    old = pa.table({"x": [0.5, 0.7], "label": ["a", "b"]})
    found = gathered(rooms, tmp_path, retrain, old, kind=kind)
    read = pa_csv.read_csv if kind == ".csv" else pq.read_table
    new, recent = read(found.train_data), pq.read_table(found.recent)
    assert new.column_names == ["x", "label", "weight"]
    assert new["weight"].to_pylist()[:2] == [1.0, 1.0]
    weights = dict(zip(new["x"].to_pylist()[2:], new["weight"].to_pylist()[2:], strict=True))
    assert weights == pytest.approx({1.0: 1.0, 2.0: 2.0}, rel=1e-3)  # Two days old, one day old; the oldest are out.
    assert new.num_rows - 2 + recent.num_rows == 80
    assert recent.column_names == ["x", "label"]  # The gate counts every row once.


def test_weights_that_a_training_file_has_are_kept(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path, ManualClock())
    answered(rooms, 30, x=1.0)
    old = pa.table({"x": [0.5, 0.7], "label": ["a", "b"], "weight": [3, 1]})
    new = pq.read_table(gathered(rooms, tmp_path, Retrain(weight=0.5), old).train_data)["weight"].to_pylist()
    assert new[:2] == [3.0, 1.0]
    assert set(new[2:]) == {0.5}


def test_a_feature_called_weight_is_a_feature(tmp_path: Path) -> None:
    rooms = rooms_in(tmp_path, ManualClock())
    answered(rooms, 30, weight=71.0)
    old = pa.table({"weight": [60.5, 80.0], "label": ["a", "b"]})
    new = pq.read_table(gathered(rooms, tmp_path, Retrain(), old).train_data)["weight"].to_pylist()
    assert set(new[2:]) == {71.0}
    with pytest.raises(InvalidConfig, match="takes an input of that name"):
        gathered(rooms, tmp_path, Retrain(weight=2.0), old)


def test_newer_rows_count_for_more_and_old_ones_are_left_out(tmp_path: Path) -> None:
    clock = ManualClock()
    rooms = rooms_in(tmp_path, clock)
    day_rows, days, ids = 400, (10, 4, 2, 0), Ids(clock)
    for older, newer in itertools.pairwise((*days, None)):
        made = [Prediction(one, "c", 1, clock.now(), {"x": float(older)}, "a", 1.0) for one in ids.batch(day_rows)]
        rooms.predictions.append(made)
        rooms.predictions.append_actuals("c", [Actual(one.id, "b", clock.now()) for one in made[:-1]])
        rooms.predictions.append_actuals("c", [Actual(made[-1].id, None, clock.now())])
        clock.advance(86400 * (older - newer) if newer is not None else 1)
    pq.write_table(pa.table({"x": [0.5], "label": ["a"]}), tmp_path / "train.parquet")
    train = DataInput(uri="train.parquet", label="label", parameter="data")
    retrain = Retrain(newest=5 * 86400.0, half_life=2 * 86400.0, keep_out=0.3)
    component = Component(component="c", data=Data(train=train), retrain=retrain)
    request = CandidateRequest("c", str(tmp_path), Trigger(Cause.ALARM, "k", "monitor", "r"), with_production_rows=True)
    found = gather(rooms, request, component)
    added = pq.read_table(found.train_data)["x"].to_pylist()[1:]
    kept_out = pq.read_table(found.recent)["x"].to_pylist()
    taken = {age: (added + kept_out).count(age) for age in days}
    assert taken[10] == 0
    assert taken[0] == day_rows - 1  # The null is no truth to learn.
    # Who is taken hangs on random ids: a bound that chance does not reach.
    assert binomtest(taken[2], day_rows - 1, 0.5).pvalue > 1e-6
    assert binomtest(taken[4], day_rows - 1, 0.25).pvalue > 1e-6
    assert gather(rooms, request, component) == found


def no_environments(_kind: object) -> Environments:
    raise AssertionError("gathering rows builds no environment")


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (pa.int64(), -(2**62), -1), (pa.int32(), -(2**31), -1), (pa.uint64(), 2**62, 2**63 - 1),
        (pa.uint32(), 2**31, 2**32 - 1), (pa.float64(), -(2**52), -1),
    ],
)  # fmt: skip
def test_ids_of_predictions_fit_columns_of_numbers(kind: pa.DataType, low: int, high: int) -> None:
    made = [id_like(f"prediction-{number}", kind) for number in range(5000)]
    column = pa.array(made).cast(kind)
    assert all(low <= one <= high for one in made)  # type: ignore[operator]
    assert [int(one) for one in column.to_pylist()] == made
    assert len(set(made)) == len(made)


def test_ids_of_predictions_are_texts_elsewhere() -> None:
    assert id_like("prediction", pa.string()) == "prediction"
