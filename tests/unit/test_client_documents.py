"""Arrays as scoring documents and answers as arrays: what is missing, what cannot be said, what comes back."""

import json

import numpy as np
import pytest

from headrace.client import bearer, document_of, outputs_of
from headrace.errors import InvalidInput
from headrace.provenance.golden import difference
from headrace.serving.scoring import scoring_of
from headrace.types import UNNAMED, Arrays, Field, FieldKind, Golden, Signature

SIGNATURE = Signature(
    (
        Field("age", FieldKind.COLUMN, "double", required=False),
        Field("since", FieldKind.COLUMN, "datetime", required=False),
        Field("name", FieldKind.COLUMN, "string", required=False),
    )
)
ROWS: Arrays = {
    "age": np.array([1.5, np.nan]),
    "since": np.array(["2026-01-02T03:04:05", "NaT"], "datetime64[ns]"),
    "name": np.array(["ada", float("nan")], object),
}


def test_what_is_missing_is_null_and_the_server_takes_it() -> None:
    body = json.dumps(document_of(SIGNATURE, ROWS), allow_nan=False).encode()
    frame = json.loads(body)["dataframe_split"]
    assert frame["data"] == [[1.5, "2026-01-02T03:04:05.000000", "ada"], [None, None, None]]
    rows = scoring_of(SIGNATURE).read(body).rows.as_arrays()
    assert np.isnan(rows["age"][1])


def test_what_is_missing_where_the_model_requires_it_is_told() -> None:
    strict = Signature((Field("age", FieldKind.COLUMN, "double"),))
    with pytest.raises(InvalidInput, match="Row 1 of `age` has no value"):
        document_of(strict, {"age": ROWS["age"]})
    tensor = Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 2)),))
    with pytest.raises(InvalidInput, match="Row 1 of the input has no value"):
        document_of(tensor, {UNNAMED: np.array([[0, 1], [2, np.nan]], "float32")})
    with pytest.raises(InvalidInput, match="infinite"):
        document_of(tensor, {UNNAMED: np.array([[0, np.inf]], "float32")})


def test_tensors_and_bytes_come_as_they_are() -> None:
    tensor = np.arange(6, dtype="float32").reshape(3, 2)
    assert document_of(None, {UNNAMED: tensor}) == {"inputs": tensor.tolist()}
    assert document_of(None, {"b": np.array([b"\xff"], object)}) == {"inputs": {"b": ["/w=="]}}


def test_predictions_come_in_the_dtypes_of_what_is_expected() -> None:
    like = {"y": np.zeros(1, "float32"), "day": np.zeros(1, "datetime64[D]"), "n": np.zeros(1, "int64")}
    found = outputs_of([{"y": 1, "day": "2026-01-02", "n": 1.5}, {"y": None, "day": None, "n": 2}], like)
    assert (found["y"].dtype, found["day"].dtype) == ("float32", "datetime64[D]")
    assert np.isnan(found["y"][1])
    assert found["n"].tolist() == [1.5, 2], "a fraction is not cut off to look like what was expected"
    assert outputs_of([[1], [2, 3]])[UNNAMED].tolist() == [[1], [2, 3]]


def test_golden_answers_are_asked_for_in_pieces_and_compared_as_one() -> None:
    golden = Golden({"x": np.arange(5.0)}, {"y": np.arange(5.0) * 2})
    asked: list[int] = []

    def ask(inputs: Arrays) -> Arrays:
        asked.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    assert difference(golden, ask, rows=2) == ""
    assert asked == [2, 2, 1]
    assert "differs" in difference(golden, lambda inputs: {"y": inputs["x"]}, rows=2)
    assert "outputs" in difference(golden, lambda inputs: {f"y{len(inputs['x'])}": inputs["x"]}, rows=2)


def test_an_endpoints_key_is_read_from_the_variables_that_it_names() -> None:
    assert bearer((), {}) == {}
    assert bearer(("A", "B"), {"B": "secret"}) == {"authorization": "Bearer secret"}
    with pytest.raises(InvalidInput, match="A or B is not set"):
        bearer(("A", "B"), {"A": ""})
