"""What the handler of a TorchServe archive takes and answers, without TorchServe."""

import importlib.util
import json
import sys
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


def test_one_bad_request_does_not_touch_the_others_of_its_batch(handler: ModuleType) -> None:
    statuses: dict[int, int] = {}
    context = SimpleNamespace(
        set_response_header=lambda place, name, value: None,
        set_response_status=lambda code, phrase, place: statuses.update({place: code}),
    )
    loaded = object.__new__(handler.Loaded)
    loaded.archive, loaded.fields = {"version": 3}, TENSOR
    loaded.model = SimpleNamespace(predict=lambda batch: worker_child.Answer("array", [("", batch.named[0][1] * 2)]))
    requests = [
        {"body": {"inputs": [[1, 2, 3]]}},
        {"body": b"{"},
        {"data": json.dumps({"inputs": [[0, 0, 1]]}).encode()},
    ]
    answers = loaded.handle(requests, context)
    assert answers == [{"predictions": [[2, 4, 6]]}, {"error": "the body is no JSON"}, {"predictions": [[0, 0, 2]]}]
    assert statuses == {1: 400}


def test_answers_are_written_as_mlflow_writes_them(handler: ModuleType) -> None:
    frame = worker_child.Answer("frame", [("label", np.array(["a", "b"], object)), ("p", np.array([0.5, 1.0]))])
    assert handler.as_json(frame) == [{"label": "a", "p": 0.5}, {"label": "b", "p": 1.0}]
    assert handler.as_json(worker_child.Answer("dict", [("x", np.array([[1, 2]]))])) == {"x": [[1, 2]]}
    assert handler.as_json(worker_child.Answer("value", [("", np.array(['{"any": 1}'], object))])) == {"any": 1}
