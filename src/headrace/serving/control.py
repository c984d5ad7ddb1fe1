"""What the supervisor, its fronts, and whoever deploys say to each other: JSON lines over sockets."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import InvalidInput
from headrace.serving.metrics import Counts, Gauges
from headrace.types import ServedVersion

#: A route with hundreds of versions and long tables of variables stays far below this.
LINE_BYTES = 4 * 1024 * 1024


def is_count(value: int | str) -> bool:
    """Tell whether a value says how many: a number from 1, or `auto`."""
    return value == "auto" if isinstance(value, str) else value >= 1


class Limits(msgspec.Struct, frozen=True):
    """The serve section of a headrace.yaml, as far as serving needs it; names and defaults are the same."""

    workers: int | str = 1
    threads: int | str = "auto"
    isolation: str = "process"
    max_batch: int = 64
    deadline_ms: float = 1000
    queue: int = 1024
    max_body_bytes: int = 10 * 1024 * 1024
    fronts: int | str = 1
    port: int = 0
    log_sample: float = 1.0
    redact: tuple[str, ...] = ()
    predict_keys: tuple[str, ...] = ()
    feedback_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "fronts"):
            if not is_count(found := getattr(self, name)):
                raise InvalidInput(
                    f"`{name}` is `{found}`, which is neither a number from 1 nor `auto`.",
                    f"Write for example 2, or auto, for `{name}`.",
                )


def drain_s(serve: Limits) -> float:
    """Return how long what was accepted may take to be answered when its version or its front leaves."""
    return min(max(20.0, serve.deadline_ms / 1000 + 2), 120.0)


class RouteSpec(msgspec.Struct, frozen=True):
    """What an endpoint should do, as the deployer says it."""

    component: str
    stage: str
    versions: tuple[ServedVersion, ...]
    shares: dict[int, float]
    serve: Limits = Limits()
    shadow: tuple[int, ...] = ()
    shadow_share: float = 0.0


class VersionPlan(msgspec.Struct, frozen=True):
    """One loaded version, as a front needs it."""

    version: int
    model: str
    baseline: str
    addresses: tuple[str, ...]
    by_row: bool


class Plan(msgspec.Struct, frozen=True):
    """One generation of the route.

    Attributes:
        log: where predictions go; empty where they are not kept.
        predict_keys: SHA-256 of the keys that may predict; anybody may where there is none.
    """

    generation: int
    component: str
    stage: str
    versions: tuple[VersionPlan, ...]
    shares: dict[int, float]
    serve: Limits
    shadow: tuple[int, ...] = ()
    shadow_share: float = 0.0
    probe: str = ""
    log: str = ""
    predict_keys: tuple[str, ...] = ()
    feedback_keys: tuple[str, ...] = ()


class Prepare(msgspec.Struct, tag="prepare"):
    """To a front: get ready to serve a plan.

    Attributes:
        is_first: nothing serves at this address yet, so take connections at once: probes ask before the commit. A front
            that joins others takes none before it has something to serve.
    """

    plan: Plan
    is_first: bool = False


class Commit(msgspec.Struct, tag="commit"):
    """To a front: serve the prepared plan from now on."""

    generation: int


class AskCounts(msgspec.Struct, tag="ask-counts"):
    """To a front: say what you counted."""

    sequence: int


class Page(msgspec.Struct, tag="page"):
    """To a front: the sums that it asked for."""

    sequence: int
    counts: Counts
    gauges: Gauges
    problems: dict[int, str] = {}


class Problem(msgspec.Struct, tag="problem"):
    """To a front: why a version's workers are down; empty once they are up again."""

    version: int
    text: str


class Stop(msgspec.Struct, tag="stop"):
    """To a front: finish what you have and end."""


ToFront = Prepare | Commit | AskCounts | Page | Problem | Stop


class Prepared(msgspec.Struct, tag="prepared"):
    """From a front: ready, or why not."""

    generation: int
    problem: str = ""


class Committed(msgspec.Struct, tag="committed"):
    """From a front: the generation serves."""

    generation: int


class Released(msgspec.Struct, tag="released"):
    """From a front: nothing of older generations is waiting or running any more."""

    generation: int


class Counted(msgspec.Struct, tag="counted"):
    """From a front: its counts."""

    sequence: int
    counts: Counts


class AskPage(msgspec.Struct, tag="ask-page"):
    """From a front: a client wants the metrics of the whole endpoint."""

    sequence: int


class Stuck(msgspec.Struct, tag="stuck"):
    """From a front: a worker has not answered for far too long."""

    version: int
    address: str


FromFront = Prepared | Committed | Released | Counted | AskPage | Stuck

decode_to_front = msgspec.json.Decoder(ToFront).decode
decode_from_front = msgspec.json.Decoder(FromFront).decode


def encode_line(message: Any) -> bytes:
    """Return a message as one line of JSON."""
    return msgspec.json.encode(message, enc_hook=_hook) + b"\n"


def route_of(document: Any) -> RouteSpec:
    """Return a route from what `encode_line` made of one. Raises msgspec.ValidationError."""
    return msgspec.convert(document, RouteSpec, dec_hook=_unhook, str_keys=True)


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line, empty where the peer has gone."""
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _hook(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"a {type(value).__name__} is no part of a message")


def _unhook(kind: type[Any], value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"a {kind.__name__} is no part of a message")
