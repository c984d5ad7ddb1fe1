"""A worker that hangs is replaced, and a client that leaves takes its rows along."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.conftest import SmallModels
from tests.endpoints import home_settings

from headrace.config.component import Serve
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.types import ServedVersion, Stage

pytestmark = pytest.mark.slow
NAME = "sleepy"


@pytest.fixture(params=[1, 2], ids=["one-front", "two-fronts"])
def client(request: pytest.FixtureRequest, small_models: SmallModels, tmp_path: Path) -> Iterator[httpx.Client]:
    target = ProcessTarget(home_settings(tmp_path / "home"))
    version = ServedVersion(NAME, 1, small_models.sleepy, small_models.python)
    serve = Serve(workers=2, deadline_ms=2000, fronts=request.param)
    try:
        status = target.apply(Route(NAME, Stage.PRODUCTION, [version], {1: 1.0}, serve))
        with httpx.Client(base_url=status.endpoint.url, timeout=30, trust_env=False) as found:
            yield found
    finally:
        target.remove(NAME, Stage.PRODUCTION)


def ask(client: httpx.Client, *numbers: float) -> int:
    rows = [{"x": number} for number in numbers]
    return client.post("/invocations", json={"dataframe_records": rows}).status_code


def counted(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"headrace_{name}{{"))


def until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_worker_that_never_answers_is_ended_and_its_neighbours_go_on(client: httpx.Client) -> None:
    fronts = int(counted(client, "fronts"))
    with ThreadPoolExecutor(1) as other:
        hung = other.submit(ask, client, -1.0)
        neighbours = []
        while not counted(client, "worker_restarts_total"):
            neighbours.append(ask(client, 1.0))
        assert hung.result() == 504
    late = neighbours.count(504)
    # Another front cannot see that the worker is busy for good: it may send it one batch, and no second.
    assert late <= fronts - 1
    assert set(neighbours) <= {200, 504}
    until(lambda: counted(client, "workers") == 2)
    assert {ask(client, 1.0) for _ in range(10)} == {200}
    assert counted(client, "version_errors_total") == 1 + late


def test_rows_of_a_client_that_left_are_not_predicted(client: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as others:
        busy = [others.submit(ask, client, *[1.0] * 50) for _ in range(4)]
        until(lambda: counted(client, "batch_rows_count") >= 1)
        body = json.dumps({"dataframe_records": [{"x": 5.0}] * 20}).encode()
        with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as leaving:
            leaving.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            time.sleep(0.2)  # So that it waits or runs; which of the two does not matter.
        until(lambda: counted(client, "cancelled_total") == 1)
        assert {one.result() for one in busy} <= {200, 503, 504}
