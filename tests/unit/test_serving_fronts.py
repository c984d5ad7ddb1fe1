"""Fronts that are started again while the route changes."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.serving.control import Limits, Plan, Prepare, ToFront
from headrace.serving.fronts import FrontProcess, Fronts


class Standin(FrontProcess):
    """A front that holds one plan ready, as the real one does, and takes its time."""

    def __init__(self, pace_s: float) -> None:
        super().__init__(cast("subprocess.Popen[bytes]", self), cast("Any", None), cast("Any", None))
        self.pace_s = pace_s
        self.holds = self.serves = 0
        self.is_killed = False
        self.refuses = 0
        self.returncode = -9

    async def ask(self, message: ToFront, answer: type[Any], number: int, timeout_s: float) -> Any:
        await asyncio.sleep(self.pace_s)
        if isinstance(message, Prepare) and message.plan.generation == self.refuses:
            return answer(number, "No worker of version 2 listens.")
        if isinstance(message, Prepare):
            self.holds = message.plan.generation
            return answer(number)
        if self.holds != number:
            raise TimeoutError
        self.holds, self.serves = 0, number
        return answer(number)

    def kill(self) -> None:
        self.is_killed = True


class Bench:
    """Fronts whose processes are stand-ins, started as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *starts: Standin) -> None:
        self.waiting = list(starts)

        async def start(_: Fronts) -> FrontProcess:
            return self.waiting.pop(0)

        monkeypatch.setattr(Fronts, "_start", start)
        self.fronts = Fronts(cast("Any", None), folder=Path(), variables={}, page=print, stuck=print)

    async def deploy(self, generation: int) -> None:
        plan = plan_of(generation)
        await self.fronts.prepare(plan, 1)
        await self.fronts.commit(plan)


def plan_of(generation: int) -> Plan:
    return Plan(generation, "digits", "production", (), {}, Limits())


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_deploying_while_a_front_is_started_again_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        old, fresh = Standin(0), Standin(0.01)
        bench = Bench(monkeypatch, old, fresh)
        await bench.deploy(1)
        replacing = asyncio.ensure_future(bench.fronts._replace(old))
        await asyncio.sleep(0.005)
        await bench.deploy(2)
        await replacing
        assert (fresh.serves, fresh.is_killed) == (2, False)

    run(story)


@pytest.mark.parametrize("waits", range(8))
def test_front_that_is_started_between_prepare_and_commit_serves_what_was_committed(
    monkeypatch: pytest.MonkeyPatch, waits: int
) -> None:
    async def story() -> None:
        old, fresh = Standin(0), Standin(0.01)
        bench = Bench(monkeypatch, old, fresh)
        await bench.deploy(1)
        plan = plan_of(2)
        await bench.fronts.prepare(plan, 1)
        replacing = asyncio.ensure_future(bench.fronts._replace(old))
        await asyncio.sleep(0.005 * waits)
        await bench.fronts.commit(plan)
        await replacing
        assert (fresh.serves, fresh.is_killed) == (2, False)

    run(story)


@pytest.mark.parametrize("is_discarded_before", [True, False], ids=["before", "meanwhile"])
def test_front_that_is_started_after_a_deployment_was_given_up_serves_on(
    monkeypatch: pytest.MonkeyPatch, is_discarded_before: bool
) -> None:
    async def story() -> None:
        old, fresh = Standin(0), Standin(0.01)
        fresh.refuses = 2
        bench = Bench(monkeypatch, old, fresh)
        await bench.deploy(1)
        await bench.fronts.prepare(plan_of(2), 1)
        if is_discarded_before:
            bench.fronts.discard()
        replacing = asyncio.ensure_future(bench.fronts._replace(old))
        await asyncio.sleep(0.025)  # It serves, and gets ready for what will not come.
        bench.fronts.discard()
        await replacing
        assert (fresh.serves, fresh.is_killed) == (1, False)

    run(story)
