"""One HTTP request and its answer, as the protocols see it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from headrace.serving.rejection import FULL, GONE, MEDIA_TYPE, METHOD, TOO_LARGE, Rejected

encode = msgspec.json.Encoder().encode
#: The header lines of an answer in JSON.
JSON = "content-type: application/json\r\n"
#: How long a client may take to send its body.
BODY_S = 20.0
#: Passed through from the request to the answer, so that calls can be followed.
TRACED = ("x-request-id", "traceparent", "tracestate")


class Sender(Protocol):
    """The connection that a request came in on."""

    def respond(self, exchange: "Exchange", status: int, headers: str, body: bytes) -> None: ...

    def go_on(self) -> None: ...

    def resume(self) -> None: ...

    def hold(self, more: int) -> bool:
        """Take room for so many bytes more until the answer; False where other requests have all of it."""
        ...


class Exchange(msgspec.Struct, eq=False):
    """A request with the means to answer it.

    Attributes:
        headers: by names in lower case; of several with one name, the last.
        buffered: bytes of the body that are there and were not taken.
        is_whole: the body is there to its end.
        stays: the client would send another request on this connection.
        problem: why there will be no more of the body.
        leave: is called when the client has gone before its answer.
    """

    _connection: Sender
    method: str
    path: str
    headers: dict[str, str]
    start: float = msgspec.field(default_factory=time.monotonic)
    buffered: int = 0
    is_whole: bool = False
    stays: bool = False
    problem: Exception | None = None
    leave: Callable[[], None] | None = None
    _pieces: list[bytes] = []
    _look: Callable[[], object] | None = None

    def header(self, name: str) -> str:
        """Return a header's value, empty where it is absent."""
        return self.headers.get(name, "")

    def needs(self, method: str) -> None:
        """Refuse other methods. Raises Rejected."""
        if self.method != method:
            raise Rejected(METHOD, f"`{self.path[:100]}` takes {method}.")

    # The body, from the connection

    def feed(self, piece: bytes) -> None:
        """Here is more of the body."""
        self._pieces.append(piece)
        self.buffered += len(piece)

    def look(self) -> None:
        """Have whoever waits for the body look at what there is of it now."""
        look = self._look
        if look is not None:
            if self.is_whole or self.problem is not None:
                self._look = None  # There is no more to see.
            look()

    def fail(self, problem: Exception) -> None:
        """There will be no more of the body."""
        self.problem = problem
        self.look()

    def lose(self) -> None:
        """The client has gone."""
        if self.leave is not None:
            self.leave()
        else:
            self.fail(Rejected(GONE, "The client has gone."))

    # The body, to whoever reads it

    def check_body(self, limit: int) -> int | None:
        """Return how long the body is; None where neither it nor a header tells yet.

        Raises:
            Rejected: 415 for a compressed one; 413 beyond `limit` bytes.
        """
        if "content-encoding" in self.headers and self.headers["content-encoding"] != "identity":
            raise Rejected(MEDIA_TYPE, "Compressed bodies are not read here.", "Send it without a content encoding.")
        if self.is_whole:
            length = self.buffered
        elif "content-length" in self.headers:
            length = int(self.headers["content-length"])
        else:
            return None
        if length > limit:
            raise Rejected(TOO_LARGE, f"The body has {length} bytes; the limit is {limit}.")
        return length

    def when_more(self, look: Callable[[], object]) -> None:
        """Have `look` called each time that there is more of the body, or none to come."""
        self._look = look
        # Who asked whether to send it has not begun.
        if not self.buffered and self.headers.get("expect", "").lower() == "100-continue":
            self._connection.go_on()

    def take(self) -> bytes:
        """Return what there is of the body and was not taken yet."""
        pieces = self._pieces
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces, self.buffered = [], 0
        return content

    async def body(self, limit: int) -> bytes:
        """Return the body.

        Raises:
            Rejected: 415 for a compressed one; 413 for more than `limit` bytes, which are not kept; 408 for a slow one;
                503 where the bodies of other requests take all the room.
        """
        self.check_body(limit)
        return self.take() if self.is_whole else await self._pieces_of(limit)

    async def _pieces_of(self, limit: int) -> bytes:
        content, more = bytearray(), asyncio.Event()
        self.when_more(more.set)
        while True:
            is_last = self.is_whole
            known = len(content)
            content += self.take()
            if len(content) > limit:
                raise Rejected(TOO_LARGE, f"The body has more than {limit} bytes.")
            if not self._connection.hold(len(content) - known):
                raise Rejected(FULL, "Other large requests are under way.", "Send fewer at once.", retry_after_s=1)
            if is_last:
                return bytes(content)
            if self.problem is not None:
                raise self.problem
            more.clear()
            self._connection.resume()
            await more.wait()

    # The answer

    def answer(self, status: int, headers: str, body: bytes) -> None:
        """Send the answer, with `headers` as lines of its head."""
        self.leave = self._look = None
        for name in TRACED:
            if name in self.headers:
                headers += f"{name}: {self.headers[name]}\r\n"
        self._connection.respond(self, status, headers, body)

    def json(self, document: Any, status: int = 200) -> None:
        """Send a JSON document."""
        self.answer(status, JSON, encode(document))

    def text(self, text: str, kind: str = "text/plain; charset=utf-8", status: int = 200) -> None:
        """Send a text."""
        self.answer(status, f"content-type: {kind}\r\n", text.encode())

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
            headers += f"retry-after: {rejected.retry_after_s}\r\n"
        self.answer(rejected.status, headers, encode(document))
