"""Scoring documents are checked against the signature before a row joins a batch."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from headrace.serving import frames, worker_child
from headrace.serving.layout import Rows, layout_of
from headrace.serving.rejection import Rejected
from headrace.serving.scoring import scoring_of
from headrace.types import UNNAMED, Field, FieldKind, Signature

COLUMN, TENSOR = FieldKind.COLUMN, FieldKind.TENSOR
ROW = scoring_of(Signature((Field(UNNAMED, TENSOR, "float32", (-1, 3)),)))
ANY = scoring_of(None)
PAIR = scoring_of(Signature((Field("a", TENSOR, "int64", (-1, -1)), Field("b", TENSOR, "float32", (-1, 2)))))
TABLE = scoring_of(
    Signature(
        (
            Field("age", COLUMN, "double"),
            Field("rooms", COLUMN, "long"),
            Field("town", COLUMN, "string", required=False),
            Field("floor", COLUMN, "integer", required=False),
            Field("seen", COLUMN, "datetime", required=False),
            Field("raw", COLUMN, "binary", required=False),
        ),
        params={"top": 1},
    )
)
GOOD = {"age": 1.5, "rooms": 3}


def arrays(rows: Rows) -> dict[Any, Any]:
    """Send rows through a frame, as a worker child sees them."""
    frame = memoryview(frames.request(1, "predict", [rows]))
    length, header_length = frames.PREFIX.unpack_from(frame)
    assert length == len(frame) - 4
    header = json.loads(bytes(frame[8 : 8 + header_length]))
    named = worker_child.unpack(header["blocks"], frame[8 + header_length :])
    if header["container"] != "frame":
        return dict(named)
    return worker_child._columns(named)


def read(scoring: Any, document: Any) -> Rows:
    rows: Rows = scoring.read(json.dumps(document).encode()).rows
    return rows


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_tensor_rows_arrive_as_they_were_sent(form: str) -> None:
    found = arrays(read(ROW, {form: [[1, 2, 3], [4, 5, 6.5]]}))[""]
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2, 3], [4, 5, 6.5]]


def test_tensor_takes_a_data_frame_too() -> None:
    found = arrays(read(ROW, {"dataframe_split": {"columns": ["x", "y", "z"], "data": [[1, 2, 3]]}}))[""]
    assert found.tolist() == [[1, 2, 3]]


def test_named_tensors_by_row_or_by_name() -> None:
    by_name = arrays(read(PAIR, {"inputs": {"a": [[1, 2, 3], [4, 5, 6]], "b": [[1, 2], [3, 4]]}}))
    by_row = arrays(read(PAIR, {"instances": [{"a": [1, 2, 3], "b": [1, 2]}, {"a": [4, 5, 6], "b": [3, 4]}]}))
    for name in ("a", "b"):
        np.testing.assert_array_equal(by_name[name], by_row[name])
    assert by_name["a"].dtype == np.int64


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_records": [{"age": 1.5, "rooms": 3, "town": "Bern"}, {"age": 2, "rooms": 4, "town": None}]},
        {"instances": [{"age": 1.5, "rooms": 3, "town": "Bern"}, {"age": 2, "rooms": 4}]},
        {"dataframe_split": {"columns": ["town", "rooms", "age"], "data": [["Bern", 3, 1.5], [None, 4, 2]]}},
        {"inputs": {"age": [1.5, 2], "rooms": [3, 4], "town": ["Bern", None]}},
    ],
)
def test_table_forms_mean_the_same(document: Any) -> None:
    found = arrays(read(TABLE, document))
    assert found["age"].tolist() == [1.5, 2]
    assert found["rooms"].tolist() == [3, 4]
    assert found["town"].tolist() == ["Bern", None]
    assert "floor" not in found


@pytest.mark.parametrize(("dtype", "odd"), [("float", 0.1), ("double", -1.7e308), ("long", -(2**63))])
@pytest.mark.parametrize("many", [1, 2])
def test_numbers_and_nulls_travel_alone_as_in_company(dtype: str, odd: float, many: int) -> None:
    is_optional = dtype != "long"
    fields = (Field("a", COLUMN, dtype), Field("b", COLUMN, dtype, required=not is_optional))
    rows = [{"a": odd, "b": None if is_optional else 7}] * many
    found = arrays(read(scoring_of(Signature(fields)), {"dataframe_records": rows}))
    assert found["a"].tolist() == [found["a"].dtype.type(odd)] * many
    assert np.isnan(found["b"]).tolist() == [is_optional] * many


def test_moments_and_bytes_travel() -> None:
    row = GOOD | {"seen": "2026-01-02T03:04:05+01:00", "raw": "aGV5"}
    found = arrays(read(TABLE, {"dataframe_records": [row]}))
    assert found["seen"][0] == np.datetime64("2026-01-02T02:04:05", "ns")
    assert found["raw"].tolist() == [b"hey"]


@pytest.mark.parametrize(
    ("scoring", "body", "status", "words"),
    [
        (ROW, b"{", 400, "no valid JSON"),
        (ROW, b"\xff\xfe{}", 400, "no valid JSON"),
        (ROW, b'{"instances": [[1, 2, NaN]]}', 400, "no valid JSON"),
        (ROW, b'{"instances": [[1, 2, Infinity]]}', 400, "no valid JSON"),
        (ROW, b'{"instances": [[1, 2, 1e39]]}', 422, "$.instances[0][2]"),
        (ROW, b'{"inputs": [[1, 2, 3], [1, -1e39, 3]]}', 422, "$.inputs[1][1]"),
        (ROW, b'{"instances": [[1, 2, 1e999]]}', 422, "out of range"),
        (ROW, b'{"instances": [[1, 2, null]]}', 422, "$.instances[0][2]"),
        (ROW, b'{"instances": [[1, 2, "secret"]]}', 422, "$.instances[0][2]"),
        (ROW, b'{"instances": [[1, 2]]}', 422, "$.instances[0]"),
        (ROW, b'{"instances": []}', 422, "no rows"),
        (ROW, b"{}", 422, "exactly one"),
        (ROW, b'{"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}', 422, "exactly one"),
        (ROW, b'{"secret": 1}', 422, "unknown field"),
        (ROW, b"[" * 5000, 422, "Expected `object`"),
        (PAIR, b'{"inputs": {"a": [[1], [2, 3]], "b": [[1, 2], [3, 4]]}}', 422, "differ in shape"),
        (PAIR, b'{"inputs": {"a": [[1]], "b": [[1, 2], [3, 4]]}}', 422, "same number"),
        (PAIR, b'{"inputs": {"a": [[9223372036854775808]], "b": [[1, 2]]}}', 422, "$.inputs.a[0][0]"),
        (TABLE, b'{"dataframe_records": [{"age": 1}]}', 422, "`rooms`"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2, "secret": 3}]}', 422, "unknown field"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2.5}]}', 422, "rooms"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2, "floor": null}]}', 422, "floor"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2, "floor": 2147483648}]}', 422, "floor"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2, "seen": "secret"}]}', 422, "ISO 8601"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2, "raw": "!"}]}', 422, "raw"),
        (TABLE, b'{"dataframe_split": {"columns": ["age"], "data": [[1]]}}', 422, "`rooms`"),
        (TABLE, b'{"dataframe_split": {"columns": ["age", "secret", "rooms"], "data": []}}', 422, "columns[1]"),
        (TABLE, b'{"dataframe_split": {"columns": ["age", "rooms"], "data": [[1, 2, 3]]}}', 422, "$[0]"),
        (TABLE, b'{"inputs": {"age": [1, 2], "rooms": [1]}}', 422, "same number"),
        (TABLE, b'{"dataframe_records": [{"age": 1, "rooms": 2}], "params": {"secret": 1}}', 422, "params"),
    ],
)
def test_wrong_documents_name_their_place_and_echo_nothing(scoring: Any, body: bytes, status: int, words: str) -> None:
    with pytest.raises(Rejected) as raised:
        scoring.read(body)
    assert raised.value.status == status
    assert words in raised.value.sentence
    assert "secret" not in raised.value.sentence
    assert len(raised.value.sentence) < 300


def test_known_parameters_are_taken() -> None:
    asked = TABLE.read(json.dumps({"dataframe_records": [GOOD], "params": {"top": 5}}).encode())
    assert asked.params == {"top": 5}


def test_model_without_signature_takes_numbers_and_tables() -> None:
    anything = scoring_of(None)
    assert arrays(read(anything, {"inputs": [[1, 2], [3, 4]]}))[""].shape == (2, 2)
    assert arrays(read(anything, {"dataframe_records": [{"x": 1, "y": "b"}]}))["y"].tolist() == ["b"]
    with pytest.raises(Rejected):
        read(anything, {"inputs": [[1], [2, 3]]})


@pytest.mark.parametrize("scoring", [ROW, ANY])
def test_records_are_joined_by_name(scoring: Any) -> None:
    records = [{"a": 1, "b": 2, "c": 3}, {"c": 30, "b": 20, "a": 10}]
    found = np.column_stack(list(arrays(read(scoring, {"dataframe_records": records})).values()))
    assert found.tolist() == [[1, 2, 3], [10, 20, 30]]


@pytest.mark.parametrize("scoring", [ROW, ANY])
@pytest.mark.parametrize(
    "other", [{"a": 1, "b": 2, "secret": 3}, {"a": 1, "b": 2, "c": 3, "secret": 4}, {"a": 1, "b": 2}]
)
def test_records_with_other_keys_than_the_first_are_refused(scoring: Any, other: Any) -> None:
    with pytest.raises(Rejected) as refusal:
        read(scoring, {"dataframe_records": [{"a": 1, "b": 2, "c": 3}, other]})
    assert refusal.value.status == 422
    assert "`$.dataframe_records[1]`" in refusal.value.sentence
    assert "secret" not in refusal.value.sentence


@pytest.mark.parametrize("scoring", [ROW, ANY])
def test_a_table_without_records_is_refused(scoring: Any) -> None:
    with pytest.raises(Rejected, match="no rows"):
        read(scoring, {"dataframe_records": []})


def test_layouts_that_clients_choose_are_forgotten_some_day() -> None:
    fields = tuple(Field(f"c{place}", COLUMN, "double", required=False) for place in range(11))
    for chosen in range(2**11 - 1):
        layout_of(fields, frozenset(field.name for place, field in enumerate(fields) if chosen >> place & 1))
    assert layout_of.cache_info().currsize <= 1024


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        ([[1, 2], [3, 4]], "int64"),
        ([[1, 2.5]], "float64"),
        ([[True]], "bool"),
        ([2**63], "uint64"),
        ([[], []], "float64"),
    ],
)
def test_any_numbers_of_one_shape_are_read(rows: list[Any], dtype: str) -> None:
    found = arrays(read(ANY, {"inputs": rows}))[""]
    assert (found.tolist(), found.dtype) == (rows, dtype)


@pytest.mark.parametrize("rows", [["a", "bb"], [["a", "bb"], ["c", ""]], [[["a"]]], ["a", 1], [[1.5, "a", True]]])
def test_any_texts_of_one_shape_are_read(rows: list[Any]) -> None:
    assert arrays(read(ANY, {"inputs": rows}))[""].tolist() == rows


def test_texts_take_no_more_room_than_they_have() -> None:
    document = json.dumps({"inputs": ["a" * 200_000, *["b"] * 200]}).encode()
    tracemalloc.start()
    try:
        ANY.read(document)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(document)


@pytest.mark.parametrize(
    "rows",
    [
        [["a", "b"], ["c"]], [[1, 2], [3]], [["a"], "b"], ["a", ["b"]], [[1], "b"], [1, [2]], [[1], [[2]]], [1, None],
        ["a", None], [[{}]], [1, {}], ["a", {}], [2**70], {"a": [1]}, "text", 5, None,
    ],
)  # fmt: skip
def test_rows_of_no_common_shape_are_refused(rows: Any) -> None:
    with pytest.raises(Rejected) as refusal:
        read(ANY, {"inputs": rows})
    assert refusal.value.status == 422


def test_lists_without_end_are_refused() -> None:
    with pytest.raises(Rejected):
        ANY.read(b'{"inputs": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}")


@pytest.mark.parametrize(
    "split",
    [
        {"columns": [{}], "data": [[1]]}, {"columns": [None], "data": [[1]]}, {"columns": ["a", "a"], "data": [[1, 2]]},
        {"columns": "ab", "data": [[1, 2]]}, {"columns": ["a", "b"], "data": ["xy"]}, {"columns": [], "data": [[]]},
        {"columns": ["a"], "data": {"a": 1}}, {"columns": ["a"]}, [1],
    ],
)  # fmt: skip
def test_tables_without_proper_columns_are_refused(split: Any) -> None:
    with pytest.raises(Rejected) as refusal:
        read(ANY, {"dataframe_split": split})
    assert refusal.value.status == 422


def test_columns_may_have_numbers_for_names() -> None:
    assert read(ANY, {"dataframe_split": {"columns": [0, 1], "data": [[1, "a"]]}}).layout.order == (0, 1)


def test_params_are_nested_no_deeper_than_any_worker_reads() -> None:
    def nested(levels: int) -> dict[str, Any]:
        return {"a": nested(levels - 1)} if levels else {}

    document = json.dumps({"inputs": [[1]], "params": nested(31)}).encode()
    assert ANY.read(document).params == nested(31)
    with pytest.raises(Rejected, match=r"`\$\.params` is nested deeper than 32 levels"):
        read(ANY, {"inputs": [[1]], "params": nested(32)})


@pytest.mark.parametrize("params", [5, ["a"], "a", True])
def test_params_are_an_object(params: Any) -> None:
    with pytest.raises(Rejected, match="params") as refusal:
        read(ANY, {"inputs": [[1]], "params": params})
    assert refusal.value.status == 422


@pytest.mark.parametrize(
    ("signature", "row"),
    [
        (None, {"a": 1}),
        (None, [1]),
        (Signature((Field("a", COLUMN, "double"),)), {"a": 1}),
        (Signature((Field("a", TENSOR, "str", (-1,)), Field("b", TENSOR, "str", (-1,)))), {"a": "x", "b": "y"}),
    ],
)
def test_more_rows_than_the_queue_holds_are_refused(signature: Signature | None, row: Any) -> None:
    scoring = scoring_of(signature)
    scoring.most_rows = 3
    assert read(scoring, {"instances": [row] * 3}).count == 3
    with pytest.raises(Rejected, match="4 rows; the limit is 3") as refusal:
        read(scoring, {"instances": [row] * 4})
    assert refusal.value.status == 413


@pytest.mark.parametrize(
    "document",
    [{"instances": [{}]}, {"inputs": {}}, {"inputs": [{}, {}]}, {"dataframe_split": {"columns": [], "data": [[]]}}],
)
def test_rows_without_any_column_are_refused(document: Any) -> None:
    fields = tuple(Field(name, COLUMN, "double", required=False) for name in ("a", "b"))
    with pytest.raises(Rejected) as refusal:
        read(scoring_of(Signature(fields)), document)
    assert refusal.value.status == 422


def test_texts_of_a_tensor_arrive_as_mlflow_takes_them() -> None:
    scoring = scoring_of(Signature((Field(UNNAMED, TENSOR, "str", (-1, -1)),)))
    found = arrays(read(scoring, {"inputs": [["a", "bb"], ["", "c"]]}))[""]
    assert (found.dtype.kind, found.tolist()) == ("U", [["a", "bb"], ["", "c"]])
    with pytest.raises(Rejected, match="differ in shape"):
        read(scoring, {"inputs": [["a"], ["b", "c"]]})


def test_texts_that_numpy_would_change_or_blow_up_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    scoring = scoring_of(Signature((Field(UNNAMED, TENSOR, "str", (-1,)),)))
    for texts in (["a\0", "b"], ["a" * 100, *["b"] * 100]):
        monkeypatch.setattr(worker_child, "TEXT_ROOM", 4 * 100 * 100)
        found = arrays(read(scoring, {"inputs": texts}))[""]
        assert (found.dtype.kind, found.tolist()) == ("O", texts)
