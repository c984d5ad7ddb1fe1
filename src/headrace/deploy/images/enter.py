"""What a serve image starts with. Needs the standard library alone, and the files beside it in the image.

verify   compare the model with its seal
health   ask the server in this container how it is
worker   be the worker of an endpoint outside: connect to its control socket, take variables from there, and serve
relay    the same, with everything carried over the standard streams: the endpoint is on another machine
serve    be a whole endpoint on port 8080
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
WORKER = os.path.join(HERE, "worker_child.py")
VERSION = "/opt/version"
#: Where the `docker` target mounts the folder with the endpoint's sockets.
SOCKETS = "/run/headrace"
PORT = 8080


def about() -> dict[str, str]:
    with open(os.path.join(VERSION, "version.json")) as file:
        found: dict[str, str] = json.load(file)
    return found


def verify() -> None:
    """Exit with a sentence where the model is not the sealed one."""
    wanted = about()
    found = runpy.run_path(WORKER)["folder_digest"](os.path.join(VERSION, "model"))
    if found != wanted["seal"]:
        sys.exit(f"the model in this image has the digest {found[:12]}, the sealed one is {wanted['seal'][:12]}")


def health() -> None:
    """Exit with 1 where the server does not serve."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=4) as answer:
            sys.exit(0 if answer.status == 200 else 1)
    except OSError as error:
        sys.exit(f"no answer: {error}")


def worker(arguments: list[str]) -> None:
    """Become the worker child, with the endpoint's control socket as its own."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.path.join(SOCKETS, "control.sock"))
    # Variables come this way so that secrets stand in no `docker inspect`.
    length = int.from_bytes(_exactly(control, 4), "little")
    os.environ.update(json.loads(_exactly(control, length)))
    os.set_inheritable(control.fileno(), True)
    own = ["--control-fd", str(control.fileno()), "--parent", str(os.getppid())]
    own += ["--model", os.path.join(VERSION, "model")]
    python = [sys.executable, "-I", "-u", WORKER]
    os.execv(sys.executable, [*python, *own, *arguments])  # noqa: S606 - itself, in the same environment


def relay(arguments: list[str]) -> None:
    """Become the worker's parent, which speaks to the endpoint over the standard streams."""
    worker = [sys.executable, "-I", "-u", WORKER, "--model", os.path.join(VERSION, "model"), *arguments]
    command = [sys.executable, "-I", os.path.join(HERE, "relay.py"), *worker]
    os.execv(sys.executable, command)  # noqa: S606 - itself, in the same environment


def serve() -> None:
    """Become headrace's server, in headrace's own environment."""
    python = os.path.join(HERE, "bin", "python")
    command = [python, "-I", "-m", "headrace.deploy.images.standalone", VERSION, str(PORT)]
    os.execv(python, command)  # noqa: S606 - headrace's own interpreter


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            sys.exit("the endpoint closed its socket before the worker began")
        found += piece
    return found


if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else "serve"
    if verb in ("worker", "relay"):
        {"worker": worker, "relay": relay}[verb](sys.argv[2:])
    else:
        {"verify": verify, "health": health, "serve": serve}[verb]()
