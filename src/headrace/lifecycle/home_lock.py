"""One worker for each run folder: on a laptop, whoever holds its lock may change what the home is made of."""

import fcntl
import os
from contextlib import suppress

from headrace.config.settings import Settings
from headrace.errors import Conflict
from headrace.processes import pids_with
from headrace.training.child import take


def is_taken(settings: Settings) -> bool:
    """Tell whether a worker holds the run folder's lock."""
    with suppress(FileNotFoundError), (settings.run / "control.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(settings: Settings) -> int | None:
    """Return the pid of who holds the run folder's lock, where this user may see it."""
    return next(iter(pids_with(settings.run / "control.lock")), None)


def take_lock(settings: Settings) -> int:
    """Hold the run folder's lock until the handle is closed or this process ends. Raises Conflict."""
    settings.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(settings.run / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if take(handle):
        return handle
    os.close(handle)
    raise Conflict(
        f"Another worker of {settings.home} runs here already (with the run folder {settings.run}).",
        "Use it, or `headrace down` first. A second one on this machine needs a HEADRACE_RUN of its own.",
    )
