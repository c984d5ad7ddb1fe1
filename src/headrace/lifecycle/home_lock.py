"""One control process for each home: whoever holds the lock may change what the home is made of."""

import fcntl
import os

from headrace.config.settings import Settings
from headrace.errors import Conflict


def take_lock(settings: Settings) -> int:
    """Hold the home's lock until the handle is closed or this process ends. Raises Conflict."""
    settings.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(settings.run / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Conflict(
            f"Another control process runs for {settings.home}.", "Use it, or `headrace down` first."
        ) from error
    return handle
