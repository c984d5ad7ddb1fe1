"""A worker that hangs is replaced, and a client that leaves takes its rows along."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def served(models: SmallModels, folder: Path, *, workers: int, fronts: int) -> Iterator[httpx.Client]:
    """A client of an endpoint whose model takes 20 ms a row, and hangs on negative ones."""
    target = ProcessTarget(home_settings(folder / "home"))
    version = ServedVersion(NAME, 1, models.sleepy, models.python)
    serve = Serve(workers=workers, deadline_ms=2000, fronts=fronts)
    try:
        status = target.apply(Route(NAME, Stage.PRODUCTION, [version], {1: 1.0}, serve))
        with httpx.Client(base_url=status.endpoint.url, timeout=30, trust_env=False) as found:
            yield found
    finally:
        target.remove(NAME, Stage.PRODUCTION)


@pytest.fixture(params=[1, 2], ids=["one-front", "two-fronts"])
def client(request: pytest.FixtureRequest, small_models: SmallModels, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(small_models, tmp_path, workers=2, fronts=request.param) as found:
        yield found


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


def test_long_batch_of_one_front_is_not_ended_by_the_other(small_models: SmallModels, tmp_path: Path) -> None:
    with served(small_models, tmp_path, workers=1, fronts=2) as client, ThreadPoolExecutor(16) as others:

        def one_row(_: int) -> int:
            # By a connection of its own, so that each front has some.
            with httpx.Client(base_url=client.base_url, timeout=30, trust_env=False) as own:
                return ask(own, 1.0)

        assert set(others.map(one_row, range(16))) == {200}
        long = others.submit(ask, client, *[1.0] * 400)  # Eight seconds.
        until(lambda: counted(client, "batch_rows_sum") >= 416)
        assert set(others.map(one_row, range(8))) <= {503, 504}
        assert long.result() == 504
        until(lambda: ask(client, 1.0) == 200)
        assert counted(client, "worker_restarts_total") == 0


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
