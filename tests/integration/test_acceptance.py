"""Acceptance tells a good endpoint from a wrong, a failing, a slow and a careless one, over real HTTP."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from headrace.acceptance.http import accept, check_load, check_refusals
from headrace.config.component import Acceptance
from headrace.processes import free_port
from headrace.types import UNNAMED, Field, FieldKind, Golden, Signature, Verdict

TENSOR = Signature((Field(UNNAMED, FieldKind.TENSOR, "float32", (-1, 2)),))
TABLE = Signature((Field("a", FieldKind.COLUMN, "double"), Field("b", FieldKind.COLUMN, "string")))
WANTED = Acceptance(requests=12, clients=3)
INPUTS = np.arange(8, dtype=np.float32).reshape(4, 2)
GOLDEN = Golden({UNNAMED: INPUTS}, {UNNAMED: INPUTS * 2})
Answer = Callable[[Any], tuple[int, Any]]


@contextmanager
def endpoint(answer: Answer, *, key: str = "") -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                is_let_in = not key or self.headers["authorization"] == f"Bearer {key}"
                status, document = answer(json.loads(body)) if is_let_in else (401, {"error": "no key"})
            except (ValueError, KeyError, TypeError):
                status, document = 400, {"error": "no"}
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def double(body: Any) -> tuple[int, Any]:
    return 200, {"predictions": (np.array(body["inputs"], dtype=np.float32) * 2).tolist()}


def test_a_good_endpoint_is_accepted_with_its_numbers() -> None:
    with endpoint(double) as url:
        result = accept(url, GOLDEN, WANTED, TENSOR)
    assert result.verdict is Verdict.PASS
    assert [finding.check for finding in result.findings] == ["golden", "load", "bad input"]
    assert "12 requests, none failed" in result.findings[1].sentence


def test_rows_of_a_table_travel_by_column() -> None:
    def answer(body: Any) -> tuple[int, Any]:
        frame = body["dataframe_split"]
        assert frame["columns"] == ["a", "b"]
        return 200, {"predictions": [{"label": row[1], "score": row[0]} for row in frame["data"]]}

    words = np.array(["x", "y"], dtype=object)
    numbers = np.array([0.5, 1.5])
    golden = Golden({"a": numbers, "b": words}, {"label": words, "score": numbers})
    with endpoint(answer) as url:
        assert accept(url, golden, WANTED, TABLE).verdict is Verdict.PASS


def wrong(body: Any) -> tuple[int, Any]:
    return 200, {"predictions": (np.array(body["inputs"]) * 2.01).tolist()}


def wrong_alone(body: Any) -> tuple[int, Any]:
    rows = np.array(body["inputs"])
    return 200, {"predictions": (rows * (2 if len(rows) > 1 else 3)).tolist()}


def failing(body: Any) -> tuple[int, Any]:
    return (200, {"predictions": (np.array(body["inputs"]) * 2).tolist()}) if body["inputs"][0][0] < 6 else (500, {})


def slow(body: Any) -> tuple[int, Any]:
    time.sleep(0.05)
    return double(body)


def careless(body: Any) -> tuple[int, Any]:
    return double(body) if isinstance(body, dict) and "inputs" in body else (500, {})


@pytest.mark.parametrize(
    ("answer", "check", "words"),
    [
        (wrong, "golden", "differ"),
        (wrong_alone, "golden", "differ"),
        (failing, "load", "3 of 12 requests failed"),
        (slow, "load", "acceptance.p99_ms"),
        (careless, "bad input", "500"),
    ],
)
def test_what_is_wrong_is_named(answer: Answer, check: str, words: str) -> None:
    wanted = WANTED.model_copy(update={"p99_ms": 20.0}) if answer is slow else WANTED
    with endpoint(answer) as url:
        result = accept(url, GOLDEN, wanted, TENSOR)
    assert result.verdict is Verdict.FAIL
    failed = next(finding for finding in result.findings if finding.verdict is Verdict.FAIL)
    assert failed.check == check
    assert words in failed.sentence


def test_an_endpoint_with_keys_is_accepted_with_one_of_them() -> None:
    with endpoint(double, key="secret") as url:
        assert accept(url, GOLDEN, WANTED, TENSOR, headers={"authorization": "Bearer secret"}).verdict is Verdict.PASS
        refused = accept(url, GOLDEN, WANTED, TENSOR)
    assert "401" in refused.findings[0].sentence


def test_missing_values_in_golden_rows_travel_as_null() -> None:
    signature = Signature((Field("a", FieldKind.COLUMN, "double", required=False),))
    golden = Golden({"a": np.array([1.0, np.nan])}, {"y": np.array([2.0, np.nan])})

    def answer(body: Any) -> tuple[int, Any]:
        return 200, {"predictions": [{"y": a and a * 2} for (a,) in body["dataframe_split"]["data"]]}

    with endpoint(answer) as url:
        assert accept(url, golden, WANTED, signature).verdict is Verdict.PASS


def test_an_endpoint_that_is_gone_fails_every_check() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert "does not answer" in accept(url, GOLDEN, WANTED, TENSOR).findings[0].sentence
    assert check_load(url, GOLDEN, WANTED, TENSOR).sentence.endswith("the first without an answer")
    assert check_refusals(url).sentence.endswith("was not answered")
