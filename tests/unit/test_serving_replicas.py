"""How many workers and threads a model gets on a machine, and what becomes of those that do not start."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import AsyncMock, Mock

import pytest

from headrace.errors import ModelRefused
from headrace.serving import frames
from headrace.serving.control import Limits
from headrace.serving.replicas import HEAVY_MS, Replicas, threads_of, workers_of
from headrace.serving.worker import Threads
from headrace.types import ServedVersion

CHEAP, HEAVY = HEAVY_MS / 2, HEAVY_MS * 2


@pytest.mark.parametrize(
    ("limits", "forward_ms", "workers", "threads"),
    [
        (Limits(), HEAVY, 1, Threads(1, 8, 8)),
        (Limits(workers="auto"), CHEAP, 1, Threads(1, 1, 8)),
        (Limits(workers="auto"), HEAVY, 8, Threads(1, 1, 8)),
        (Limits(workers=2), HEAVY, 2, Threads(1, 4, 8)),
        (Limits(workers=20), HEAVY, 20, Threads(1, 1, 8)),
        (Limits(workers=2, threads=3), HEAVY, 2, Threads(3)),
    ],
)
def test_workers_and_threads_on_eight_cores(limits: Limits, forward_ms: float, workers: int, threads: Threads) -> None:
    assert (workers_of(limits, forward_ms, 8), threads_of(limits, 8)) == (workers, threads)


class Started:
    """A worker that was started."""

    alive: ClassVar[set[str]] = set()

    def __init__(self, address: str) -> None:
        self.address = address
        self.ready = frames.Reply()
        self.alive.add(address)

    def stop(self) -> None:
        self.alive.discard(self.address)


def replicas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warm: Callable[[Any, Any], None]) -> Replicas:
    monkeypatch.setattr(
        "headrace.serving.replicas.start_worker", lambda version, **options: Started(options["address"])
    )
    monkeypatch.setattr(Replicas, "_warm", warm)
    names = itertools.count(1)
    version = ServedVersion("digits", 1, Path("model"), Path("python"))
    limits = Limits(workers=4, threads=1)
    return Replicas(version, limits, {}, tmp_path, 4, lambda: f"w{next(names)}", lambda *_: None)


def test_every_other_worker_is_told_what_the_first_kept_and_so_is_one_that_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = [frames.Kept(True, (1, number)) for number in range(5)]
    told: list[frames.Kept | None] = []

    class Telling(Started):
        wait_ready = open = Mock()

        def ask(self, kind: str, rows: Any, *, timeout_s: float, kept: frames.Kept | None) -> Any:
            told.append(kept)
            return frames.Reply(warm=frames.Warmth(True, 0, {"1": 1.0}, 1.0, found.pop(0))), b""

    async def story() -> None:
        one = replicas(monkeypatch, tmp_path, Replicas._warm)
        monkeypatch.setattr("headrace.serving.replicas.example_rows", lambda _: (None, True))
        monkeypatch.setattr(
            "headrace.serving.replicas.start_worker", lambda version, **options: Telling(options["address"])
        )
        monkeypatch.setattr(Replicas, "_watch", AsyncMock())
        await one.start()
        assert await one._again(3, one.workers[3])
        await one.stop()

    found = list(kept)
    asyncio.run(asyncio.wait_for(story(), 60))
    assert told == [None, *[kept[0]] * 4]


def test_one_worker_that_cannot_load_leaves_none_of_the_others_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    second_failed = threading.Event()

    def warm(_: Replicas, worker: Started) -> None:
        if worker.address == "w2":
            second_failed.set()
            raise ModelRefused("out of memory")
        if worker.address != "w1":
            second_failed.wait(60)

    async def story() -> None:
        with pytest.raises(ModelRefused, match="out of memory"):
            await replicas(monkeypatch, tmp_path, warm).start()
        assert Started.alive == set()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_worker_that_cannot_be_started_again_for_whatever_reason_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    errors = iter([OSError("no descriptors left"), ModelRefused("a file was changed", "headrace restore digits/1")])

    def warm(_: Replicas, worker: Started) -> None:
        raise next(errors)

    async def story() -> None:
        one = replicas(monkeypatch, tmp_path, warm)
        assert not await one._again(0, Started("w1"))  # type: ignore[arg-type]
        assert "no descriptors left" in one.problem
        assert not await one._again(0, Started("w1"))  # type: ignore[arg-type]
        assert one.problem == "a file was changed. headrace restore digits/1"

    asyncio.run(asyncio.wait_for(story(), 60))
    Started.alive.clear()


def test_that_a_worker_ended_is_told_until_another_is_warm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    monkeypatch.setattr("headrace.serving.replicas._ended", AsyncMock(side_effect=[-9, asyncio.CancelledError]))

    async def story() -> None:
        one = replicas(monkeypatch, tmp_path, lambda *_: None)
        one.changed = lambda _, problem: told.append(problem)
        one.workers.append(Started("w1"))  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await one._watch(0)
        assert one.restarts == 1

    asyncio.run(asyncio.wait_for(story(), 60))
    Started.alive.clear()
    assert [bool(problem) for problem in told] == [True, False]
    assert "signal 9" in told[0]
    assert "Another is being loaded" in told[0]
