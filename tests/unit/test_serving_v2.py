"""Inference requests of the v2 protocol that do not fit the model."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.serving import v2
from headrace.serving.rejection import Rejected
from headrace.types import UNNAMED, Field, FieldKind, Signature

TENSOR = Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 2))
COLUMN = Field("a", FieldKind.COLUMN, "double")


def read(field: Field, shape: list[int], *, binary: bool = False) -> v2.Request:
    one: dict[str, Any] = {"name": field.name or "input", "shape": shape, "datatype": "FP32"}
    body = b"\0" * 8 if binary else b""
    one |= {"parameters": {"binary_data_size": 8}} if binary else {"data": [0, 0]}
    head = json.dumps({"inputs": [one]}).encode()
    served: Any = SimpleNamespace(signature=Signature((field,)))
    return v2.read(served, head + body, str(len(head)) if binary else "")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("field", [TENSOR, COLUMN])
def test_more_dimensions_than_the_model_has_are_refused(field: Field, binary: bool) -> None:
    with pytest.raises(Rejected, match="65 dimensions") as refusal:
        read(field, [2] + [1] * 64, binary=binary)
    assert refusal.value.status == 422


@pytest.mark.parametrize("length", ["\u00b2", "\u0661", "1" * 5000, "-1", "1e3"])
def test_a_header_length_that_is_no_number_is_refused(length: str) -> None:
    served: Any = SimpleNamespace(signature=Signature((COLUMN,)))
    with pytest.raises(Rejected, match="no length") as refusal:
        v2.read(served, b"{}", length)
    assert refusal.value.status == 422


def test_a_column_may_come_with_a_width_of_one() -> None:
    assert read(COLUMN, [2, 1]).asked.rows.count == read(COLUMN, [2]).asked.rows.count == 2
    assert read(TENSOR, [1, 2]).asked.rows.count == 1
