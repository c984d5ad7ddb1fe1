"""What an endpoint answers to clients that we did not write, and to input that cannot be right."""

import contextlib
import gzip
import io
import json
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from tests.conftest import SmallModels
from tests.endpoints import Endpoints, home_settings, small_endpoints

from headrace.config.component import Serve
from headrace.config.settings import read_settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.errors import InvalidInput
from headrace.types import ServedVersion, Stage

pytestmark = pytest.mark.slow
ROW = [round(0.01 * place, 2) for place in range(64)]
RECORD = {"age": 1.5, "rooms": 3, "town": "Bern"}


@pytest.fixture(scope="module")
def endpoints(small_models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    with small_endpoints(small_models, tmp_path_factory.mktemp("home")) as running:
        yield running


def score(client: httpx.Client, document: Any, **headers: str) -> httpx.Response:
    return client.post("/invocations", json=document, headers=headers)


# What must work


def test_every_mlflow_form_gives_the_same_answer(endpoints: Endpoints) -> None:
    split = {"columns": list(RECORD), "data": [list(RECORD.values())]}
    forms = [
        {"dataframe_records": [RECORD]}, {"instances": [RECORD]}, {"dataframe_split": split},
        {"inputs": {name: [value] for name, value in RECORD.items()}},
    ]  # fmt: skip
    answers = [score(endpoints.table, form).json()["predictions"] for form in forms]
    csv = "town,rooms,age\nBern,3,1.5\n"
    got = endpoints.table.post("/invocations", content=csv, headers={"content-type": "text/csv; charset=utf-8"})
    assert [*answers, got.json()["predictions"]] == [[16.0]] * 5


def test_csv_longer_than_the_queue_is_refused(endpoints: Endpoints) -> None:
    csv = b"town,rooms,age\n" + b"Bern,3,1.5\n" * 257
    for content in (csv, iter([csv])):  # Whose length is known, and in chunks.
        got = endpoints.table.post("/invocations", content=content, headers={"content-type": "text/csv"})
        assert (got.status_code, "more than 256 rows" in got.json()["message"]) == (413, True)


def test_ids_version_and_trace_come_back(endpoints: Endpoints) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    got = score(endpoints.mlp, {"instances": [ROW, ROW]}, traceparent=trace, **{"x-request-id": "r-1"})
    assert got.headers["x-headrace-prediction-id"].split(",") == got.json()["prediction_ids"]
    assert got.headers["x-headrace-version"] == "1"
    assert (got.headers["traceparent"], got.headers["x-request-id"]) == (trace, "r-1")


def test_v2_json_and_binary_agree(endpoints: Endpoints) -> None:
    path = "/v2/models/mlp/versions/1/infer"
    plain = {"id": "7", "inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [ROW]}]}
    found = endpoints.mlp.post(path, json=plain).json()
    raw = np.array([ROW], "float32").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "input",
                    "shape": [1, 64],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "outputs": [{"name": "output", "parameters": {"binary_data": True}}],
        }
    ).encode()
    got = endpoints.mlp.post(path, content=head + raw, headers={"inference-header-content-length": str(len(head))})
    length = int(got.headers["inference-header-content-length"])
    assert json.loads(got.content[:length])["outputs"][0]["shape"] == [1, 10]
    values = np.frombuffer(got.content[length:], "float32")
    np.testing.assert_allclose(values, found["outputs"][0]["data"], rtol=1e-5)
    assert found["id"] == "7"
    assert endpoints.mlp.get("/v2/models/mlp").json()["inputs"][0]["shape"] == [-1, 64]
    assert endpoints.mlp.get("/v2/health/ready").json() == {"ready": True}


def test_torchserve_bodies(endpoints: Endpoints) -> None:
    key = {"authorization": "Bearer open sesame"}
    one = endpoints.mlp.post("/predictions/mlp", json=ROW).json()
    many = endpoints.mlp.post("/predictions/mlp/1", json=[ROW, ROW]).json()
    assert np.shape(one) == (10,)
    assert np.shape(many) == (2, 10)
    assert endpoints.table.put("/predictions/table", json=RECORD).json() == 16.0
    for content in (b"hello", b'"hello"', b'{"data": "hello"}'):
        assert endpoints.text.post("/predictions/text", content=content, headers=key).json()["length"] == 5
    form = endpoints.text.post("/predictions/text", files={"data": ("a.txt", io.BytesIO(b"hello"))}, headers=key)
    assert form.json()["label"] == "short"


def test_openapi_example_works(endpoints: Endpoints) -> None:
    for client in (endpoints.mlp, endpoints.table):
        operation = client.get("/openapi.json").json()["paths"]["/invocations"]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        assert score(client, example).status_code == 200


def test_keys_are_apart_for_predicting_and_feedback(endpoints: Endpoints) -> None:
    document = {"dataframe_records": [{"text": "hi"}]}
    assert score(endpoints.text, document).status_code == 401
    assert score(endpoints.text, document, authorization="Bearer label sesame").status_code == 401
    got = score(endpoints.text, document, authorization="Bearer open sesame")
    truth = {"prediction_id": got.json()["prediction_ids"][0], "actual": "short"}
    wrong = endpoints.text.post("/feedback", json=truth, headers={"authorization": "Bearer open sesame"})
    right = endpoints.text.post("/feedback", json=truth, headers={"authorization": "Bearer label sesame"})
    assert (wrong.status_code, right.status_code) == (401, 202)
    folder = endpoints.folder / "run" / "text-production"
    assert all("sesame" not in (folder / name).read_text() for name in ("route.json", "given.json"))


def test_metrics_of_two_fronts_add_up(endpoints: Endpoints) -> None:
    def requests() -> float:
        lines = endpoints.mlp.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("headrace_requests_total"))

    before = requests()
    for _ in range(20):
        # A fresh connection each time, so that both fronts get some.
        answer = httpx.post(
            f"{endpoints.mlp.base_url}/invocations", json={"instances": [ROW]}, trust_env=False, timeout=120
        )
        assert answer.status_code == 200
    assert requests() == before + 20


# What must be refused

BAD_TENSORS: list[tuple[bytes, int]] = [
    (b"{", 400),
    (b"\xff\xfe\xfd", 400),
    (b'{"instances": [[NaN]]}', 400),
    (b'{"instances": [[Infinity]]}', 400),
    (b'{"instances": []}', 422),
    (b'{"instances": [[1, 2]]}', 422),
    (b'{"instances": "text"}', 422),
    (json.dumps({"instances": [[*ROW[:-1], "x"]]}).encode(), 422),
    (json.dumps({"instances": [[*ROW[:-1], None]]}).encode(), 422),
    (json.dumps({"instances": [[*ROW[:-1], 1e300]]}).encode(), 422),
    (json.dumps({"inputs": [ROW], "unknown": 1}).encode(), 422),
    (json.dumps({"instances": [[0] * 64] * 300}).encode(), 413),
    (b'{"instances": [' * 10_000, 422),
]


@pytest.mark.parametrize(("body", "status"), BAD_TENSORS)
def test_bad_bodies_get_one_sentence_and_no_echo(endpoints: Endpoints, body: bytes, status: int) -> None:
    got = endpoints.mlp.post("/invocations", content=body, headers={"content-type": "application/json"})
    assert got.status_code == status
    assert len(got.content) < 500
    assert got.json()["message"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"age": "old"}, 422), ({"age": None}, 422), ({"rooms": 2.5}, 422), ({"rooms": 2**63}, 422),
        ({"town": 7}, 422), ({"secret": 1}, 422),
    ],
)  # fmt: skip
def test_bad_columns_are_named(endpoints: Endpoints, change: dict[str, Any], status: int) -> None:
    got = score(endpoints.table, {"dataframe_records": [{**RECORD, **change}]})
    assert got.status_code == status
    assert "secret" not in got.text


def test_paths_methods_and_types_that_there_are_not(endpoints: Endpoints) -> None:
    client = endpoints.mlp
    assert client.get("/nowhere").status_code == 404
    assert client.get("/invocations").status_code == 405
    assert client.post("/v2/models/other/infer", json={}).status_code == 404
    assert client.post("/v2/models/mlp/versions/9/infer", json={}).status_code == 404
    assert client.post("/predictions/other", json=ROW).status_code == 404
    assert score(client, {"instances": [ROW]}, **{"x-headrace-version": "9"}).status_code == 404
    xml = client.post("/invocations", content=b"<a/>", headers={"content-type": "text/xml"})
    assert xml.status_code == 415


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/invocations", {"content-type": "application/json"}, 413),
        ("/invocations", {"content-encoding": "gzip"}, 415),
        ("/invocations", {"content-type": "text/xml"}, 415),
        ("/nowhere", {}, 404),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_who_sends_too_much_sees_the_answer(
    endpoints: Endpoints, path: str, headers: dict[str, str], status: int, is_chunked: bool
) -> None:
    """Where a server closes on a body that it did not read, the sender's kernel drops the answer: now and then."""
    for _ in range(5):
        content = (b"1" * 50_000 for _ in range(400)) if is_chunked else b"1" * 20_000_000
        assert endpoints.mlp.post(path, content=content, headers=headers).status_code == status


def test_who_leaves_within_a_refused_body_harms_nobody(endpoints: Endpoints) -> None:
    url = endpoints.mlp.base_url
    for _ in range(20):
        with socket.create_connection((url.host, url.port or 80), timeout=60) as sender:
            sender.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n" + b"1" * 100_000)
    before = endpoints.mlp.get("/metrics").text
    assert score(endpoints.mlp, {"instances": [ROW]}).status_code == 200
    assert 'cause="front"' not in before, "nothing failed inside the front"


def test_compressed_bodies_are_not_unpacked(endpoints: Endpoints) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    packed = endpoints.mlp.post("/invocations", content=bomb, headers={"content-encoding": "gzip"})
    assert packed.status_code == 415


def test_slow_senders_hold_up_nobody_and_are_given_up(endpoints: Endpoints) -> None:
    url = endpoints.mlp.base_url
    with contextlib.ExitStack() as slow:
        senders = []
        for length in (1000, 100_000):  # A small body is read whole, a large one piece by piece.
            senders.append(slow.enter_context(socket.create_connection((url.host, url.port or 80), timeout=60)))
            head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{{"
            senders[-1].sendall(head.encode())
        assert score(endpoints.mlp, {"instances": [ROW]}).status_code == 200
        assert select.select(senders, [], [], 0)[0] == [], "neither has been given up yet"
        assert [sender.recv(12) for sender in senders] == [b"HTTP/1.1 408"] * 2


def test_bad_requests_do_not_harm_neighbours(endpoints: Endpoints) -> None:
    good, bad = {"instances": [ROW]}, {"instances": [[*ROW[:-1], "x"]]}
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda n: score(endpoints.mlp, bad if n % 3 == 0 else good).status_code, range(90)))
    assert found == [422 if n % 3 == 0 else 200 for n in range(90)]


def test_bad_feedback_is_refused(endpoints: Endpoints) -> None:
    for document in ({}, {"prediction_id": "x", "actual": 1}, {"actuals": []}, {"actuals": [{"actual": 1}]}, [1]):
        assert 400 <= endpoints.mlp.post("/feedback", json=document).status_code < 500
    answered = score(endpoints.mlp, {"instances": [ROW]})
    for actual in ("1" + "0" * 30, "[" * 40 + "]" * 40, "[" * 900 + "]" * 900):
        truth = f'{{"prediction_id": "{answered.headers["x-headrace-prediction-id"]}", "actual": {actual}}}'
        refused = endpoints.mlp.post("/feedback", content=truth)
        assert (refused.status_code, refused.headers.get("retry-after")) == (422, None), "it will never fit"


def test_other_versions_wait_behind_the_same_address(endpoints: Endpoints, small_models: SmallModels) -> None:
    shared = read_settings()
    target = ProcessTarget(replace(shared, home=endpoints.folder))
    one = ServedVersion("table", 1, small_models.table, small_models.python)
    two = replace(one, version=2)
    route = Route("table", Stage.PRODUCTION, [one, two], {1: 0.5, 2: 0.5}, Serve(deadline_ms=60_000))
    target.apply(route)
    found = {
        key: {
            score(endpoints.table, {"instances": [RECORD]}, **{"x-headrace-key": key}).headers["x-headrace-version"]
            for _ in range(4)
        }
        for key in "abcdefghijklmnop"
    }
    assert all(len(versions) == 1 for versions in found.values()), "the same key meets the same version"
    assert set.union(*found.values()) == {"1", "2"}

    shadow = replace(route, shares={1: 1.0}, shadow=[2], shadow_share=1.0)
    target.apply(shadow)
    before = endpoints.table.get("/metrics").text
    for _ in range(10):
        assert score(endpoints.table, {"instances": [RECORD]}).headers["x-headrace-version"] == "1"
    assert _shadowed(endpoints.table, _count(before) + 10)


def test_keys_and_secrets_outlive_the_supervisor(small_models: SmallModels, tmp_path: Path) -> None:
    home = tmp_path / "home"
    secret = ProcessTarget(home_settings(home, {"PREDICT_KEY": "open sesame", "TOKEN": "hidden"}))
    version = ServedVersion("text", 1, small_models.text, small_models.python, secrets=("TOKEN",))
    route = Route(
        "text", Stage.PRODUCTION, [version], {1: 1.0}, Serve(predict_keys=("PREDICT_KEY",), deadline_ms=60_000)
    )
    document = {"dataframe_records": [{"text": "hi"}]}
    try:
        before = secret.apply(route)
        psutil.Process(before.endpoint.pid).kill()
        # By somebody who knows neither: a control process that was started from another shell.
        after = ProcessTarget(home_settings(home)).apply(route)
        assert (after.endpoint.url, after.problem) == (before.endpoint.url, "")
        assert after.endpoint.pid != before.endpoint.pid
        with httpx.Client(base_url=after.endpoint.url, timeout=120, trust_env=False) as client:
            assert score(client, document).status_code == 401
            assert score(client, document, authorization="Bearer open sesame").status_code == 200
        assert ((home / "run" / "text-production" / "given.json").stat().st_mode & 0o777) == 0o600
    finally:
        secret.remove("text", Stage.PRODUCTION)
    assert not (home / "run" / "text-production" / "given.json").exists()
    with pytest.raises(InvalidInput, match="TOKEN"):
        ProcessTarget(home_settings(home, {"PREDICT_KEY": "open sesame"})).apply(route)


def _count(text: str) -> int:
    line = next(
        line for line in text.splitlines() if line.startswith("headrace_shadow_rows_total") and 'version="2"' in line
    )
    return int(line.rpartition(" ")[2])


def _shadowed(client: httpx.Client, expected: int) -> bool:
    """Wait until the shadow has answered; it may be behind the champion."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if _count(client.get("/metrics").text) == expected:
            return True
        time.sleep(0.05)
    return False
