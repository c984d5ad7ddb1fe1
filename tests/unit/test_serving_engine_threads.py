"""The engine's threads give way to the application while many requests are inside."""

import _thread
import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from headrace.serving import engine_threads
from headrace.serving.engine_threads import BUSY, foreign_threads, give_way, pace

DEADLINE_S = 60.0


@pytest.fixture
def foreign() -> Iterator[int]:
    """The number of a thread that `threading` has not started."""
    number: list[int] = []
    started, ended = threading.Event(), threading.Event()

    def wait() -> None:
        number.append(threading.get_native_id())
        started.set()
        ended.wait(DEADLINE_S)

    _thread.start_new_thread(wait, ())
    assert started.wait(DEADLINE_S)
    yield number[0]
    ended.set()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
class TestOnLinux:
    def test_threads_that_python_did_not_start_give_way_and_come_back(self, foreign: int) -> None:
        give_way(is_patient=True)
        assert os.sched_getscheduler(foreign) == os.SCHED_BATCH
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        give_way(is_patient=False)
        assert os.sched_getscheduler(foreign) == os.SCHED_OTHER

    def test_threads_of_python_are_left_alone(self, foreign: int) -> None:
        assert foreign in foreign_threads()
        assert threading.get_native_id() not in foreign_threads()

    def test_a_policy_that_somebody_chose_stays(self, foreign: int, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = os.sched_getscheduler
        monkeypatch.setattr(os, "sched_getscheduler", lambda number: asked(number) if number else os.SCHED_FIFO)
        give_way(is_patient=True)
        assert os.sched_getscheduler(foreign) == os.SCHED_OTHER

    def test_a_sandbox_that_forbids_it_is_no_failure(self, foreign: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "sched_setscheduler", forbidden)
        give_way(is_patient=True)
        assert os.sched_getscheduler(foreign) == os.SCHED_OTHER


def test_they_give_way_while_the_peak_is_high_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    load = SimpleNamespace(active=0, peak=0)

    async def go() -> None:
        changed = asyncio.Event()
        monkeypatch.setattr(engine_threads, "LOOK_S", 0.001)
        monkeypatch.setattr(engine_threads, "give_way", lambda *, is_patient: (told.append(is_patient), changed.set()))
        pacing = asyncio.ensure_future(pace(load))
        for active in (BUSY, BUSY - 1):
            load.active = load.peak = active
            await asyncio.wait_for(changed.wait(), DEADLINE_S)
            changed.clear()
        assert load.peak == BUSY - 1  # Set back to what is inside.
        pacing.cancel()

    asyncio.run(go())
    assert told == [True, False]
