"""Sockets that are carried over two streams, as between an endpoint and an engine on another machine."""

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from headrace.deploy.images.relay import CONTROL, Relay


class Ends:
    """Both ends, joined by pipes; `served` are the far ends of the channels that were opened."""

    def __init__(self) -> None:
        (there_in, here_out), (here_in, there_out) = os.pipe(), os.pipe()
        self.served: list[socket.socket] = []
        self.refuses = False
        self.here = Relay(os.fdopen(here_in, "rb"), os.fdopen(here_out, "wb"))
        self.there = Relay(os.fdopen(there_in, "rb"), os.fdopen(there_out, "wb"), self._dial)
        self.threads = [threading.Thread(target=one.run, daemon=True) for one in (self.here, self.there)]
        for thread in self.threads:
            thread.start()

    def _dial(self) -> socket.socket:
        if self.refuses:
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        self.served.append(ours)
        return theirs

    def connect(self, channel: int) -> socket.socket:
        """Return what a front has in its hands."""
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        self.here.open(channel, theirs)
        return ours


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.here.send(CONTROL, 2)
    made.there.send(CONTROL, 2)
    for thread in made.threads:
        thread.join(30)


def received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += connection.recv(size - len(found))
    return found


def test_each_connection_has_its_own_peer_and_large_messages_arrive_whole(ends: Ends) -> None:
    first, second = ends.connect(1), ends.connect(2)
    message = os.urandom(3_000_000)
    threading.Thread(target=first.sendall, args=(message,), daemon=True).start()
    second.sendall(b"short")
    while len(ends.served) < 2:
        time.sleep(0.001)
    one, other = ends.served
    assert received(one, len(message)) == message
    assert received(other, 5) == b"short"
    other.sendall(b"answer")
    assert received(second, 6) == b"answer"


def test_a_closed_connection_is_closed_at_the_other_end(ends: Ends) -> None:
    first = ends.connect(1)
    first.sendall(b"x")
    while not ends.served:
        time.sleep(0.001)
    assert received(ends.served[0], 1) == b"x"
    first.close()
    assert ends.served[0].recv(1) == b""


def test_a_worker_that_does_not_listen_is_a_closed_connection(ends: Ends) -> None:
    ends.refuses = True
    assert ends.connect(1).recv(1) == b""
