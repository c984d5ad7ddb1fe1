"""One worker for each run folder: on a laptop, whoever holds its lock may change what the home is made of."""

import fcntl
import os
import time
from contextlib import suppress

from headrace.config.settings import Settings
from headrace.errors import Conflict

#: Who only looks holds the lock for a moment, and is not to be taken for a worker.
TRIES, TRY_AGAIN_S = 20, 0.01


def is_taken(settings: Settings) -> bool:
    """Tell whether a worker holds the run folder's lock."""
    with suppress(FileNotFoundError), (settings.run / "control.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def take_lock(settings: Settings) -> int:
    """Hold the run folder's lock until the handle is closed or this process ends. Raises Conflict."""
    settings.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(settings.run / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            time.sleep(TRY_AGAIN_S)
    os.close(handle)
    raise Conflict(
        f"Another worker of {settings.home} runs here already (with the run folder {settings.run}).",
        "Use it, or `headrace down` first. A second one on this machine needs a HEADRACE_RUN of its own.",
    )
