"""Who asks: the installation's own command line, or the holder of a token. Wrong tokens are slowed down."""

import hmac
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.clock import Clock
from headrace.errors import HeadraceError, NotAllowed
from headrace.files import disk_trouble
from headrace.lifecycle.upkeep.tokens import Rank, Tokens, Unauthorized

LOG = logging.getLogger("headrace.access")
#: So many wrong tokens from one address within so long, and it has to wait.
MOST_FAILURES, WITHIN_S = 10, 60.0
MOST_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        actor: as the ledger will name them; empty for the installation's own command line, which says so itself.
    """

    rank: Rank
    actor: str = ""

    def named(self, said: str) -> str:
        """Return the actor; nobody with a token can speak for somebody else."""
        return self.actor or said or "unknown"


Handler = Callable[[Request, Caller], Awaitable[Response]]
Plain = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Failures:
    """Counts wrong tokens by address."""

    clock: Clock
    _seen: "OrderedDict[str, deque[float]]" = field(default_factory=OrderedDict)

    def wait_s(self, address: str) -> float:
        """Return how long an address has to wait; 0 where it may try."""
        times = self._seen.get(address)
        if times is None or len(times) < MOST_FAILURES:
            return 0.0
        return max(0.0, times[0] + WITHIN_S - self.clock.monotonic_s())

    def note(self, address: str) -> None:
        """Remember a failure."""
        self._seen.setdefault(address, deque(maxlen=MOST_FAILURES)).append(self.clock.monotonic_s())
        self._seen.move_to_end(address)
        while len(self._seen) > MOST_ADDRESSES:
            self._seen.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Lets callers in.

    Attributes:
        own: the secret of this installation's own command line, new with every start.
    """

    own: str
    tokens: Tokens
    failures: Failures

    def guard(self, rank: Rank, handler: Handler) -> Plain:
        """Return a handler that only callers of a rank reach."""

        async def inner(request: Request) -> Response:
            address = request.client.host if request.client else ""
            try:
                # First of all: who guesses must not keep out those of the same address who need not.
                caller = await run_in_threadpool(self.caller, request.headers.get("authorization", ""))
            except Unauthorized as error:
                wait_s = self.failures.wait_s(address)
                if wait_s:
                    return too_many(address, wait_s)
                self.failures.note(address)
                LOG.warning("%s was refused %s from %s: %s", request.method, request.url.path, address, error.fact)
                raise
            if not caller.rank.covers(rank):
                LOG.warning("%s, who is %s, was refused %s", caller.actor, caller.rank.value, request.url.path)
                raise NotAllowed(
                    f"{caller.actor} is {caller.rank.value}, and this needs {rank.value}.",
                    f"headrace token create NAME --role {rank.value}",
                )
            return await handler(request, caller)

        return told(inner)

    def caller(self, authorization: str) -> Caller:
        """Return who shows this header. Raises Unauthorized."""
        given = authorization.removeprefix("Bearer ").strip()
        if hmac.compare_digest(given.encode(), self.own.encode()):
            return Caller(Rank.ADMIN)
        token = self.tokens.check(given)
        return Caller(token.rank, f"token:{token.name}")


def too_many(address: str, wait_s: float) -> Response:
    """Return what those are told who guess."""
    body = {"fact": f"Too many wrong tokens from {address}.", "remedy": f"Wait {wait_s:.0f} s.", "exit_code": 11}
    return JSONResponse(body, 429, {"retry-after": f"{wait_s:.0f}"})


def refusal(error: HeadraceError) -> Response:
    """Return an error as fact and remedy."""
    body = {"fact": error.fact, "remedy": error.remedy, "exit_code": error.exit_code}
    return JSONResponse(body, status_code=error.http_status)


def told(handler: Plain) -> Plain:
    """Return the handler with errors told as fact and remedy."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except HeadraceError as error:
            return refusal(error)
        except Exception as error:  # The request's boundary: it is answered, and what nobody foresaw is logged.
            trouble = disk_trouble(error)
            if trouble is None:
                LOG.exception("%s %s", request.method, request.url.path)
                trouble = HeadraceError(
                    f"The control process broke at {request.method} {request.url.path} ({type(error).__name__}).",
                    "Its log says where: headrace logs",
                )
            return refusal(trouble)

    return answer
