"""Processes are found again by pid and start time, and nobody else's is ever touched."""

import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from headrace import processes
from headrace.processes import ProcessName


@pytest.fixture
def leader() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that leads a session, with a child."""
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"], start_new_session=True)
    while not psutil.Process(child.pid).children():
        time.sleep(0.005)
    name = processes.name_of(child.pid)
    try:
        yield child
    finally:
        processes.stop(name, grace_s=0)
        child.wait()


def test_a_pid_that_was_given_out_again_is_left_alone(leader: "subprocess.Popen[bytes]") -> None:
    now = processes.name_of(leader.pid)
    before = ProcessName(now.pid, now.started - 3600)
    assert not processes.is_alive(before)
    assert processes.family(before) == []
    processes.stop(before)
    assert processes.is_alive(now)
    assert len(processes.family(now)) == 2


def test_a_process_is_found_again_after_somebody_set_the_clock(
    leader: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    name = processes.name_of(leader.pid)
    before = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: before(self) + 3600)
    assert processes.is_alive(name)
    assert len(processes.family(name)) == 2
    processes.stop(name, grace_s=0)
    assert not processes.is_alive(name)


def test_a_process_that_an_earlier_headrace_named_is_found_again(leader: "subprocess.Popen[bytes]") -> None:
    name = ProcessName(leader.pid, psutil.Process(leader.pid).create_time())
    assert processes.is_alive(name)
    assert len(processes.family(name)) == 2


def test_stop_ends_the_session_also_when_its_leader_has_died(leader: "subprocess.Popen[bytes]") -> None:
    name = processes.name_of(leader.pid)
    (napping,) = psutil.Process(leader.pid).children()
    leader.kill()
    leader.wait()
    assert [process.pid for process in processes.family(name)] == [napping.pid]
    processes.stop(name)
    assert not napping.is_running() or napping.status() == psutil.STATUS_ZOMBIE
