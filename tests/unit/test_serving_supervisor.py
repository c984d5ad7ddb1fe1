"""What a supervisor keeps and what it starts anew: keys, secrets, a route that cannot be restored."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.serving import supervisor as supervisors
from headrace.serving.control import Limits, Plan, RouteSpec, VersionPlan, drain_s
from headrace.serving.keys import digest_of
from headrace.serving.metrics import Counts, Gauges, prometheus, total
from headrace.serving.supervisor import ROUTE, Supervisor
from headrace.types import ServedVersion


class NoFronts:
    """Fronts that do what they are told."""

    restarts = 0
    log_problem = ""
    live: Plan

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def prepare(self, plan: Plan, number: int) -> None:
        pass

    async def commit(self, plan: Plan) -> None:
        self.live = plan

    def discard(self) -> None:
        pass

    async def counts(self) -> None:
        self.log_problem = "[Errno 28] No space left on device"

    def released(self, plan: Plan) -> "asyncio.Future[None]":
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class NoReplicas:
    """Workers that are warm at once."""

    def __init__(self, version: ServedVersion, serve: Limits, variables: Mapping[str, str], *_: Any) -> None:
        self.version, self.serve, self.variables = version, serve, variables
        self.is_golden = False
        self.problem, self.restarts = "", 0

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def plan(self) -> VersionPlan:
        return VersionPlan(self.version.version, "model", "baseline", ("w1.sock",), by_row=True)

    def measured(self) -> Mapping[str, Any]:
        return {}


SPEC = RouteSpec(
    "digits",
    "production",
    (ServedVersion("digits", 1, Path("model"), Path("python"), secrets=("DATABASE",)),),
    {1: 1.0},
    Limits(predict_keys=("KEY",)),
)
OLD, NEW = {"KEY": "old", "DATABASE": "postgres://old"}, {"KEY": "new", "DATABASE": "postgres://new"}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Supervisor]]:
    monkeypatch.setattr(supervisors, "Fronts", NoFronts)
    monkeypatch.setattr(supervisors, "Replicas", NoReplicas)
    with socket.socket() as listener:
        yield lambda: Supervisor(tmp_path, listener, "http://127.0.0.1:1", None, {})


async def apply(supervisor: Supervisor, given: Mapping[str, str], spec: RouteSpec = SPEC) -> bool:
    """Deploy, and tell whether that changed anything."""
    answer = await supervisor.prepare(spec, given)
    await supervisor.commit(answer["generation"], [])
    return not answer["unchanged"]


def in_force(supervisor: Supervisor) -> tuple[tuple[str, ...], str]:
    live: Plan = supervisor.fronts.live  # type: ignore[attr-defined]  # of the stand-in
    return live.predict_keys, supervisor.sets[1].variables["DATABASE"]


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def test_rotated_keys_and_secrets_replace_the_old_ones(make: Callable[[], Supervisor]) -> None:
    async def story() -> None:
        supervisor = make()
        assert await apply(supervisor, OLD)
        assert not await apply(supervisor, OLD), "the same again changes nothing"
        assert await apply(supervisor, NEW)
        assert in_force(supervisor) == ((digest_of("new"),), "postgres://new")

    run(story)


def test_a_rotated_key_alone_leaves_the_workers_as_they_are(make: Callable[[], Supervisor]) -> None:
    async def story() -> None:
        supervisor = make()
        await apply(supervisor, OLD)
        before = supervisor.sets[1]
        assert await apply(supervisor, {**OLD, "KEY": "new"})
        assert supervisor.sets[1] is before

    run(story)


def test_keys_of_the_time_before_a_crash_do_not_come_back(make: Callable[[], Supervisor]) -> None:
    async def story() -> None:
        await apply(make(), OLD)
        next_one = make()
        await next_one.restore()
        assert in_force(next_one) == ((digest_of("old"),), "postgres://old"), "until somebody says otherwise"
        assert await apply(next_one, NEW)
        last = make()
        await last.restore()
        assert in_force(last) == ((digest_of("new"),), "postgres://new")

    run(story)


@pytest.mark.parametrize("kept", ['{"generation": 3, "route": {"component": 1}}', "{", '{"route": {}}'])
def test_a_route_that_cannot_be_read_is_told_in_the_status(
    kept: str, make: Callable[[], Supervisor], tmp_path: Path
) -> None:
    async def story() -> None:
        supervisor = make()
        (tmp_path / ROUTE).write_text(kept)
        await supervisor.restore()
        assert "could not be restored" in supervisor.status()["problem"]
        assert await apply(supervisor, OLD), "deploying again mends it"
        assert supervisor.status()["problem"] == ""

    run(story)


def test_a_route_that_could_not_be_written_down_is_written_when_it_comes_again(
    make: Callable[[], Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def story() -> None:
        supervisor = make()
        with monkeypatch.context() as disk:
            disk.setattr(supervisors, "write_atomically", full)
            with pytest.raises(OSError, match="No space left"):
                await apply(supervisor, OLD)
        assert "No space left" in supervisor.status()["problem"]
        assert not (tmp_path / ROUTE).exists()
        assert await apply(supervisor, OLD)
        assert supervisor.status()["problem"] == ""
        assert (tmp_path / ROUTE).exists()

    run(story)


@pytest.mark.parametrize(("deadline_ms", "expected"), [(1000, 20), (60_000, 62), (3_600_000, 120)])
def test_what_was_accepted_has_its_deadline_to_be_answered(deadline_ms: float, expected: float) -> None:
    assert drain_s(Limits(deadline_ms=deadline_ms)) == expected


def test_a_prediction_log_that_cannot_write_is_told_while_all_is_answered(make: Callable[[], Supervisor]) -> None:
    async def story() -> None:
        supervisor = make()
        await apply(supervisor, OLD)
        assert (await supervisor._do({"do": "status"}))["problem"].endswith("No space left on device")
        assert not await apply(supervisor, OLD), "that is no reason to start anything anew"

    run(story)


def test_metrics_tell_a_prediction_log_in_trouble() -> None:
    troubled = total([Counts(log_problem="no space"), Counts()])
    assert 'headrace_log_problem{component="digits"} 1' in prometheus("digits", troubled, Gauges())
    assert 'headrace_log_problem{component="digits"} 0' in prometheus("digits", Counts(), Gauges())
