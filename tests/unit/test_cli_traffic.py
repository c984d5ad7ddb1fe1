"""`headrace predict` and `headrace feedback` against an endpoint that asks for keys."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import wiring
from headrace.cli import traffic
from headrace.deploy.base import Status
from headrace.errors import InvalidInput, Unavailable
from headrace.types import Endpoint, Stage


class Asking:
    """A target whose production asks for keys, and what it was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        monkeypatch.setenv("HEADRACE_STATE", str(home))
        monkeypatch.setattr(wiring, "target", lambda _: self)
        monkeypatch.setattr(httpx, "post", self.post)

    def status(self, component: str, stage: Stage) -> Status:
        endpoint = Endpoint(component, stage, "http://127.0.0.1:1", 1)
        return Status(endpoint, 1, {1: 1.0}, [1], predict_keys=["PREDICT"], feedback_keys=["FEEDBACK"])

    def post(self, url: str, *, content: bytes, headers: dict[str, str], **_: Any) -> httpx.Response:
        document = json.loads(content)
        self.sent.append((url, document, headers.get("authorization", "")))
        return httpx.Response(200, json={"predictions": [1], "accepted": len(document.get("actuals", ()))})


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asking:
    return Asking(monkeypatch, tmp_path)


def test_predict_sends_the_key_and_missing_values(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1.0, float("nan"), None], "b": [b"\xff", b"", None]}), rows)
    with pytest.raises(InvalidInput, match="PREDICT is not set"):
        traffic.predict("digits", rows, as_json=True)
    monkeypatch.setenv("PREDICT", "secret")
    traffic.predict("digits", rows, as_json=True)
    frame = {"columns": ["a", "b"], "data": [[1.0, "/w=="], [None, ""], [None, None]]}
    assert asking.sent == [("http://127.0.0.1:1/invocations", {"dataframe_split": frame}, "Bearer secret")]


def test_many_truths_are_sent_in_pieces_with_the_key(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDBACK", "other")
    monkeypatch.setattr(traffic, "AT_ONCE", 2)
    sheet = tmp_path / "labels.csv"
    sheet.write_text("prediction_id,actual\na,007\nb,7\nc,\nd,x\n")
    traffic.feedback("digits", "", "", sheet, as_json=True)
    assert [key for _, _, key in asking.sent] == ["Bearer other"] * 2
    assert [one["actual"] for _, sent, _ in asking.sent for one in sent["actuals"]] == ["007", 7, "x"]
    assert json.loads(capsys.readouterr().out) == {"accepted": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("-7", -7), ("0", 0), ("0.5", 0.5), ("12.50", 12.5), (".5", 0.5), ("1e-05", 1e-05), ("1.5e+20", 1.5e20)],
)
def test_numbers_are_numbers(text: str, value: float) -> None:
    assert traffic.number(text) == value


@pytest.mark.parametrize("text", ["007", "1_000", "nan", "inf", "1e5", "0x1", " 7", "٧", "1.2.3e+5", "9" * 30])
def test_labels_that_look_like_numbers_stay_as_they_are(text: str) -> None:
    assert traffic.number(text) == text


def test_the_files_own_name_of_a_column_is_told(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The endpoint repeats no input, so it can only give the column's number."""
    message = "The model has no column like the one at `the header[1]`. Its columns are `alcohol`."
    monkeypatch.setenv("PREDICT", "secret")
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(422, json={"message": message}))
    rows = tmp_path / "holdout.csv"
    rows.write_text("alcohol,quality\n1,2\n")
    with pytest.raises(InvalidInput) as told:
        traffic.predict("wine", rows, as_json=True)
    assert told.value.fact.endswith("The model has no column `quality`. Its columns are `alcohol`.")
    assert "quality" in told.value.remedy


def test_what_is_the_endpoints_own_fault_is_no_wrong_input(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREDICT", "secret")
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(503, json={"message": "The queue is full."}))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(Unavailable) as told:
        traffic.predict("wine", tmp_path / "x.json", as_json=True)
    assert "The queue is full." in told.value.fact
    assert "headrace logs" in told.value.remedy


SHEETS = [
    (b"prediction_id,actual\nb\n", "Line 2 of sheet.csv has no actual"),
    (b"actual,prediction_id\n7\n", "Line 2 of sheet.csv has no prediction_id"),
    (b"prediction_id,actual\na,1\n,7\n", "Line 3 of sheet.csv has no prediction_id"),
    (b"prediction_id,actual\na,\xff\n", "sheet.csv is no UTF-8 text"),
    (b"prediction_id,actual\na," + b"x" * 200_000 + b"\n", "field larger than field limit"),
    (b"prediction_id,truth\na,1\n", "it has: prediction_id, truth"),
    (b"prediction_id,actual\n", "sheet.csv has no rows"),
    (b"", "it has: none"),
    (None, "sheet.csv cannot be read: Is a directory"),
]


@pytest.fixture
def usual_fields() -> Iterator[None]:
    """Hold fields of CSV to what Python starts with; libraries change it for the whole process."""
    before = csv.field_size_limit(128 * 1024)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("usual_fields")
@pytest.mark.parametrize(("content", "fact"), SHEETS)
def test_a_sheet_that_cannot_be_read_is_told(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, fact: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sheet = Path("sheet.csv")
    sheet.mkdir() if content is None else sheet.write_bytes(content)
    with pytest.raises(InvalidInput) as told:
        traffic.feedback("digits", "", "", sheet, as_json=True)
    assert fact in told.value.fact
    assert told.value.remedy
    assert asking.sent == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.parquet", b"no Parquet"), ("x.parquet", b""), ("x.csv", None), ("x.json", None)],
)
def test_a_body_that_cannot_be_read_is_told(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes | None
) -> None:
    monkeypatch.setenv("PREDICT", "secret")
    file = tmp_path / name
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"{name} cannot be read") as told:
        traffic.predict("digits", file, as_json=True)
    assert told.value.remedy
    assert asking.sent == []


def test_a_sheet_that_a_spreadsheet_saved_is_read(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEEDBACK", "secret")
    sheet = tmp_path / "sheet.csv"
    sheet.write_bytes(b"\xef\xbb\xbfprediction_id,actual\r\na,7\r\nb,\r\n,\r\n")
    traffic.feedback("digits", "", "", sheet, as_json=True)
    assert asking.sent[0][1] == {"actuals": [{"prediction_id": "a", "actual": 7}]}


@pytest.mark.parametrize("name", ["rows.csv", "rows.json"])
def test_a_body_goes_without_the_byte_order_mark(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf{}")
    assert traffic.read_body(tmp_path / name)[0] == b"{}"


def test_a_column_of_a_json_file_is_told_as_the_endpoint_says_it(tmp_path: Path) -> None:
    message = "The model has no column like the one at `$.dataframe_split.columns[1]`. Its columns are `alcohol`."
    (tmp_path / "rows.json").write_text("{}")
    assert traffic.with_column_named(InvalidInput(message), tmp_path / "rows.json").fact == message
