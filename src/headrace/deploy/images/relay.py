"""Carries an endpoint's sockets to a worker on another machine, over the standard streams of its container.

Both ends run this: the launcher beside the endpoint, and the container's first process. A frame is channel, length,
kind and bytes. Channel 0 is the worker's control socket; the endpoint's end opens one more for each connection of a
front. Needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

FRAME = struct.Struct("<IIB")
OPEN, BYTES, CLOSE = range(3)
CONTROL = 0
PIECE = 1 << 18


class Relay:
    """One end."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, dial: Callable[[], socket.socket] | None = None) -> None:
        """Args: dial: gives the connection for a channel that the other end opens."""
        self._incoming, self._outgoing, self._dial = incoming, outgoing, dial
        self._connections: dict[int, socket.socket] = {}
        self._writing = threading.Lock()

    def send(self, channel: int, kind: int, content: bytes = b"") -> None:
        """Write a frame. Raises OSError where the other end is gone."""
        with self._writing:
            self._outgoing.write(FRAME.pack(channel, len(content), kind) + content)
            self._outgoing.flush()

    def add(self, channel: int, connection: socket.socket) -> None:
        """Carry what a connection says from now on."""
        self._connections[channel] = connection
        self._carry(channel, connection)

    def open(self, channel: int, connection: socket.socket) -> None:
        """Open a channel for a connection. Raises OSError where the other end is gone."""
        self._connections[channel] = connection  # First: the other end may close it at once.
        self.send(channel, OPEN)
        self._carry(channel, connection)

    def _carry(self, channel: int, connection: socket.socket) -> None:
        threading.Thread(target=self._pump, args=(channel, connection), daemon=True).start()

    def run(self) -> None:
        """Hand out what the other end says, until it is gone or closes the control channel."""
        while head := self._incoming.read(FRAME.size):
            if len(head) < FRAME.size:
                return
            channel, size, kind = FRAME.unpack(head)
            content = self._incoming.read(size)
            if kind == CLOSE:
                self._close(channel)
                if channel == CONTROL:
                    return
            elif kind == OPEN and self._dial is not None:
                self._open(channel, self._dial)
            else:
                with contextlib.suppress(OSError, KeyError):
                    self._connections[channel].sendall(content)

    def _open(self, channel: int, dial: Callable[[], socket.socket]) -> None:
        try:
            self.add(channel, dial())
        except OSError:
            self.send(channel, CLOSE)

    def _pump(self, channel: int, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(PIECE):
                    self.send(channel, BYTES, piece)
            self.send(channel, CLOSE)

    def _close(self, channel: int) -> None:
        connection = self._connections.pop(channel, None)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def main() -> int:
    """Be the worker's parent in its container, and end as it does."""
    worker = sys.argv[1:]
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What the worker prints goes into its log.
    channel, size, kind = FRAME.unpack(incoming.read(FRAME.size))
    assert (channel, kind) == (CONTROL, BYTES)
    variables: dict[str, str] = json.loads(incoming.read(size))
    ours, theirs = socket.socketpair()
    address = os.path.join("/tmp", "worker.sock")  # noqa: S108 - the container's own

    def dial() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection

    fd = str(theirs.fileno())
    command = [*worker, "--control-fd", fd, "--parent", str(os.getpid()), "--listen", address]
    child = subprocess.Popen(
        command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
    )
    theirs.close()
    relay = Relay(incoming, outgoing, dial)
    relay.add(CONTROL, ours)
    threading.Thread(target=_serve, args=(relay, ours), daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _serve(relay: Relay, control: socket.socket) -> None:
    relay.run()
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)  # The worker ends with it.


if __name__ == "__main__":
    sys.exit(main())
