"""Inference requests of the v2 protocol that do not fit the model."""

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.serving import v2
from headrace.serving.rejection import Rejected
from headrace.serving.scoring import scoring_of
from headrace.types import UNNAMED, Field, FieldKind, Signature

TENSOR = Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 2))
COLUMN = Field("a", FieldKind.COLUMN, "double")
TRUTH = Field("a", FieldKind.COLUMN, "boolean")
TEXT = Field(UNNAMED, FieldKind.TENSOR, "str", (-1,))
MOMENT = Field("at", FieldKind.COLUMN, "datetime")
WHOLE = Field(UNNAMED, FieldKind.TENSOR, "uint64", (-1, 1))
FREE = Field(UNNAMED, FieldKind.TENSOR, "float64", (-1, -1, -1))


def read(field: Field, shape: list[int], *, binary: bool = False) -> v2.Request:
    if not binary:
        return ask(field, shape, "FP32", b"[0, 0]")
    return ask(field, shape, "FP32", raw=b"\0" * 8)


def ask(
    field: Field, shape: list[int], datatype: str, data: bytes = b"", *, raw: bytes | None = None, size: Any = None
) -> v2.Request:
    """Read a request with one tensor, in JSON or as `raw`, said to be `size` long."""
    one: dict[str, Any] = {"name": field.name or "input", "shape": shape, "datatype": datatype}
    if raw is None:
        one["data"] = msgspec.Raw(data)
    else:
        one["parameters"] = {"binary_data_size": len(raw) if size is None else size}
    head = msgspec.json.encode({"inputs": [one]})
    signature = Signature((field,))
    served: Any = SimpleNamespace(signature=signature, scoring=scoring_of(signature))
    served.scoring.most_rows = 256
    return v2.read(served, head + (raw or b""), "" if raw is None else str(len(head)))


def refusal(*request: Any, **more: Any) -> tuple[int, str]:
    with pytest.raises(Rejected) as found:
        ask(*request, **more)
    return found.value.status, found.value.fact


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


@pytest.mark.parametrize("data", [b"[1, 2]", b"[[1, 2]]", b" [ [1 ,2] ]", b"[[[1], [2]]]", b"[[1], [2]]"])
def test_data_may_be_flat_or_nested(data: bytes) -> None:
    assert ask(TENSOR, [1, 2], "FP32", data).asked.rows.as_arrays()[UNNAMED].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "data",
    [
        b"[[1], 2]",
        b"[1, [2]]",
        b"[[], [1, 2]]",
        b"[[]]",
        b'["1", "2"]',
        b"[null, 1]",
        b"{}",
        b"[" * 3 + b"1" + b"]" * 3,
    ],
)
def test_data_that_fits_no_tensor_is_refused(data: bytes) -> None:
    assert refusal(TENSOR, [1, 2], "FP32", data)[0] == 422


@pytest.mark.parametrize("nested", [2000, 5_000_000])
def test_data_nested_without_end_is_refused(nested: int) -> None:
    assert refusal(TENSOR, [1, 2], "FP32", b"[" * nested + b"]" * nested)[0] in (400, 422)


@pytest.mark.parametrize("data", [b'["\xff"]', b'[["\xff"]]', b'["\xc3"]'])
def test_data_that_is_no_utf8_is_a_bad_request(data: bytes) -> None:
    body = b'{"inputs": [{"name": "input", "shape": [1], "datatype": "BYTES", "data": ' + data + b"}]}"
    served: Any = SimpleNamespace(signature=Signature((TEXT,)), scoring=scoring_of(Signature((TEXT,))))
    with pytest.raises(Rejected) as found:
        v2.read(served, body, "")
    assert (found.value.status, "UTF-8" in found.value.fact) == (400, True)


@pytest.mark.parametrize("size", [2**62, 2**70])
def test_no_rows_of_any_size_are_refused(size: int) -> None:
    assert refusal(FREE, [0, size, size], "FP64", b"[]")[0] == 422
    assert refusal(FREE, [0, size, size], "FP64", raw=b"")[0] == 422
    assert refusal(FREE, [0, size, size], "BYTES", raw=b"")[0] == 422


@pytest.mark.parametrize("datatype", ["BOOL", "INT64", "FP32"])
@pytest.mark.parametrize("field", [TEXT, MOMENT, Field("raw", FieldKind.COLUMN, "binary")])
def test_numbers_are_no_texts(field: Field, datatype: str) -> None:
    data = b"[true]" if datatype == "BOOL" else b"[1]"
    assert refusal(field, [1], datatype, data) == (422, f"`$.inputs[0]` is {datatype}; the model takes BYTES.")


@pytest.mark.parametrize("field", [COLUMN, TRUTH, WHOLE, Field(UNNAMED, FieldKind.TENSOR, "bool", (-1, 1))])
def test_texts_are_no_numbers(field: Field) -> None:
    assert refusal(field, [1, 1], "BYTES", b'["1"]')[0] == 422
    assert refusal(field, [1, 1], "BYTES", raw=b"\1\0\0\0" + b"1")[0] == 422


def test_texts_are_texts() -> None:
    for read_one in (ask(TEXT, [2], "BYTES", b'["a", "bb"]'), ask(TEXT, [2], "BYTES", raw=b"\1\0\0\0a\2\0\0\0bb")):
        assert read_one.asked.rows.as_arrays()[UNNAMED].tolist() == ["a", "bb"]


def test_moments_mean_what_they_mean_in_other_protocols() -> None:
    found = ask(MOMENT, [2], "BYTES", b'["2026-11-21T09:30:00+01:00", "1969-12-31"]').asked.rows.as_arrays()["at"]
    assert found.tolist() == np.array(["2026-11-21T08:30:00", "1969-12-31"], "datetime64[ns]").tolist()


@pytest.mark.parametrize("text", ["3000-01-01", "now", "today", "NaT", "", "1600-01-01"])
def test_what_is_no_moment_of_these_centuries_is_refused(text: str) -> None:
    assert refusal(MOMENT, [1], "BYTES", msgspec.json.encode([text]))[0] == 422


def test_unsigned_numbers_go_up_to_their_end() -> None:
    most = 2**64 - 1
    assert ask(WHOLE, [1, 1], "UINT64", b"[%d]" % most).asked.rows.as_arrays()[UNNAMED].tolist() == [[most]]
    for number in (most + 1, -1, 2**80):
        assert refusal(WHOLE, [1, 1], "UINT64", b"[%d]" % number)[0] == 422


@pytest.mark.parametrize("size", [-1, -(2**70)])
def test_a_negative_size_is_refused(size: int) -> None:
    assert refusal(TENSOR, [1, 2], "FP32", raw=b"\0" * 9, size=size)[0] == 422


def test_more_rows_than_the_queue_holds_are_refused_before_they_are_read() -> None:
    expected = 413, "The request holds 257 rows; the limit is 256."
    assert refusal(TEXT, [257], "BYTES", b"[1]") == expected
    assert refusal(TEXT, [257], "BYTES", raw=b"\0\0\0\0" * 257) == expected
    assert ask(TEXT, [256], "BYTES", raw=b"\0\0\0\0" * 256).asked.rows.count == 256


def test_elements_beyond_the_shape_are_not_read() -> None:
    # The last one is broken, and is not looked at.
    raw = b"\0\0\0\0" * 9 + b"\xff"
    assert refusal(TEXT, [2], "BYTES", raw=raw) == (422, "`$.inputs[0]` has more than 2 values; its shape is [2].")
