"""How a loaded model is judged when it is warmed up, and what of its answers travels. No process is started here."""

import importlib
import io
import json
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headrace.serving import worker_child
from headrace.serving.worker_child import Answer, Batch, Model, PackedLinears, Pyfunc, Told, as_answer, pack

FOUR = np.array([[3.0], [1.0], [4.0], [2.0]])


def batch(values: Any) -> Batch:
    return Batch(len(values), "array", [("", np.asarray(values))], [], {})


class Function(Pyfunc):
    """A model that is a function of its rows."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def predict(self, batch: Batch) -> Answer:
        return as_answer(self.function(batch.named[0][1]))


class Graph(worker_child.Pt2):
    """An exported graph that is a function of its rows."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def prepare(self, example: Batch) -> None: ...

    def predict(self, batch: Batch) -> Answer:
        return Answer("array", [("", self.function(batch.named[0][1]))])


def rank(rows: Any) -> Any:
    return rows[:, 0].argsort().argsort()


def centred(rows: Any) -> Any:
    return rows[:, 0] - rows[:, 0].mean()


def labels_by_rank(rows: Any) -> Any:
    return np.array([f"place {place}" for place in rank(rows)], object)


def forecast(rows: Any) -> Any:
    return pd.DataFrame({"yhat": np.arange(4.0)})


@pytest.mark.parametrize("function", [rank, centred, labels_by_rank, forecast])
def test_a_model_whose_rows_depend_on_their_neighbours_is_given_each_request_as_it_is(
    function: Callable[[Any], Any],
) -> None:
    model = Model(Function(function))
    assert not model.warm(batch(FOUR))["by_row"]
    asked = batch([[10.0], [20.0]])
    found, own = model.predict(asked), as_answer(function(asked.named[0][1]))
    assert [values.tolist() for _, values in found.named] == [values.tolist() for _, values in own.named]


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: rows[:, 0] * (1 + 1e-6 * len(rows)),
        lambda rows: [{"label": "x", "score": float(row) + 1e-6 * len(rows)} for row in rows[:, 0]],
        lambda rows: np.where(rows[:, 0] > 2, "high", "low"),
        lambda rows: rows[:, 0] * np.nan,
        lambda rows: [[float(row), None, float("nan")] for row in rows[:, 0]],
    ],
)
def test_rounding_that_depends_on_the_batch_leaves_a_model_row_by_row(function: Callable[[Any], Any]) -> None:
    model = Model(Function(function))
    assert model.warm(batch(FOUR))["by_row"]
    assert (model.least, model.only) == (1, 0)


def test_a_graph_with_a_least_size_is_filled_up() -> None:
    def from_two(rows: Any) -> Any:
        if len(rows) < 2:
            raise ValueError("guard")
        return rows * 2

    model = Model(Graph(from_two))
    assert model.warm(batch(FOUR))["by_row"]
    assert (model.least, model.only) == (2, 0)
    assert model.predict(batch([[5.0]])).named[0][1].tolist() == [[10.0]]


@pytest.mark.parametrize("how", ["refuses", "spreads"])
def test_a_graph_with_one_size_is_filled_up_to_it(how: str) -> None:
    def of_four(rows: Any) -> Any:
        if how == "refuses" and len(rows) != 4:
            raise ValueError("guard")
        return rows * 2 + np.zeros((4, 1))

    model = Model(Graph(of_four))
    warm = model.warm(batch(FOUR) if how == "refuses" else batch(FOUR * 0 + 1))
    assert (warm["by_row"], warm["fixed_rows"]) == (True, 4)
    assert model.predict(batch([[5.0]])).named[0][1].tolist() == [[10.0]]


def test_what_is_no_number_in_an_object_travels_as_null() -> None:
    nan = float("nan")
    frame = as_answer(pd.DataFrame({"emb": [[1.0, nan], [2.0, float("inf")]]}))
    _, (text,) = pack(frame.named)
    assert json.loads(text, parse_constant=pytest.fail) == [[1.0, None], [2.0, None]]
    _, (text,) = pack(as_answer([{"score": nan, "at": np.float64(nan)}, {"score": 0.5}]).named)
    assert json.loads(text, parse_constant=pytest.fail) == [{"score": None, "at": None}, {"score": 0.5}]
    value = as_answer({"score": nan})
    assert value.container == "value"
    assert json.loads(value.named[0][1][0], parse_constant=pytest.fail) == {"score": None}


@pytest.mark.parametrize(("dtype", "known"), [("boolean", True), ("Int64", 1), ("Float64", 0.5), ("string", "a")])
def test_what_pandas_knows_as_missing_travels_as_null(dtype: str, known: Any) -> None:
    values = pd.array([known, pd.NA], dtype=dtype)
    (block,), (buffer,) = pack(as_answer(pd.DataFrame({"a": values})).named)
    found = json.loads(buffer) if block[1] == "json" else [*np.frombuffer(buffer, block[1]).tolist()]
    assert found[0] == known
    assert found[1] is None or np.isnan(found[1])
    _, (text,) = pack(as_answer([{"a": known, "b": pd.NA}]).named)
    assert json.loads(text) == [{"a": known, "b": None}]


def test_a_lone_number_is_one_value() -> None:
    assert as_answer(np.array(3.0)).container == "value"


class Tensor:
    """As much of a tensor as an answer needs."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def cpu(self) -> "Tensor":
        return self

    def numpy(self) -> Any:
        return self.values


@pytest.mark.parametrize("answer", [Tensor(3.0), {"loss": Tensor(3.0)}, (Tensor(3.0),)])
@pytest.mark.parametrize("container", ["array", "frame"])
def test_a_graph_that_answers_a_batch_with_a_lone_number_does_not_answer_row_by_row(
    container: str, answer: Any
) -> None:
    """As with any flavor, and as preflight tells it; it was a failure inside the worker."""
    graph = worker_child.Pt2.__new__(worker_child.Pt2)
    graph.torch = SimpleNamespace(Tensor=Tensor, from_numpy=Tensor)
    graph.is_cpu, graph.names = True, ["rows"]
    graph.forward = graph.module = lambda *_, **__: answer
    rows = Batch(4, container, [(["a"] if container == "frame" else "", FOUR)], ["a"], {})
    model = Model(graph)
    assert model.predict(rows).container == "value"
    assert not model.warm(rows)["by_row"]


def test_failing_requests_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, now = Told(), [100.0]
    monkeypatch.setattr(worker_child.time, "monotonic", lambda: now[0])

    def fail(times: int) -> None:
        for _ in range(times):
            try:
                raise ValueError("no")
            except ValueError:
                told.tell()

    fail(worker_child.TRACEBACKS + 5)
    assert capsys.readouterr().err.count("Traceback") == worker_child.TRACEBACKS
    now[0] += 61
    fail(1)
    written = capsys.readouterr().err
    assert "5 more requests failed" in written
    assert written.count("Traceback") == 1


def test_a_module_is_hidden_for_a_while_and_can_be_had_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with worker_child.without("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert importlib.import_module("this")
    with worker_child.without("this"):
        assert importlib.import_module("this"), "one that is loaded stays"


class Linears:
    """Packed linear layers of a model that only sleeps: which it does for another time while they are on."""

    is_on = False

    def __init__(self, seconds: float, error: float = 0.0) -> None:
        self.seconds, self.error = seconds, error

    def ask(self, rows: Any) -> Any:
        time.sleep(self.seconds if self.is_on else 0.004)
        return rows[:, 0] + (self.error if self.is_on else 0.0)


class Using(Function):
    """A model that goes by what it is given for linear layers."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__(function)
        self.used: list[Any] = []

    def use(self, linears: Any) -> None:
        self.used.append(linears)
        if linears is not None:
            linears.is_on = True


@pytest.mark.parametrize(
    ("linears", "is_kept"),
    [(Linears(0.002), True), (Linears(0.005), False), (Linears(0.002, error=0.01), False)],
    ids=["faster", "slower", "other answers"],
)
def test_packed_linear_layers_are_kept_where_they_are_faster_and_answer_the_same(
    monkeypatch: pytest.MonkeyPatch, linears: Linears, is_kept: bool
) -> None:
    monkeypatch.setattr(PackedLinears, "here", lambda: linears)
    model = Using(linears.ask)
    assert Model(model).warm(batch(FOUR))["kept"] == {"packed": is_kept, "threads": None}
    assert model.used == ([linears] if is_kept else [linears, None])


class Spreading(Function):
    """A model whose forwards take so many milliseconds with so many threads, on a machine with four cores."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ms: dict[int, float]) -> None:
        super().__init__(self.ask)
        self.ms, self.threads, self.tried, self.now = ms, 1, set[int](), 0.0
        monkeypatch.setitem(
            sys.modules, "torch", SimpleNamespace(set_num_threads=lambda number: setattr(self, "threads", number))
        )
        monkeypatch.setattr(worker_child, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(PackedLinears, "here", lambda: None)
        monkeypatch.setattr(worker_child.os, "sched_getaffinity", lambda _: set(range(4)))
        monkeypatch.setenv("HEADRACE_HEAVY_THREADS", "3,8")

    def ask(self, rows: Any) -> Any:
        self.tried.add(self.threads)
        self.now += self.ms[self.threads] / 1000
        return rows[:, 0]


@pytest.mark.parametrize(
    ("ms", "threads"),
    [
        ({1: 12, 2: 9, 3: 6, 4: 3}, (3, 4)),
        ({1: 12, 2: 4, 3: 16, 4: 8}, (1, 2)),
        ({1: 12, 2: 11.5, 3: 12, 4: 12}, (1, 1)),
        ({1: 1}, None),
    ],
    ids=["the more the better", "half is best", "no use", "cheap"],
)
@pytest.mark.parametrize("try_s", [2.0, 0.0])
def test_a_heavy_model_gets_the_threads_that_make_it_faster(
    monkeypatch: pytest.MonkeyPatch, ms: dict[int, float], threads: tuple[int, int] | None, try_s: float
) -> None:
    monkeypatch.setattr(worker_child, "TRY_S", try_s)
    spreading = Spreading(monkeypatch, ms)
    model = Model(spreading)
    assert model.warm(batch(FOUR))["kept"] == {"packed": False, "threads": threads}
    assert spreading.tried == set(ms)
    model.spread(alone=True)
    assert spreading.threads == (threads[1] if threads else 1)
    model.spread(alone=False)
    assert spreading.threads == (threads[0] if threads else 1)


def test_threads_that_are_told_are_taken_without_a_trial_as_far_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spreading = Spreading(monkeypatch, {1: 12})
    kept = Model(spreading).warm(batch(FOUR), {"packed": False, "threads": [2, 16]})["kept"]
    assert kept == {"packed": False, "threads": (2, 4)}
    assert "Taken over: linear layers are PyTorch's own; threads: 2 beside others, 4 alone." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("linears", "told", "is_packed"),
    [
        (Linears(0.005), True, True),
        (Linears(0.002), False, False),
        (Linears(0.002, error=0.01), True, False),
    ],
    ids=["slower", "told not to", "other answers"],
)
def test_a_worker_that_is_told_packs_where_it_is_told_to_unless_the_answers_differ(
    monkeypatch: pytest.MonkeyPatch, linears: Linears, told: bool, is_packed: bool
) -> None:
    monkeypatch.setattr(PackedLinears, "here", lambda: linears)
    model = Using(linears.ask)
    kept = Model(model).warm(batch(FOUR), {"packed": told, "threads": None})["kept"]
    assert kept == {"packed": is_packed, "threads": None}
    assert model.used[-1:] == ([linears] if is_packed else [None] if told else [])


def test_the_best_of_ten_forwards_in_turn_counts_or_of_as_many_as_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([0, 0, 5, 5, 9, 9, 9, 12, 12, 18, 18, 18, 22, 22, 27, 27])
    monkeypatch.setattr(worker_child, "time", SimpleNamespace(perf_counter=lambda: next(ticks, 27)))
    asked: list[str] = []
    assert worker_child._best_ms(["one", "four"], asked.append, 20.0) == {"one": 3000, "four": 4000}
    assert asked == ["one", "four"] * 3
    worker_child._best_ms(["one"], asked.append, 20.0)
    assert asked[6:] == ["one"] * 10


@pytest.mark.parametrize(("seconds", "most_rows"), [(2.0, 8), (0.05, 4)], ids=["quick rows", "slow rows"])
def test_what_is_tried_is_tried_on_more_rows_than_the_example_has_unless_rows_are_slow(
    monkeypatch: pytest.MonkeyPatch, seconds: float, most_rows: int
) -> None:
    asked: list[int] = []

    def ask(rows: Any) -> Any:
        asked.append(len(rows))
        time.sleep(0.002 * len(rows))
        return rows[:, 0]

    monkeypatch.setattr(worker_child, "TRY_S", seconds)
    monkeypatch.setattr(PackedLinears, "here", lambda: Linears(0.001))
    monkeypatch.setattr(Function, "use", lambda self, linears: None)
    Model(Function(ask)).warm(batch(FOUR))
    assert max(asked) == most_rows
