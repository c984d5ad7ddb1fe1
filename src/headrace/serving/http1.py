"""HTTP/1.1: connections on a listening socket that the supervisor owns, and the requests that come in on them.

llhttp parses, by way of httptools, and uvloop reads and writes. A request goes to the application in the turn of the
loop in which its head came, mostly with its body; there is one thread, so that nothing waits for the interpreter.
"""

import asyncio
import errno
import http
import logging
import resource
import socket
import time
from collections import deque
from collections.abc import Coroutine
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools

from headrace.serving.exchange import BODY_S, Exchange
from headrace.serving.rejection import BAD_REQUEST, HEADERS_TOO_LARGE, SLOW, Rejected

log = logging.getLogger(__name__)
#: Connections that one front takes before it leaves others in the listener's backlog.
MOST_CONNECTIONS = 8192
#: Descriptors that are kept for workers, log and control.
OTHER_FILES = 64
HEAD_BYTES = 65_536
#: How much of a body may wait for whoever reads it before the sender has to wait.
AHEAD_BYTES = 262_144
#: What all large bodies of one front may have together until they are answered; one alone may have more.
HELD_BYTES = 512 * 1024 * 1024
#: How long a client may take to send a head; to take its answer; and to come with its next request.
HEAD_S, TAKE_S, IDLE_S = 10.0, 60.0, 75.0
#: How long a client may go on with what was answered already, or is refused.
LINGER_S = 5.0
#: How long idle connections are kept open when a front ends: what was sent before a client could know is answered.
LAST_S = 0.2
SWEEP_S = 1.0
#: How long no connection is taken where the system has no more descriptors or memory.
EXHAUSTED_S = 1.0
#: Names as clients write them, so that most need not be made lower.
COMMON = {
    spelt.encode(): name
    for name in (
        "host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type", "expect",
        "authorization", "traceparent", "x-request-id",
    )
    for spelt in (name, name.title())
}  # fmt: skip
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}


class Application(Protocol):
    """What answers requests."""

    def take(self, exchange: Exchange) -> None:
        """Begin on a request whose head is there; sooner or later it gets its answer."""
        ...


class Connection(asyncio.Protocol):
    """One connection: its requests, one after the other, and their answers in the same order."""

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        #: The head that is not there to its end, by its headers; and how many bytes came since it began.
        self._open_head: dict[str, str] | None = None
        self._head_bytes = 0
        #: The chunked request whose body is not there to its end; whether more of that came lately; and how many bytes
        #: since.
        self._open_body: Exchange | None = None
        self._has_chunks = self._has_more = False
        self._other_bytes = 0
        #: The request that the application has; those behind it; and the one whose body is still coming.
        self._current: Exchange | None = None
        self._behind: deque[Exchange] = deque()
        self._incoming: Exchange | None = None
        self._is_broken = self._is_reading_paused = self._is_second_head = False
        self._since = time.monotonic()
        self._stuck_since = self._lingers_since = self._closing_since = 0.0
        self._held = 0

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        current = self._current
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._parse_on(data, error)
        if self._url:
            self._wait_for_head(len(data))
        if current is not None and current is self._current:
            current.look()
        if self._behind:
            self._advance()
            if self._behind:
                self._pause()
        if self._incoming is not None:
            if self._has_chunks:
                self._wait_for_chunks(self._incoming, len(data))
            if self._incoming is not None and self._incoming.buffered > AHEAD_BYTES:
                self._pause()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_broken = True
        self._let_go()
        self._listener.forget(self)
        exchange, self._current = self._current, None
        self._behind.clear()
        self._incoming = self._open_body = None
        if exchange is not None:
            exchange.lose()

    def pause_writing(self) -> None:
        self._stuck_since = time.monotonic()
        self._pause()

    def resume_writing(self) -> None:
        self._stuck_since = 0.0
        self._advance()

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[COMMON.get(name) or name.decode("latin-1").lower()] = value.decode("latin-1").rstrip(" \t")

    def on_headers_complete(self) -> None:
        url, headers = self._url, self._headers
        self._url, self._headers = b"", {}
        if self._is_second_head:
            self._is_second_head = False
            return
        self._incoming = Exchange(self, self._parser.get_method().decode("latin-1"), _path(url), headers)
        self._behind.append(self._incoming)

    def on_body(self, piece: bytes) -> None:
        incoming = self._incoming
        if incoming is not None:
            self._has_more = True
            incoming.feed(piece)

    def on_chunk_header(self) -> None:
        self._has_chunks = True

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if exchange is None:
            return
        self._headers.clear()  # Of what stood behind a chunked body.
        if "upgrade" in exchange.headers and self._parser.should_upgrade() and _framing(exchange.headers):
            return  # Its body is still to come.
        exchange.is_whole, exchange.stays = True, self._parser.should_keep_alive()
        self._incoming = None

    def _parse_on(self, data: bytes, error: Exception | None) -> None:
        while isinstance(error, httptools.HttpParserUpgrade):
            data, error = self._without_upgrade(data[error.args[0] :]), None
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError) as another:
                error = another
        if error is not None:
            self._break(Rejected(BAD_REQUEST, "This is not HTTP/1.1."))

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Return what is behind a head that offers another protocol, which the parser took to have no body.

        A head of its own goes before the body, for a new parser.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._incoming is None:
            return rest
        self._is_second_head = True
        return f"POST / HTTP/1.1\r\n{_framing(self._incoming.headers)}\r\n\r\n".encode("latin-1") + rest

    # What the application calls, by way of the request

    def go_on(self) -> None:
        """Tell a client that asked whether to send its body."""
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def resume(self) -> None:
        """Read on."""
        if self._is_reading_paused and not self._stuck_since and not self._behind and not self._transport.is_closing():
            self._is_reading_paused = False
            self._transport.resume_reading()

    def hold(self, more: int) -> bool:
        """See `exchange.Sender`."""
        others = self._listener.held - self._held
        if others and others + self._held + more > HELD_BYTES:
            return False
        self._held += more
        self._listener.held += more
        return True

    def respond(self, exchange: Exchange, status: int, headers: str, body: bytes) -> None:
        """Send the answer to the request that is under way; what is for another has nobody to hear it."""
        if exchange is not self._current:
            return
        self._current = None
        if self._held:
            self._let_go()
        stays = exchange.is_whole and exchange.stays and (not self._listener.is_ending or bool(self._behind))
        if not stays:
            headers += "connection: close\r\n"
        elif "connection" in exchange.headers and exchange.headers["connection"].lower() == "keep-alive":
            headers += "connection: keep-alive\r\n"  # HTTP/1.0 asks for it, and wants to hear it.
        fixed = f"content-length: {len(body)}\r\ndate: {self._listener.date}\r\n\r\n"
        head = f"{STATUS_LINES[status]}{headers}{fixed}".encode("latin-1")
        self._transport.write(head + body if exchange.method != "HEAD" else head)
        if not stays:
            self._hang_up(is_all_read=exchange.is_whole)
        elif self._behind:
            asyncio.get_running_loop().call_soon(self._advance)
        else:
            self._since = time.monotonic()
            if self._is_reading_paused:
                self.resume()

    # Its own

    def _let_go(self) -> None:
        self._listener.held -= self._held
        self._held = 0

    def _hang_up(self, *, is_all_read: bool) -> None:
        """Close; where the client still sends, only once it has seen the answer, which its kernel would drop."""
        self._is_broken = True
        if is_all_read:
            self._transport.close()
            return
        self._lingers_since = time.monotonic()
        self._transport.write_eof()
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._transport.resume_reading()

    def _wait_for_head(self, more: int) -> None:
        """Take note of a head that is not there to its end, after `more` bytes; those it began in are not counted."""
        if self._open_head is self._headers:
            self._head_bytes += more
        else:
            self._open_head, self._head_bytes, self._since = self._headers, 0, time.monotonic()
        if self._head_bytes > HEAD_BYTES:
            self._break(Rejected(HEADERS_TOO_LARGE, f"The headers have more than {HEAD_BYTES} bytes."))

    def _wait_for_chunks(self, incoming: Exchange, more: int) -> None:
        """Take note of a chunked body that is not there to its end, after `more` bytes.

        What brings none of it for long is fields behind the last chunk, of which the parser keeps all.
        """
        if self._has_more or self._open_body is not incoming:
            self._open_body, self._has_more, self._other_bytes = incoming, False, 0
        else:
            self._other_bytes += more
        if self._other_bytes > HEAD_BYTES:
            self._break(Rejected(HEADERS_TOO_LARGE, f"The fields behind the body have more than {HEAD_BYTES} bytes."))

    def _advance(self) -> None:
        """Hand the next request over, once the one before has its answer."""
        if self._current is None and self._behind and not self._stuck_since:
            self._current = self._behind.popleft()
            self._listener.app.take(self._current)
        if self._is_reading_paused:
            self.resume()

    def _pause(self) -> None:
        if not self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def _break(self, rejected: Rejected) -> None:
        """Answer what cannot be understood, behind everything that could, and hang up."""
        if self._is_broken:
            return
        self._is_broken, self._url = True, b""
        exchange, self._incoming = self._incoming, None
        if exchange is None:
            exchange = Exchange(self, "GET", "*", {})
            self._behind.append(exchange)
        exchange.fail(rejected)

    def sweep(self, now: float) -> None:
        """Give up on a client that takes too long."""
        current = self._current
        if self._lingers_since or self._stuck_since or self._transport.is_closing():
            self._wait_for_taker(now)
        elif current is not None:
            if not current.is_whole and now - current.start > BODY_S:
                current.fail(Rejected(SLOW, f"The body did not come within {BODY_S:g} s."))
        elif self._url:
            if now - self._since > HEAD_S:
                self._break(Rejected(SLOW, f"The headers did not come within {HEAD_S:g} s."))
                self._advance()
        elif now - self._since > IDLE_S:
            self._transport.close()

    def _wait_for_taker(self, now: float) -> None:
        """Give up on a client that does not take what was written, or does not see that it was the last."""
        if self._lingers_since:
            since, most_s = self._lingers_since, LINGER_S
        else:
            # A transport that closes still waits for the rest of what was written to be taken.
            self._closing_since = self._closing_since or (now if self._transport.is_closing() else 0.0)
            since, most_s = self._stuck_since or self._closing_since, TAKE_S
        if now - since > most_s:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Hang up where nothing is under way."""
        if self._current is None and not self._behind and not self._url:
            self._transport.close()


class Listener:
    """Takes connections from a listening socket, which other fronts may share.

    Attributes:
        date: as answers give it; renewed each second.
        is_ending: the next answer on each connection is its last.
        held: bytes of large bodies whose requests are under way.
    """

    def __init__(self, app: Application, listening: socket.socket) -> None:
        self.app = app
        self.connections: set[Connection] = set()
        self.date = formatdate(usegmt=True)
        self.held = 0
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(1, min(MOST_CONNECTIONS, files - OTHER_FILES))
        self._is_taking = self.is_ending = False
        self._opening: set[asyncio.Task[Any]] = set()
        self._all_gone = asyncio.Event()
        self._sweeping: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take connections from now on."""
        self._sweep()
        self._take()

    async def stop(self, most_s: float) -> None:
        """Take none any more, answer what is under way, and hang up; what takes longer than `most_s` is cut off."""
        self.is_ending = True
        self._take_no_more()
        await asyncio.sleep(LAST_S)
        for connection in [*self.connections]:
            connection.close_if_idle()
        if self.connections:
            self._all_gone.clear()
            try:
                await asyncio.wait_for(self._all_gone.wait(), most_s)
            except TimeoutError:
                log.warning("%s connections were cut off.", len(self.connections))
        if self._sweeping is not None:
            self._sweeping.cancel()

    def forget(self, connection: Connection) -> None:
        """A connection is no more."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_gone.set()
        self._take()

    def _take(self) -> None:
        if not self._is_taking and not self.is_ending and len(self.connections) < self._most:
            self._is_taking = True
            self._loop.add_reader(self._listening, self._accept)

    def _take_no_more(self) -> None:
        if self._is_taking:
            self._is_taking = False
            self._loop.remove_reader(self._listening)

    def _accept(self) -> None:
        """Take one connection; others are left to the next turn, or to a front that has less to do."""
        try:
            taken, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # Another front was quicker, or the client has gone.
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            log.warning("No connection can be taken at the moment: %s.", error.strerror)
            self._take_no_more()
            self._loop.call_later(EXHAUSTED_S, self._take)
            return
        taken.setblocking(False)
        self._go(self._loop.connect_accepted_socket(partial(Connection, self), taken))
        if len(self.connections) + len(self._opening) >= self._most:
            self._take_no_more()

    def _go(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _sweep(self) -> None:
        self.date = formatdate(usegmt=True)
        now = time.monotonic()
        for connection in [*self.connections]:
            connection.sweep(now)
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)


@lru_cache(64)
def _path(target: bytes) -> str:
    """Return the path that a request line names. Raises httptools.HttpParserInvalidURLError."""
    if target[:1] == b"/" and b"?" not in target and b"%" not in target and b"#" not in target:
        return target.decode("latin-1")
    if target in (b"", b"*"):
        return "*"
    return unquote((httptools.parse_url(target).path or b"/").decode("latin-1"))


def _framing(headers: dict[str, str]) -> str:
    """Return the header line that says where a body ends; empty where there is no body."""
    if "transfer-encoding" in headers:
        return f"transfer-encoding: {headers['transfer-encoding']}"
    length = headers.get("content-length", "0")
    return f"content-length: {length}" if length != "0" else ""
