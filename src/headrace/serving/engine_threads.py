"""When the HTTP engine's threads may push the application's thread off its core: not while many requests are inside.

Each request takes the engine's threads through the interpreter's lock, which the main thread holds while it works.
Woken by the network they would interrupt it only to wait for it, and whatever it then sends comes in smaller batches.
Linux does not let a thread of `SCHED_BATCH` interrupt others; where a core is free it runs at once all the same.
"""

import asyncio
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

#: So many requests at once make a front busy. With fewer, a client waits for each step of its own request.
BUSY = 24
LOOK_S = 0.1


class Load(Protocol):
    """What an application counts.

    Attributes:
        active: how many requests are inside.
        peak: the most at once since it was last set back.
    """

    active: int
    peak: int


async def pace(load: Load) -> None:
    """Have the engine's threads give way while the application is busy; runs until it is cancelled."""
    is_busy = False
    while True:
        await asyncio.sleep(LOOK_S)
        peak, load.peak = load.peak, load.active
        if (peak >= BUSY) != is_busy:
            is_busy = not is_busy
            give_way(is_patient=is_busy)


def give_way(*, is_patient: bool) -> None:
    """Schedule the threads that Python did not start as a batch, or as all others again."""
    # Who runs this process under a policy of their own keeps it; other systems have no such policy.
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    policy = os.SCHED_BATCH if is_patient else os.SCHED_OTHER
    for thread in foreign_threads():
        with suppress(OSError):  # It has ended, or a sandbox forbids it: then all stays as it is.
            os.sched_setscheduler(thread, policy, os.sched_param(0))


def foreign_threads() -> list[int]:
    """Return the system's numbers of this process's threads that Python did not start (Linux)."""
    known = {thread.native_id for thread in threading.enumerate()}
    return [
        number for number in (int(entry.name) for entry in Path("/proc/self/task").iterdir()) if number not in known
    ]
