"""What the handler of a TorchServe archive takes and answers, without TorchServe."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.deploy.torchserve.archive import HANDLER
from headrace.serving import worker_child

TENSOR = [{"name": "", "kind": "tensor", "dtype": "float32", "shape": [-1, 3], "required": True}]
TABLE = [
    {"name": "age", "kind": "column", "dtype": "double", "shape": [], "required": True},
    {"name": "town", "kind": "column", "dtype": "string", "shape": [], "required": True},
    {"name": "rooms", "kind": "column", "dtype": "double", "shape": [], "required": False},
]


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The handler's module, beside the worker as in an archive."""
    monkeypatch.setitem(sys.modules, "headrace_worker", worker_child)
    spec = importlib.util.spec_from_file_location("headrace_handler", HANDLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tensors_come_as_inputs_as_instances_or_bare(handler: ModuleType) -> None:
    for body in ({"inputs": [[1, 2, 3]]}, {"instances": [[1, 2, 3]]}, [[1, 2, 3]], b'{"inputs": [[1, 2, 3]]}'):
        batch = handler.decode(body, TENSOR)
        assert (batch.rows, batch.container, batch.named[0][1].tolist()) == (1, "array", [[1.0, 2.0, 3.0]])


def test_tables_come_split_or_as_records_and_optional_columns_may_be_absent(handler: ModuleType) -> None:
    split = {"dataframe_split": {"columns": ["town", "age"], "data": [["Bern", 1], ["Ulm", 2]]}}
    records = {"dataframe_records": [{"age": 1, "town": "Bern"}, {"age": 2, "town": "Ulm"}]}
    for body in (split, records):
        batch = handler.decode(body, TABLE)
        assert (batch.rows, batch.order) == (2, ["age", "town"])
        assert {tuple(names): block.tolist() for names, block in batch.named} == {
            ("age",): [[1.0], [2.0]], ("town",): [["Bern"], ["Ulm"]],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "fields", "message"),
    [
        (b"no json at all", TENSOR, "the body is no JSON"),
        (b"[" * 200_000, TENSOR, "the body is nested too deeply"),
        ({}, TENSOR, "the body must hold one of"),
        ({"inputs": [[1, 2]]}, TENSOR, r"input `` has shape \[1, 2\], the model takes \[-1, 3\]"),
        ({"inputs": [["secret-name", 2, 3]]}, TENSOR, "`inputs` does not fit the model's signature"),
        ({"inputs": []}, TENSOR, "has shape"),
        ({"dataframe_records": [{"age": 1}]}, TABLE, "the input `town` is missing"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}, TABLE, "does not fit"),
        ({"dataframe_records": []}, TABLE, "there are no rows"),
    ],
)
def test_a_request_that_cannot_be_right_is_told_so_without_its_values(
    handler: ModuleType, body: Any, fields: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(handler.WrongInput, match=message) as caught:
        handler.decode(body, fields)
    assert "secret-name" not in str(caught.value)


class Bench:
    """A handler with a model in it, without TorchServe.

    Attributes:
        predicted: how many rows each call of the model had.
        codes: of the last batch, by the request's place, where it was not 200.
    """

    def __init__(
        self, handler: ModuleType, model: Callable[[Any], Any], fields: Any, *, by_row: bool = True, most_rows: int = 64
    ) -> None:
        self.model, self.predicted, self.codes = model, list[int](), dict[int, int]()
        self.loaded = object.__new__(handler.Loaded)
        self.loaded.archive, self.loaded.fields, self.loaded.model = {"version": 3}, fields, self
        self.loaded.by_row, self.loaded.most_rows = by_row, most_rows

    def predict(self, batch: Any) -> Any:
        self.predicted.append(batch.rows)
        return self.model(batch)

    def ask(self, *bodies: Any) -> list[Any]:
        self.codes.clear()
        context = SimpleNamespace(
            set_response_header=lambda place, name, value: None,
            set_response_status=lambda code, phrase, place: self.codes.update({place: code}),
        )
        answers: list[Any] = self.loaded.handle([{"body": body} for body in bodies], context)
        return answers


def doubled(batch: Any) -> Any:
    return worker_child.Answer("array", [("", batch.named[0][1] * 2)])


def lengths(batch: Any) -> Any:
    texts = [str(value) for value in batch.named[0][1][:, 0]]
    return worker_child.Answer(
        "frame", [("text", np.array(texts, object)), ("length", np.array([len(text) for text in texts]))]
    )


def test_requests_of_a_batch_are_predicted_together_and_each_gets_its_own_rows(handler: ModuleType) -> None:
    bench = Bench(handler, doubled, TENSOR)
    answers = bench.ask([[1, 2, 3]], {"inputs": [[4, 5, 6], [7, 8, 9]]}, b'{"instances": [[0, 0, 1]]}')
    assert [answer["predictions"] for answer in answers] == [[[2, 4, 6]], [[8, 10, 12], [14, 16, 18]], [[0, 0, 2]]]
    assert (bench.predicted, bench.codes) == ([4], {})


def test_texts_of_a_batch_are_predicted_together(handler: ModuleType) -> None:
    bench = Bench(handler, lengths, [{**TABLE[1], "name": "text"}])
    answers = bench.ask({"inputs": {"text": ["a", "bcd"]}}, {"dataframe_records": [{"text": "x" * 1000}]})
    assert [[row["length"] for row in answer["predictions"]] for answer in answers] == [[1, 3], [1000]]
    assert bench.predicted == [3]


def test_requests_of_tables_with_the_same_columns_are_predicted_together(handler: ModuleType) -> None:
    bench = Bench(handler, doubled, TABLE)
    plain, more = {"age": 1, "town": "Bern"}, {"age": 2, "town": "Ulm", "rooms": 3}
    answers = bench.ask(*({"dataframe_records": [row]} for row in (plain, more, plain, more)))
    assert [answer["predictions"] for answer in answers] == [[[2]], [[4, 6]], [[2]], [[4, 6]]]
    assert bench.predicted == [2, 2]


@pytest.mark.parametrize(
    ("fields", "one", "other"),
    [
        ([{**TENSOR[0], "shape": [-1, -1]}], {"inputs": [[1, 2]]}, {"inputs": [[1, 2, 3]]}),
        (TENSOR, {"inputs": [[1, 2, 3]]}, {"inputs": [[1, 2, 3]], "params": {"top": 1}}),
        (TENSOR, {"inputs": [[1, 2, 3]], "params": {"top": True}}, {"inputs": [[1, 2, 3]], "params": {"top": 1}}),
        (
            [*TABLE, {**TABLE[2], "name": "baths"}],
            {"dataframe_records": [{"age": 1, "town": "Bern", "rooms": 2}]},
            {"dataframe_records": [{"age": 1, "town": "Bern", "baths": 2}]},
        ),
        # As one column of pandas, [1, None] would be numbers with a fraction.
        ([TABLE[1]], {"inputs": {"town": [1]}}, {"inputs": {"town": [None]}}),
    ],
    ids=["shapes", "params", "params-of-other-types", "columns", "types"],
)
def test_requests_that_differ_in_more_than_values_are_predicted_one_by_one(
    handler: ModuleType, fields: Any, one: Any, other: Any
) -> None:
    bench = Bench(handler, lambda batch: worker_child.Answer("array", [("", np.zeros(batch.rows))]), fields)
    assert bench.ask(one, other) == [{"predictions": [0.0]}] * 2
    assert bench.predicted == [1, 1]
    bench.ask(one, other, one)
    assert sorted(bench.predicted[2:]) == [1, 2], "those that are alike among them are joined"


def test_requests_are_joined_up_to_the_batch_size_in_rows(handler: ModuleType) -> None:
    bench = Bench(handler, doubled, TENSOR, most_rows=4)
    answers = bench.ask(*([[place, 0, 0]] * rows for place, rows in enumerate((2, 1, 3, 9, 1))))
    assert [answer["predictions"] for answer in answers] == [
        [[2 * place, 0, 0]] * rows for place, rows in enumerate((2, 1, 3, 9, 1))
    ]
    assert bench.predicted == [3, 3, 9, 1]


def test_a_model_that_does_not_answer_by_row_gets_each_request_by_itself(handler: ModuleType) -> None:
    bench = Bench(
        handler, lambda batch: worker_child.Answer("array", [("", np.array([batch.rows]))]), TENSOR, by_row=False
    )
    assert bench.ask([[1, 2, 3]], [[1, 2, 3]] * 2) == [{"predictions": [1]}, {"predictions": [2]}]
    assert (bench.predicted, bench.codes) == ([1, 2], {})


@pytest.mark.parametrize("by_row", [True, False])
def test_one_bad_request_does_not_touch_the_others_of_its_batch(handler: ModuleType, by_row: bool) -> None:
    bench = Bench(handler, doubled, TENSOR, by_row=by_row)
    answers = bench.ask({"inputs": [[1, 2, 3]]}, b"{", json.dumps({"inputs": [[0, 0, 1]]}).encode())
    assert answers == [{"predictions": [[2, 4, 6]]}, {"error": "the body is no JSON"}, {"predictions": [[0, 0, 2]]}]
    assert bench.codes == {1: 400}
    assert bench.predicted == ([2] if by_row else [1, 1])


def test_params_too_deep_to_compare_do_not_touch_the_others(handler: ModuleType) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"more": deep}
    bench = Bench(handler, doubled, TENSOR)
    answers = bench.ask([[1, 2, 3]], {"inputs": [[4, 5, 6]], "params": deep}, [[7, 8, 9]])
    assert [answer["predictions"] for answer in answers] == [[[2, 4, 6]], [[8, 10, 12]], [[14, 16, 18]]]
    assert sorted(bench.predicted) == [1, 2]


def test_where_a_joined_prediction_fails_only_the_guilty_request_is_told_so(
    handler: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusing(batch: Any) -> Any:
        if (batch.named[0][1] < 0).any():
            raise ArithmeticError("no root")
        return doubled(batch)

    bench = Bench(handler, refusing, TENSOR)
    answers = bench.ask([[1, 2, 3]], [[-1, 2, 3]], [[7, 8, 9]])
    assert answers == [
        {"predictions": [[2, 4, 6]]},
        {"error": "the model failed on this request: ArithmeticError"},
        {"predictions": [[14, 16, 18]]},
    ]
    assert (bench.codes, bench.predicted) == ({1: 500}, [3, 1, 1, 1])
    assert capsys.readouterr().err.count("predict failed") == 1


def test_where_a_model_drops_rows_only_the_request_that_lost_them_is_told_so(handler: ModuleType) -> None:
    def dropping(batch: Any) -> Any:
        values = batch.named[0][1]
        return worker_child.Answer("array", [("", values[values[:, 0] > 0])])

    bench = Bench(handler, dropping, TENSOR)
    answers = bench.ask([[1, 2, 3]], [[4, 5, 6], [-1, 2, 3]], [[7, 8, 9]])
    assert answers == [
        {"predictions": [[1, 2, 3]]}, {"error": "the model gave 1 answers for 2 rows"}, {"predictions": [[7, 8, 9]]},
    ]  # fmt: skip
    assert (bench.codes, bench.predicted) == ({1: 500}, [4, 1, 2, 1])


class Graph:
    """What a model does with a batch of numbers."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer, self.prepared_with = answer, 0

    def prepare(self, example: Any) -> None:
        self.prepared_with = example.rows

    def predict(self, batch: Any) -> Any:
        return worker_child.Answer("array", [("", self.answer(batch.named[0][1]))])


def of_one_row(values: Any) -> Any:
    if len(values) != 1:
        raise ValueError("this graph takes one row")
    return values


@pytest.mark.parametrize(
    ("example", "answer", "warmed_with", "by_row"),
    [
        ([[1, 2, 3], [4, 5, 6]], lambda values: values.sum(axis=1), 2, True),
        ([[1, 2, 3]], lambda values: values.sum(axis=1), 2, True),
        ([[1, 2, 3], [4, 5, 6]], lambda values: values.sum(axis=1) / values.sum(), 2, False),
        ([[1, 2, 3]], lambda values: values.sum(axis=1) / values.sum(), 2, False),
        ([[1, 2, 3]], of_one_row, 1, False),
        ([[1, 2, 3]], lambda values: values[:1], 1, False),
        (None, lambda values: values.sum(axis=1), 0, False),
    ],
    ids=["rows", "one-row", "share", "share-of-one-row", "takes-one-row", "answers-one-row", "no-example"],
)
def test_requests_are_joined_only_where_the_example_showed_that_rows_stand_alone(
    handler: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    example: Any,
    answer: Any,
    warmed_with: int,
    by_row: bool,
) -> None:
    archive = {
        "kind": "pt2", "pt2": "", "seal": "", "threads": 1, "allow_pickle": False, "inputs": TENSOR,
        "example": "example.json" if example else "", "version": 3,
    }  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "example.json").write_text(json.dumps({"inputs": example}))
    (tmp_path / "headrace.json").write_text(json.dumps(archive))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "")
    graph = Graph(answer)
    monkeypatch.setattr(worker_child, "load", lambda options: worker_child.Model(graph))  # type: ignore[arg-type]
    loaded = handler.Loaded(SimpleNamespace(system_properties={"model_dir": str(tmp_path), "batch_size": 8}))
    assert (loaded.by_row, graph.prepared_with, loaded.most_rows) == (by_row, warmed_with, 8)


def test_answers_are_written_as_mlflow_writes_them(handler: ModuleType) -> None:
    frame = worker_child.Answer("frame", [("label", np.array(["a", "b"], object)), ("p", np.array([0.5, 1.0]))])
    assert handler.as_json(frame) == [{"label": "a", "p": 0.5}, {"label": "b", "p": 1.0}]
    assert handler.as_json(worker_child.Answer("dict", [("x", np.array([[1, 2]]))])) == {"x": [[1, 2]]}
    assert handler.as_json(worker_child.Answer("value", [("", np.array(['{"any": 1}'], object))])) == {"any": 1}
