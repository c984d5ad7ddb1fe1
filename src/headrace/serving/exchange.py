"""One HTTP request and its answer, as the protocols see it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from headrace.serving.rejection import MEDIA_TYPE, METHOD, SLOW, TOO_LARGE, Rejected

encode = msgspec.json.Encoder().encode
JSON = [("content-type", "application/json")]
#: How long a client may take to send its body.
BODY_S = 20.0
SWEEP_S = 1.0
SMALL_BYTES = 65_536
#: So much of a refused body is read and forgotten, so long: its sender then sees the answer, not a broken connection.
FORGOTTEN_BYTES = 64_000_000
FORGET_S = 5.0
#: Passed through from the request to the answer, so that calls can be followed.
TRACED = ("x-request-id", "traceparent", "tracestate")


class Reading:
    """The exchanges whose short bodies are awaited; now and then, those that wait too long are given up."""

    def __init__(self) -> None:
        self._waiting: dict[Exchange, Callable[[], object]] = {}
        self._is_sweeping = False

    def watch(self, exchange: "Exchange", give_up: Callable[[], object]) -> None:
        self._waiting[exchange] = give_up
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def done(self, exchange: "Exchange") -> None:
        self._waiting.pop(exchange, None)

    def _sweep(self) -> None:
        late = time.monotonic() - BODY_S
        for exchange in [one for one in self._waiting if one.start < late]:
            self._waiting.pop(exchange)()
        self._is_sweeping = bool(self._waiting)
        if self._is_sweeping:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


READING = Reading()


class Exchange:
    """A request with the means to answer it."""

    __slots__ = ("headers", "is_answered", "is_read", "path", "proto", "scope", "start")

    def __init__(self, scope: Any, proto: Any) -> None:
        self.scope = scope
        self.proto = proto
        self.path: str = scope.path
        self.headers = scope.headers
        self.start = time.monotonic()
        self.is_answered = False
        self.is_read = False

    @property
    def method(self) -> str:
        return str(self.scope.method)

    def header(self, name: str) -> str:
        """Return a header's value, empty where it is absent."""
        return self.headers.get(name) or ""

    def needs(self, method: str) -> None:
        """Refuse other methods. Raises Rejected."""
        if self.scope.method != method:
            raise Rejected(METHOD, f"`{self.path[:100]}` takes {method}.")

    def has_short_body(self, limit: int) -> bool:
        """Tell whether the body is announced and short; such a one mostly came with the headers.

        Raises:
            Rejected: 415 for a compressed one; 413 for more than `limit` bytes.
        """
        if self.headers.get("content-encoding", "identity") != "identity":
            raise Rejected(MEDIA_TYPE, "Compressed bodies are not read here.", "Send it without a content encoding.")
        length = self.headers.get("content-length")
        if length is None or not length.isdigit():
            return False
        if int(length) > limit:
            raise Rejected(TOO_LARGE, f"The body has {length} bytes; the limit is {limit}.")
        return int(length) <= SMALL_BYTES

    def body(self, limit: int) -> Awaitable[bytes]:
        """Return what gives the body when it is awaited.

        Raises:
            Rejected: 415 for a compressed one; 413 for more than `limit` bytes, which are not kept; 408 for a slow one.
        """
        return self._whole() if self.has_short_body(limit) else self._in_time(limit)

    async def _whole(self) -> bytes:
        """Return a short body: one timer for all costs less than one for each."""
        self.is_read = True
        task = asyncio.current_task()
        assert task is not None
        is_slow = False

        def give_up() -> None:
            nonlocal is_slow
            is_slow = task.cancel()

        READING.watch(self, give_up)
        try:
            body: bytes = await self.proto()
            return body
        except asyncio.CancelledError as cause:
            if not is_slow:
                raise
            raise Rejected(SLOW, f"The body did not come within {BODY_S:g} s.") from cause
        finally:
            READING.done(self)

    async def _in_time(self, limit: int) -> bytes:
        self.is_read = True
        try:
            async with asyncio.timeout(BODY_S):
                return await self._pieces(limit)
        except TimeoutError as cause:
            raise Rejected(SLOW, f"The body did not come within {BODY_S:g} s.") from cause

    async def _pieces(self, limit: int) -> bytes:
        content, length = bytearray(), 0
        async for piece in self.proto:
            length += len(piece)
            if length <= limit:
                content += piece
            elif length > limit + FORGOTTEN_BYTES:
                break
        if length > limit:
            raise Rejected(TOO_LARGE, f"The body has more than {limit} bytes.")
        return bytes(content)

    @property
    def may_send_more(self) -> bool:
        """True where a refused request still sends a body that nobody has asked for."""
        # Who expects to be told sends its body only when told to go on.
        return not self.is_read and self.scope.method not in ("GET", "HEAD") and not self.header("expect")

    async def forget_body(self) -> None:
        """Read and forget what a refused request still sends."""
        with suppress(TimeoutError, Rejected):
            async with asyncio.timeout(FORGET_S):
                await self._pieces(0)

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send the answer."""
        self.is_answered = True
        for name in TRACED:
            value = self.headers.get(name)
            if value is not None:
                headers = [*headers, (name, value)]
        self.proto.response_bytes(status, headers, body)

    def json(self, document: Any, status: int = 200) -> None:
        """Send a JSON document."""
        self.answer(status, JSON, encode(document))

    def text(self, text: str, kind: str = "text/plain; charset=utf-8", status: int = 200) -> None:
        """Send a text."""
        self.answer(status, [("content-type", kind)], text.encode())

    def reject(self, rejected: Rejected) -> None:
        """Send an error in the words of the protocol that was spoken."""
        if self.path.startswith("/v2"):
            document: dict[str, Any] = {"error": rejected.sentence}
        elif self.path.startswith("/predictions"):
            document = {"code": rejected.status, "type": rejected.code, "message": rejected.sentence}
        else:
            document = {"error_code": rejected.code, "message": rejected.sentence}
        headers = JSON
        if rejected.retry_after_s:
            headers = [*JSON, ("retry-after", str(rejected.retry_after_s))]
        self.answer(rejected.status, headers, encode(document))
