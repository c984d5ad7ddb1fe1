"""Supervised work: a command in a session of its own that survives headrace's restart and never runs twice."""

import collections
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace import processes
from headrace.errors import Cancelled, Unavailable
from headrace.files import write_atomically
from headrace.processes import ProcessName

LOG = logging.getLogger(__name__)
CHILD = Path(__file__).with_name("child.py")
POLL_S = 0.1
GRACE_S = 6.0
END_S = 180.0
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work ended.

    Attributes:
        code: exit code; negative is the signal that killed it.
        last_lines: the end of its output.
    """

    code: int
    seconds: float
    log: Path
    last_lines: Sequence[str]

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        number = -self.code if self.code < 0 else self.code - 128 if self.code > 128 else 0
        try:
            name = signal.Signals(number).name if number else ""
        except ValueError:
            name = ""
        if name == "SIGKILL":
            return "was killed by SIGKILL; perhaps the machine ran out of memory"
        return f"was killed by {name}" if name else f"ended with exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Attendant:
    """Who watches the work.

    Attributes:
        is_cancelled: asked ten times a second; true stops the work.
        tell: gets each line of output as it appears.
    """

    is_cancelled: Callable[[], bool] = lambda: False
    tell: Callable[[str], None] = lambda _: None


def attend(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    folder: Path,
    attendant: Attendant,
    end: Sequence[str | Path] = (),
) -> Outcome:
    """Run a command to its end, or attach to the one that `folder` already knows, or return how that one ended.

    Args:
        end: a command that ends what the work has started outside its own processes: a container, say. It is run where
            the work is stopped, or has vanished without a result.

    Raises:
        Cancelled: the attendant said so; nothing of the work is left running.
        Unavailable: the folder cannot be written.
    """
    folder = folder.absolute()
    reader = _LogReader(folder / "log", attendant.tell)
    is_known = False
    try:
        while (ended := _ended(folder)) is None:
            if attendant.is_cancelled():
                raise Cancelled("The work was cancelled.")
            if _is_held(folder):
                is_known = True
            elif is_known:
                # It lived a moment ago; nothing of it is left. Only its last word may have come in between.
                ended = _ended(folder) or {"code": -signal.SIGKILL, "seconds": 0.0}
                _end_elsewhere(folder)
                break
            else:
                _start(folder, command, cwd, env, end)
                is_known = True
            reader.read()
            time.sleep(POLL_S)
    except BaseException as error:
        stop(folder)
        if isinstance(error, OSError):
            raise Unavailable(f"{folder} cannot be written: {error.strerror}.", "Make room on that disk.") from error
        raise
    return Outcome(int(ended["code"]), float(ended["seconds"]), folder / "log", reader.rest())


def stop(folder: Path) -> None:
    """End the work with everything that it started, and wait until none of it is left; no error where none runs."""
    name = _name(folder)
    if name is not None:
        processes.stop(name, grace_s=GRACE_S)
    _end_elsewhere(folder)


def _end_elsewhere(folder: Path) -> None:
    """End what the work has started outside its own processes."""
    try:
        end = json.loads((folder / "work.json").read_text()).get("end")
    except (FileNotFoundError, ValueError):
        return
    if not end:
        return
    try:
        done = subprocess.run(end, cwd=folder, capture_output=True, text=True, timeout=END_S, check=False)
        said = done.stdout.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        LOG.warning("%s: %s", folder, said)


def _start(
    folder: Path, command: Sequence[str | Path], cwd: Path, env: Mapping[str, str], end: Sequence[str | Path]
) -> None:
    """Start the work, also where an earlier start vanished without a result: at a reboot, say."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "pid.json").unlink(missing_ok=True)
    work = {"command": [str(part) for part in command], "cwd": str(cwd), "end": [str(part) for part in end]}
    write_atomically(folder / "work.json", json.dumps(work))
    process = processes.start_detached([sys.executable, "-I", CHILD, folder], env=env, cwd=folder, log=folder / "log")
    while processes.is_alive(process) and not (folder / "pid.json").exists():
        time.sleep(0.01)


def _ended(folder: Path) -> dict[str, float] | None:
    try:
        document: dict[str, float] = json.loads((folder / "exit.json").read_text())
        return document
    except FileNotFoundError:
        return None


def _is_held(folder: Path) -> bool:
    """Tell whether anything of the work lives: the lock is held by it and all that it started."""
    if not (folder / "lock").exists():
        return False
    handle = os.open(folder / "lock", os.O_RDWR)
    try:
        # Shared: of several that look at once none may take another for the work.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def _name(folder: Path) -> ProcessName | None:
    """Return the child's name, if it came so far as to write it."""
    try:
        written = json.loads((folder / "pid.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return ProcessName(int(written["pid"]), float(written["started"]))


class _LogReader:
    """Follows a growing log and hands out whole lines."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._offset, self._part = 0, ""
        self._last: collections.deque[str] = collections.deque(maxlen=200)

    def read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        self._offset += len(fresh)
        *lines, self._part = (self._part + fresh.decode(errors="replace")).split("\n")
        for line in lines:
            shown = line.rpartition("\r")[2].rstrip()
            self._last.append(shown)
            self._tell(shown)

    def rest(self) -> list[str]:
        """Read to the end and return the last lines that say something."""
        self.read()
        if self._part.strip():
            self._last.append(self._part.strip())
            self._part = ""
        return [line for line in self._last if line.strip()][-LAST_LINES:]
