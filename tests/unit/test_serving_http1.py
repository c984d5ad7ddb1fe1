"""Connections: what clients may do with HTTP/1.1, and what they may not."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from headrace.serving import http1
from headrace.serving.exchange import Exchange
from headrace.serving.http1 import Connection, Listener
from headrace.serving.rejection import Rejected


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LAST_S", 0.01)
    monkeypatch.setattr(http1, "SWEEP_S", 0.05)


class Echo:
    """Answers with method, path and body; `held` answers are given when they are let go."""

    def __init__(self) -> None:
        self.taken: list[Exchange] = []
        self.held: list[Exchange] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, exchange: Exchange) -> None:
        self.taken.append(exchange)
        if exchange.problem is not None:
            assert isinstance(exchange.problem, Rejected)
            exchange.reject(exchange.problem)
        elif exchange.path == "/held":
            self.held.append(exchange)
        elif exchange.path == "/unread":
            exchange.answer(401, "", b"who?")
        else:
            task = asyncio.ensure_future(self._answer(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            body = await exchange.body(10_000_000)
        except Rejected as rejected:
            exchange.reject(rejected)
            return
        exchange.answer(200, "", f"{exchange.method} {exchange.path} ".encode() + body)


class Client:
    """A socket that reads answers one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def answer(self, *, is_head: bool = False) -> tuple[int, bytes, bytes]:
        """Return status, head and body of the next answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)
        found = re.search(rb"content-length: (\d+)", head)
        length = int(found[1]) if found and not is_head else 0
        return int(head[9:12]), head, await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        """Wait until the server hangs up."""
        return await asyncio.wait_for(self.reader.read(), 60) == b""


class House:
    """A listener on loopback with an application."""

    def __init__(self) -> None:
        self.app = Echo()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.listener = Listener(self.app, self.socket)
        self.listener.start()

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection(*self.socket.getsockname()))

    async def until(self, is_so: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not is_so():
                await asyncio.sleep(0.005)

    @property
    def connection(self) -> Connection:
        [connection] = self.listener.connections
        return connection


def run(story: Callable[[House], Awaitable[None]]) -> None:
    async def whole() -> None:
        house = House()
        try:
            await asyncio.wait_for(story(house), 120)
        finally:
            await house.listener.stop(0.1)
            house.socket.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def test_requests_that_come_together_are_answered_in_their_order() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(post("/held"), *(post(f"/{number}", b"x") for number in range(300)), post("/unread"))
        await house.until(lambda: house.app.held)
        assert len(house.app.taken) == 1, "one after the other"
        house.app.held[0].answer(200, "", b"first")
        assert (await client.answer())[2] == b"first"
        for number in range(300):
            assert (await client.answer())[2] == f"POST /{number} x".encode()
        assert (await client.answer())[0] == 401

    run(story)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_requests_in_pieces_of_any_size_are_whole(size: int) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        document = post("/a%20b?c=%2F", b"0123456789" * 40) + b"GET http://a/full HTTP/1.1\r\nHost: a\r\n\r\n"
        for start in range(0, len(document), size):
            client.send(document[start : start + size])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.answer())[2] == b"POST /a b " + b"0123456789" * 40
        assert (await client.answer())[2] == b"GET /full "

    run(story)


def test_blanks_around_a_header_are_no_part_of_it() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nX-Headrace-Key: \t u 1 \t\r\nContent-Length: 1 \r\n\r\nb")
        assert (await client.answer())[2] == b"POST /a b"
        assert house.app.taken[0].headers["x-headrace-key"] == "u 1"
        assert house.app.taken[0].headers["content-length"] == "1"

    run(story)


def test_chunks_are_joined_and_what_follows_them_is_no_header() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nAuthorization: late\r\n\r\n", post("/b"),
        )  # fmt: skip
        assert (await client.answer())[2] == b"POST /a abcde"
        assert (await client.answer())[2] == b"POST /b "
        assert "authorization" not in house.app.taken[0].headers

    run(story)


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_an_offered_upgrade_is_passed_over(framing: str) -> None:
    """As the clients of Java offer HTTP/2 with each first request, those with a body too."""

    async def story(house: House) -> None:
        client = await house.client()
        upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        lines, body = {
            "length": ("Content-Length: 5\r\n", b"abcde"),
            "chunked": ("Transfer-Encoding: chunked\r\n", b"5\r\nabcde\r\n0\r\n\r\n"),
            "none": ("", b""),
        }[framing]
        request = f"POST /a HTTP/1.1\r\nHost: a\r\n{upgrade}{lines}\r\n".encode() + body
        client.send(request, request, post("/b"))
        for _ in range(2):
            assert (await client.answer())[2] == b"POST /a " + (b"abcde" if body else b"")
        assert (await client.answer())[2] == b"POST /b "

    run(story)


def test_who_asks_whether_to_send_is_told_to_go_on() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer())[0] == 100
        client.send(b"abc")
        assert (await client.answer())[2] == b"POST /a abc"
        client.send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer())[0] == 401
        assert await client.is_closed()

    run(story)


def test_a_head_is_asked_for_and_nothing_more_is_sent() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", post("/b"))
        status, head, _ = await client.answer(is_head=True)
        assert (status, b"content-length: 8\r\n" in head) == (200, True)
        assert (await client.answer())[2] == b"POST /b "

    run(story)


@pytest.mark.parametrize(
    ("request_line", "header", "stays"),
    [
        ("GET /a HTTP/1.1", "", True),
        ("GET /a HTTP/1.1", "Connection: close\r\n", False),
        ("GET /a HTTP/1.0", "", False),
        ("GET /a HTTP/1.0", "Connection: Keep-Alive\r\n", True),
    ],
)
def test_the_connection_stays_where_the_client_would_have_it(request_line: str, header: str, stays: bool) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(f"{request_line}\r\nHost: a\r\n{header}\r\n".encode())
        _, head, _ = await client.answer()
        assert (b"connection: close" in head) is not stays
        assert (b"connection: keep-alive" in head) is ("Keep-Alive" in header)
        if stays:
            client.send(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer())[0] == 200
        else:
            assert await client.is_closed()

    run(story)


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde", 400),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnothing", 400),
        (b"GET http://[x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nX-Long: " + b"x" * 400_000, 431),
        (b"GET /a HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % number for number in range(60_000)), 431),
        (b"GET /" + b"a" * 400_000, 431),
    ],
)
def test_what_is_no_request_gets_one_sentence_behind_the_answers_before_it(garbage: bytes, status: int) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(post("/first"), garbage)
        assert (await client.answer())[0] == 200
        found, head, body = await client.answer()
        assert (found, b"connection: close" in head) == (status, True)
        assert b'"message"' in body
        assert await client.is_closed()

    run(story)


@pytest.mark.parametrize("is_cut_within", [True, False])
def test_heads_are_counted_each_from_its_own_beginning(is_cut_within: bool) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        request = b"GET /a HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n"
        client.send(request[:1000] if is_cut_within else request)
        for _ in range(10):
            await house.until(lambda: bool(house.connection._url) is is_cut_within)
            client.send(request[1000:] + request[:1000] if is_cut_within else request)
            assert (await client.answer())[0] == 200

    run(story)


def test_a_head_in_pieces_is_refused_behind_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        begun = b"GET /a HTTP/1.1\r\n"
        client.send(begun)
        await house.until(lambda: house.connection._url)
        client.send(b"Host: a\r\n\r\n", begun)
        assert (await client.answer())[0] == 200
        client.send(b"X-Long: ", b"x" * 400_000)
        assert (await client.answer())[0] == 431

    run(story)


CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        b"3\r\nabc\r\n0\r\n" + b"".join(b"X-%d: x\r\n" % number for number in range(200_000)),
        b"3\r\nabc\r\n0\r\nX-Long: " + b"x" * 2_000_000,
    ],
)
def test_fields_that_go_on_and_on_behind_a_body_are_refused(more: bytes, is_first: bool) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        if not is_first:
            client.send(post("/held"))
            await house.until(lambda: house.app.held)
        client.send(CHUNKED, more)
        if not is_first:
            house.app.held[0].answer(200, "", b"first")
            assert (await client.answer())[2] == b"first"
        status, head, _ = await client.answer()
        assert (status, b"connection: close" in head) == (431, True)
        assert await client.is_closed()

    run(story)


def test_chunks_and_heads_in_pieces_are_not_refused_for_what_is_beside_the_body() -> None:
    """A head that comes without its body, after many others in the same bytes, brought no body either."""

    async def story(house: House) -> None:
        client = await house.client()
        fields = b"X-Long: " + b"x" * 1000 + b"\r\n"
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + fields * 40 + b"\r\n"
        client.send(*[head + b"0\r\n" + fields * 20 + b"\r\n"] * 20, head)
        for _ in range(20):
            assert (await client.answer())[0] == 200
        await house.until(lambda: len(house.app.taken) == 21)
        for _ in range(300):
            client.send(b"3e8;", b"x" * 400, b"\r\n")
            await client.writer.drain()
            await asyncio.sleep(0)
            client.send(b"a" * 1000, b"\r\n")
        client.send(b"0\r\n", fields * 20, b"\r\n")
        assert (await client.answer())[2] == b"POST /a " + b"a" * 300_000

    run(story)


def test_a_body_that_nobody_reads_ends_the_connection() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234")
        _, head, _ = await client.answer()
        assert b"connection: close" in head
        assert await client.is_closed()

    run(story)


def test_who_goes_on_sending_what_was_refused_sees_the_answer_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        for _ in range(200):
            client.send(b"x" * 100_000)
            await client.writer.drain()
        assert (await client.answer())[0] == 401
        assert await client.is_closed()
        assert house.listener.connections, "it may go on for a while"
        monkeypatch.setattr(http1, "LINGER_S", -1.0)
        await house.until(lambda: not house.listener.connections)

    run(story)


def test_a_sender_waits_for_whoever_reads() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        size = 32_000_000
        client.send(f"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode(), b"x" * size)
        await house.until(lambda: house.app.held and house.connection._is_reading_paused)
        [held] = house.app.held
        assert held.buffered < 4_000_000
        assert await held.body(size) == b"x" * size

    run(story)


def test_large_bodies_have_so_much_room_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HELD_BYTES", 300_000)

    async def story(house: House) -> None:
        def head(size: int) -> bytes:
            return f"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()

        first, second, leaving = [await house.client() for _ in range(3)]
        first.send(head(250_000), b"x" * 200_000)
        await house.until(lambda: house.listener.held == 200_000)
        second.send(head(200_000), b"y" * 200_000)
        status, answer_head, _ = await second.answer()
        assert (status, b"retry-after: 1\r\n" in answer_head) == (503, True)
        assert await second.is_closed()
        await house.until(lambda: house.listener.held == 200_000)
        first.send(b"x" * 50_000)
        assert (await first.answer())[0] == 200
        assert house.listener.held == 0
        leaving.send(head(250_000), b"z" * 200_000)
        await house.until(lambda: house.listener.held == 200_000)
        leaving.writer.close()
        await house.until(lambda: house.listener.held == 0)
        first.send(head(400_000), b"x" * 400_000)
        assert (await first.answer())[0] == 200, "one alone may have more"

    run(story)


def test_who_does_not_take_an_answer_is_waited_for_and_then_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(post("/held"), post("/behind"))
        await house.until(lambda: house.app.held)
        house.app.held[0].answer(200, "", b"x" * 50_000_000)
        await house.until(lambda: house.connection._stuck_since)
        assert len(house.app.taken) == 1, "the next one waits too"
        monkeypatch.setattr(http1, "TAKE_S", -1.0)
        await house.until(lambda: not house.listener.connections)

    run(story)


@pytest.mark.parametrize("is_asked", [True, False])
def test_who_does_not_take_the_rest_of_a_last_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    """It is less than what makes the transport ask to pause."""

    async def story(house: House) -> None:
        house.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, house.socket.getsockname())
        await asyncio.get_running_loop().sock_sendall(
            slow, post("/held", b"", "Connection: close" if is_asked else "Connection: keep-alive")
        )
        await house.until(lambda: house.app.held)
        house.app.held[0].answer(200, "", b"x" * 60_000)
        await asyncio.sleep(0.2)
        assert house.connection._transport.get_write_buffer_size()
        assert not house.connection._stuck_since
        monkeypatch.setattr(http1, "IDLE_S", -1.0)
        await house.until(lambda: house.connection._closing_since)
        assert house.listener.connections, "it may take a while"
        monkeypatch.setattr(http1, "TAKE_S", -1.0)
        await house.until(lambda: not house.listener.connections)
        slow.close()

    run(story)


@pytest.mark.parametrize(("limit", "sent", "status"), [("HEAD_S", b"GET /a HT", 408), ("IDLE_S", b"", 0)])
def test_a_client_that_says_too_little_is_given_up(
    monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes, status: int
) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(sent)
        await house.until(lambda: house.listener.connections)
        monkeypatch.setattr(http1, limit, -1.0)
        if status:
            assert (await client.answer())[0] == status
        assert await client.is_closed()

    run(story)


def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234")
        await house.until(lambda: house.app.taken)
        monkeypatch.setattr(http1, "BODY_S", -1.0)
        assert (await client.answer())[0] == 408
        assert await client.is_closed()

    run(story)


def test_who_leaves_is_noticed_and_the_late_answer_goes_nowhere() -> None:
    async def story(house: House) -> None:
        client = await house.client()
        client.send(post("/held"))
        await house.until(lambda: house.app.held)
        left: list[str] = []
        house.app.held[0].leave = lambda: left.append("gone")
        client.writer.close()
        await house.until(lambda: left)
        house.app.held[0].answer(200, "", b"too late")
        assert not house.listener.connections

    run(story)


def test_an_ending_front_answers_what_is_under_way_and_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LAST_S", 2.0)

    async def story(house: House) -> None:
        working, idle, late = [await house.client() for _ in range(3)]
        working.send(post("/held"))
        await house.until(lambda: house.app.held and len(house.listener.connections) == 3)
        ending = asyncio.ensure_future(house.listener.stop(60))
        await asyncio.sleep(0)
        late.send(post("/late"))
        _, head, body = await late.answer()
        assert (b"connection: close" in head, body) == (True, b"POST /late ")
        assert await idle.is_closed()
        assert not ending.done()
        house.app.held[0].answer(200, "", b"in time")
        assert (await working.answer())[2] == b"in time"
        assert await working.is_closed()
        await asyncio.wait_for(ending, 60)

    run(story)


def test_connections_beyond_the_limit_wait_in_the_backlog() -> None:
    async def story(house: House) -> None:
        house.listener._most = 2
        clients = [await house.client() for _ in range(3)]
        for client in clients:
            client.send(post("/a"))
        answers = [asyncio.ensure_future(client.answer()) for client in clients]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        await house.until(lambda: sum(answer.done() for answer in answers) == 2)
        assert len(house.listener.connections) == 2
        next(client for client, answer in zip(clients, answers, strict=True) if answer.done()).writer.close()
        await asyncio.wait_for(asyncio.gather(*answers), 60)

    run(story)
