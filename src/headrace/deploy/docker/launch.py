"""Starts one worker in a container: the stand-in for a version's interpreter where the `docker` target deploys.

An endpoint's supervisor starts a worker with the version's `python`, and speaks to it over an inherited socket. This
file is that python. It starts a container of the version's serve image, hands the worker in there its variables, and
carries the socket's bytes to and fro. Batches do not come through here: fronts connect to the worker's own socket, in a
folder that is mounted into the container. The container has no network.

Where the engine is on another machine, no folder can be shared with the container. All sockets, those of the fronts
too, are then carried over its standard streams (`images/relay.py`, at both ends), which docker carries there by SSH.

It needs the standard library alone. When the container or the endpoint ends, it ends; when it is killed, its sockets
close, the worker in the container ends, and the endpoint's next launcher removes the container.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

RELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "images", "relay.py")
INSIDE = "/run/headrace"
STARTS_WITHIN_S = 120
PIECE = 1 << 20


def main() -> None:
    """Run one worker to its end, and end as it did."""
    with open(sys.argv[1]) as file:
        plan: dict[str, Any] = json.load(file)
    options, worker = parsed(sys.argv[2:])
    control = socket.socket(fileno=options.control_fd)
    die_with_parent(options.parent)
    variables = {name: os.environ[name] for name in plan["variables"] if name in os.environ}
    if plan.get("far"):  # Plans of earlier versions lack it.
        end_as(far_away(plan, worker, control, options.listen, variables))
    folder = tempfile.mkdtemp(prefix=plan["sockets"], dir="/tmp")  # Socket paths must be short.
    container = None
    try:
        listener = listening(folder, int(plan["user"].split(":")[0]))
        if options.listen:
            worker += ["--listen", f"{INSIDE}/worker.sock"]
            link(os.path.join(folder, "worker.sock"), options.listen)
        container = Container(plan, folder, worker)
        inner = container.connection(listener)
        content = json.dumps(variables).encode()
        inner.sendall(len(content).to_bytes(4, "little") + content)
        carry(control, inner)
    finally:
        code = container.end() if container else 1
        shutil.rmtree(folder, ignore_errors=True)
        if options.listen and os.path.islink(options.listen):
            os.unlink(options.listen)
    end_as(code)


def far_away(
    plan: dict[str, Any], worker: list[str], control: socket.socket, address: str, variables: dict[str, str]
) -> int:
    """Run the worker on the engine's own machine, and return its exit code."""
    name = f"{plan['sockets']}{os.getpid()}-{os.urandom(3).hex()}"
    command = [
        *plan["docker"], "run", "--interactive", "--rm", "--name", name, "--read-only", "--tmpfs", "/tmp",  # noqa: S108
        "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", plan["user"],
        *plan["options"], plan["image"], "relay", *worker,
    ]  # fmt: skip
    container = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert container.stdin is not None
    assert container.stdout is not None
    relayed = runpy.run_path(RELAY)
    relay = relayed["Relay"](container.stdout, container.stdin)
    listener = listening_for_fronts(relay, address) if address else None
    try:
        relay.send(relayed["CONTROL"], relayed["BYTES"], json.dumps(variables).encode())
        relay.add(relayed["CONTROL"], control)
        relay.run()
        container.stdin.close()
        return container.wait(30)
    except (OSError, subprocess.TimeoutExpired):
        return 1
    finally:
        if listener is not None:
            listener.close()
            os.unlink(address)
        if container.poll() is None:
            subprocess.run([*plan["docker"], "rm", "--force", name], capture_output=True, timeout=60, check=False)
            container.kill()


def listening_for_fronts(relay: Any, address: str) -> socket.socket:
    """Listen where the endpoint's fronts look for the worker, and open a channel for each that comes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)

    def accept() -> None:
        with contextlib.suppress(OSError):
            for channel in itertools.count(1):
                connection, _ = listener.accept()
                relay.open(channel, connection)

    threading.Thread(target=accept, daemon=True).start()
    return listener


def listening(folder: str, owner: int) -> socket.socket:
    """Return the socket that the worker connects to, in a folder that only the container's user may enter."""
    path = os.path.join(folder, "control.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    if os.getuid() == 0:
        os.chown(folder, owner, -1)
        os.chown(path, owner, -1)
    return listener


def parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what concerns the launcher, and the options that go on to the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-I", action="store_true")
    parser.add_argument("-u", action="store_true")
    parser.add_argument("-X")
    parser.add_argument("child")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--model")
    parser.add_argument("--listen", default="")
    parser.add_argument("--seal", default="")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--pt2", default="")
    # The engine holds the container to its limits.
    parser.add_argument("--memory")
    parser.add_argument("--cores")
    options = parser.parse_args(arguments)
    worker = ["--seal", options.seal, "--threads", options.threads]
    return options, worker + (["--pt2", options.pt2] if options.pt2 else [])


class Container:
    """One started container."""

    def __init__(self, plan: dict[str, Any], folder: str, worker: list[str]) -> None:
        """Start it; on a failure say why, for the worker's log, and end."""
        self.docker: list[str] = plan["docker"]
        self.image: str = plan["image"]
        user = plan["user"] if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
        if plan.get("endpoint"):
            self._clear_away(plan["endpoint"])
        # Without `--rm`: an engine that keeps its containers over a restart removes those with it all the same.
        command = [
            *self.docker, "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--network", "none",  # noqa: S108
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", user,
            "--mount", f"type=bind,src={folder},dst={INSIDE}", *plan["options"], self.image, "worker", *worker,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=STARTS_WITHIN_S, check=False)
        if done.returncode != 0:
            sys.exit(f"the container of {self.image} cannot be started: {done.stderr.strip()}")
        self.id = done.stdout.strip()
        self.waiting = subprocess.Popen([*self.docker, "wait", self.id], stdout=subprocess.PIPE, text=True)
        # Its output goes where this process's goes: into the worker's log.
        self.telling = subprocess.Popen([*self.docker, "logs", "--follow", self.id])

    def _clear_away(self, label: str) -> None:
        """Remove the ended containers of launchers that were killed, and could not do it themselves."""
        ended = ["ps", "--all", "--quiet", "--filter", f"label={label}", "--filter", "status=exited"]
        found = subprocess.run([*self.docker, *ended], capture_output=True, text=True, timeout=60, check=False)
        for container in found.stdout.split():
            subprocess.run([*self.docker, "rm", container], capture_output=True, timeout=60, check=False)

    def connection(self, listener: socket.socket) -> socket.socket:
        """Return the worker's connection; a container that ends before it connects ends the wait."""

        def wake() -> None:
            self.waiting.wait()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=wake, daemon=True).start()
        try:
            return listener.accept()[0]
        except OSError:
            sys.exit(f"the container of {self.image} ended before its worker began")

    def end(self) -> int:
        """Have the container end, and return its worker's exit code."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([*self.docker, "stop", "--time", "5", self.id], capture_output=True, timeout=60, check=False)
            told, _ = self.waiting.communicate(timeout=60)
            self.telling.wait(timeout=60)
            subprocess.run([*self.docker, "rm", "--force", self.id], capture_output=True, timeout=60, check=False)
            return int(told.strip()) if told.strip().isdigit() else 1
        return 1


def carry(control: socket.socket, inner: socket.socket) -> None:
    """Pass bytes both ways until one side closes."""
    peers = {control: inner, inner: control}
    selector = selectors.DefaultSelector()
    for one in peers:
        selector.register(one, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            source: Any = key.fileobj
            try:
                piece = source.recv(PIECE)
                if piece:
                    peers[source].sendall(piece)
            except ConnectionError:
                piece = b""
            if not piece:
                inner.close()
                return


def end_as(code: int) -> None:
    """End as the worker did: by its signal where it was a signal, so that the endpoint can tell."""
    if code > 128:
        with contextlib.suppress(ValueError, OSError):
            number = signal.Signals(code - 128)
            signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
            os.kill(os.getpid(), number)
    os._exit(code)


def link(target: str, address: str) -> None:
    """Let fronts reach the worker's socket under the address that the endpoint knows."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    os.symlink(target, address)


def die_with_parent(parent: int) -> None:
    """Be told when the endpoint's supervisor dies; the container ends with the closed sockets in any case."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        sys.exit(143)


if __name__ == "__main__":
    main()
