"""The first process in a training's container: hears what to do, does it in a copy of the project, says how it ended.

Needs the standard library alone, and no headrace: it runs with the image's own Python. What it is to do comes over a
socket, so that credentials stand in no `docker inspect`. All output goes to a file that is mounted, so none is lost
when the engine restarts. The way to an MLflow server on the machine's loopback is a second socket.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

SOCKETS = "/run/headrace"
WORK = "/work"
LOG = "/work.log"
TOLD_WITHIN_S = 600.0
GRACE_S = 4.0
PIECE = 1 << 16


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    told = errand()
    if told["port"]:
        listener = socket.create_server(("127.0.0.1", told["port"]))
        threading.Thread(target=forward, args=(listener,), daemon=True).start()
    project = os.path.join(WORK, "project")
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(told["project"], project, symlinks=True)
    for name in ("home", "tmp"):
        os.makedirs(os.path.join(WORK, name), exist_ok=True)
    places = {"HOME": os.path.join(WORK, "home"), "TMPDIR": os.path.join(WORK, "tmp")}
    environment = {**os.environ, **places, **told["variables"]}
    command = ["/bin/sh", "-c", told["command"]]
    child = subprocess.Popen(command, cwd=project, env=environment, start_new_session=True)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child.pid, signal.SIGKILL))
    signal.signal(signal.SIGTERM, lambda *_: end(child))
    code = child.wait()
    with open(os.path.join(WORK, "exit.tmp"), "w") as file:
        json.dump({"code": code}, file)
    os.replace(os.path.join(WORK, "exit.tmp"), os.path.join(WORK, "exit.json"))
    return code if code >= 0 else 128 - code


def errand() -> dict[str, Any]:
    """Return what is to be done; whoever tells it may be away for a moment."""
    deadline = time.monotonic() + TOLD_WITHIN_S
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(os.path.join(SOCKETS, "control.sock"))
                with control.makefile("rb") as stream:
                    told: dict[str, Any] = json.loads(stream.readline())
                    return told
        except (OSError, ValueError):
            if time.monotonic() > deadline:
                sys.exit("nobody told this container what to do")
            time.sleep(0.1)


def end(child: subprocess.Popen[bytes]) -> None:
    """Pass the signal on to all of the training, and make sure of it a little later."""
    os.killpg(child.pid, signal.SIGTERM)
    signal.setitimer(signal.ITIMER_REAL, GRACE_S)


def forward(listener: socket.socket) -> None:
    """Carry each connection to the MLflow server's port over the mounted socket."""
    while True:
        here, _ = listener.accept()
        there = socket.socket(socket.AF_UNIX)
        try:
            there.connect(os.path.join(SOCKETS, "tracking.sock"))
        except OSError:
            here.close()  # MLflow's client tries again.
            continue
        for source, target in ((here, there), (there, here)):
            threading.Thread(target=pump, args=(source, target), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until there are no more."""
    try:
        while True:
            piece = source.recv(PIECE)
            if not piece:
                break
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


if __name__ == "__main__":
    sys.exit(main())
