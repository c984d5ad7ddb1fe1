"""Child processes that can be found again and stopped for certain, with all that they started.

A process is named by pid *and* start time, because the system gives pids out again.
"""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from headrace.files import rotate
from headrace.types import Json


@dataclass(frozen=True, slots=True)
class ProcessName:
    """Which process is meant.

    Attributes:
        started: when it began, in seconds on a clock that nobody sets: this boot's, and another one's differs.
    """

    pid: int
    started: float

    def as_json(self) -> dict[str, Json]:
        return {"pid": self.pid, "started": self.started}


def name_of(pid: int) -> ProcessName:
    """Return the full name of a running process. Raises psutil.NoSuchProcess."""
    return ProcessName(pid, _started(psutil.Process(pid)))


def is_alive(name: ProcessName) -> bool:
    """Tell whether that very process runs; a zombie does not."""
    try:
        process = psutil.Process(name.pid)
        return _is(process, name) and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def pid_exists(pid: int) -> bool:
    """Tell whether any process of this machine has a pid."""
    return psutil.pid_exists(pid)


def pids_with(path: Path) -> list[int]:
    """Return the other processes that have a file open, as far as this user may see them."""
    place, found = os.path.realpath(path), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(file.path == place for file in process.open_files()):
                found.append(process.pid)
    return found


def start_detached(command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path) -> ProcessName:
    """Start a process in a session of its own, its output appended to `log`; it outlives its parent."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with rotate(log).open("ab") as output:
        child = subprocess.Popen(
            [str(part) for part in command],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return name_of(child.pid)


def stop_alone(name: ProcessName, *, grace_s: float = 10.0) -> None:
    """End one process and nothing that it started: SIGTERM, then SIGKILL after `grace_s`."""
    if is_alive(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(name.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while is_alive(name) and time.monotonic() < deadline:
        _reap(name.pid)
        time.sleep(0.02)
    if is_alive(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(name.pid, signal.SIGKILL)
    _reap(name.pid)


def stop(name: ProcessName, *, grace_s: float = 10.0) -> None:
    """End a process with its session and all that it started: SIGTERM, then SIGKILL. Returns when none is left."""
    members = family(name)
    stop_alone(name, grace_s=grace_s)
    for process in [*members, *family(name)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(members, timeout=5)
    _reap(name.pid)


def family(name: ProcessName) -> list[psutil.Process]:
    """Return a process with its descendants and everything else in the session that it leads."""
    found: dict[int, psutil.Process] = {}
    try:
        root = psutil.Process(name.pid)
        if not _is(root, name):
            # Somebody else's by now. The system gives no pid out again while it names a session: ours is gone.
            return []
        found = {process.pid: process for process in [root, *root.children(recursive=True)]}
    except psutil.NoSuchProcess:
        pass  # The leader has ended; others of its session may live.
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == name.pid and _started(process) >= name.started - 1.0:
                found[process.pid] = process
    found.pop(os.getpid(), None)
    return list(found.values())


def _is(process: psutil.Process, name: ProcessName) -> bool:
    # What an earlier headrace wrote holds the time of day.
    return any(abs(began - name.started) < 1.0 for began in (_started(process), process.create_time()))


def _started(process: psutil.Process) -> float:
    """Return when a process began; see `ProcessName`. Raises psutil.NoSuchProcess.

    The time of day, which psutil gives, is another whenever somebody sets the clock: Linux counts from the boot.
    """
    if sys.platform != "linux":
        return process.create_time()
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return _boot() * 1e8 + int(fields[19]) / os.sysconf("SC_CLK_TCK")


@functools.cache
def _boot() -> int:
    """Return a number that this boot of the machine has, and another one hardly."""
    with contextlib.suppress(OSError, ValueError):  # Some sandboxes have none.
        return int(Path("/proc/sys/kernel/random/boot_id").read_text()[:8], 16) % 1_000_000
    return 0


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
