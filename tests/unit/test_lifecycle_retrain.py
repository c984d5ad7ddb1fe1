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
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.candidates.retrain import gather, whole_table, write_table
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


def test_newer_rows_count_for_more_and_old_ones_are_left_out(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    rooms = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
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
    assert binomtest(taken[2], day_rows - 1, 0.5).pvalue > 0.001
    assert binomtest(taken[4], day_rows - 1, 0.25).pvalue > 0.001
    assert gather(rooms, request, component) == found


def no_environments(_kind: object) -> Environments:
    raise AssertionError("gathering rows builds no environment")
