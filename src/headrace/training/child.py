"""The first process of supervised work: holds the lock, starts the command, writes down how it ended.

Runs as a script on headrace's interpreter: `python -I child.py FOLDER`. It leads a session of its own
and outlives the headrace that started it, so that a restarted step finds the work and its result in FOLDER:

    work.json   command and working directory     lock    held while anything of the work lives
    pid.json    pid and start time of this child  log     all output
    exit.json   the exit code; negative is a signal. Written last.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.processes import name_of
from headrace.types import Json

LOCK_IS_HELD = 75
#: What a shell says of a command that it cannot start.
NOT_FOUND, NOT_STARTED = 127, 126
#: Who only looks holds a lock for a moment, and is not to be taken for its holder.
TRIES, TRY_AGAIN_S = 20, 0.01
GRACE_S = 5.0


def main() -> int:
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text())
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not take(lock):
        return LOCK_IS_HELD
    if (folder / "exit.json").exists():
        return 0
    write(folder / "pid.json", name_of(os.getpid()).as_json())
    began = time.monotonic()
    # The command inherits the lock: it stays held if this process is killed and the work goes on.
    try:
        child = subprocess.Popen(work["command"], cwd=work["cwd"], pass_fds=(lock,))
    except (OSError, ValueError) as error:
        print(f"{work['command'][0]} cannot be started: {error}", file=sys.stderr, flush=True)
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED
        write(folder / "exit.json", {"code": code, "seconds": 0.0})
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child.pid, signal.SIGKILL))
    signal.signal(signal.SIGTERM, lambda *_: _stop())
    code = child.wait()
    write(folder / "exit.json", {"code": code, "seconds": round(time.monotonic() - began, 3)})
    return 0


def take(lock: int) -> bool:
    """Take a lock until its file is closed; tell whether it could be had."""
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(TRY_AGAIN_S)
    return False


def _stop() -> None:
    """Pass SIGTERM on to everything in this group, and make sure of the command a little later."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    signal.setitimer(signal.ITIMER_REAL, GRACE_S)


def write(path: Path, document: Mapping[str, Json]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document))
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
