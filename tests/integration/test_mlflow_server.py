"""MLflow's own server over headrace's store: one process group, found again, and gone when stopped."""

from collections.abc import Iterator

import httpx
import psutil
import pytest

from headrace import processes
from headrace.config.settings import Settings
from headrace.registry import server
from headrace.registry.mlflow import MlflowRegistry

pytestmark = pytest.mark.slow


@pytest.fixture
def started(settings: Settings) -> Iterator[server.MlflowServer]:
    try:
        yield server.start(settings)
    finally:
        server.stop(settings)


def test_the_server_shows_what_the_store_holds_and_stops_for_good(
    settings: Settings, started: server.MlflowServer
) -> None:
    registry = MlflowRegistry(settings)
    run = registry.start_run("digits", key="k", tags={})
    assert server.start(settings) == started
    server.wait_until_ready(started, settings)
    answer = httpx.get(f"{started.url}/api/2.0/mlflow/runs/get", params={"run_id": run.id}, timeout=10)
    assert answer.json()["run"]["info"]["run_id"] == run.id

    through_server = MlflowRegistry(Settings(settings.state, settings.home, started.url))
    assert through_server.start_run("digits", key="k", tags={}).id == run.id

    members = processes.family(started.process)
    server.stop(settings)
    assert server.running(settings) is None
    assert [one for one in members if psutil.pid_exists(one.pid) and one.status() != psutil.STATUS_ZOMBIE] == []
    server.stop(settings)
