"""One endpoint's supervisor: it owns the listener, the fronts, the workers and the metrics, and outlives them all.

Run as `python -m headrace.serving.supervisor` with the endpoint's run folder as working directory. It takes one JSON
line per request on the Unix socket `control.sock` there:

    {"do": "prepare", "route": …, "secrets": …}   → {"generation": 3, "token": …, "unchecked": [2], "unchanged": false}
    {"do": "commit", "generation": 3, "golden": [2]}  → the status
    {"do": "discard"}, {"do": "status"}, {"do": "stop"}

The committed route is kept in `route.json`, and restored by the next start. What it needs and must not say is kept
beside it in `given.json`, for this user's eyes alone: API keys as SHA-256, secrets of versions as they are.
"""

import argparse
import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from headrace.config.settings import read_settings
from headrace.errors import HeadraceError, InvalidInput, Unavailable
from headrace.files import write_atomically
from headrace.serving import control
from headrace.serving.control import Page, Plan, RouteSpec
from headrace.serving.fronts import Fronts, cores
from headrace.serving.keys import digest_of
from headrace.serving.metrics import Gauges
from headrace.serving.replicas import Replicas
from headrace.types import ServedVersion

log = logging.getLogger(__name__)
BACKLOG = 4096
ROUTE = Path("route.json")
GIVEN = Path("given.json")
FAILED = Path("failed.json")
CONTROL = "control.sock"


@dataclass(slots=True)
class Candidate:
    """A prepared route that is not committed yet."""

    spec: RouteSpec
    plan: Plan
    sets: dict[int, Replicas]


@dataclass(slots=True)
class Supervisor:
    """One endpoint.

    Attributes:
        sets: the workers of every version that is loaded.
        predictions: the folder of the prediction log; None keeps nothing.
    """

    folder: Path
    listener: socket.socket
    url: str
    predictions: Path | None
    variables: Mapping[str, str]
    fronts: Fronts = field(init=False)
    sets: dict[int, Replicas] = field(default_factory=dict)
    spec: RouteSpec | None = None
    plan: Plan | None = None
    candidate: Candidate | None = None
    generation: int = 0
    problem: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    restarts: int = 0
    given: Mapping[str, str] = field(default_factory=dict, repr=False)
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)

    def __post_init__(self) -> None:
        self.fronts = Fronts(
            self.listener, folder=self.folder, variables=self.variables, page=self._page, stuck=self._stuck
        )

    # The route

    async def prepare(self, spec: RouteSpec, given: Mapping[str, str]) -> dict[str, Any]:
        """Load and warm what a route needs, on workers and fronts; what serves goes on serving.

        Raises:
            HeadraceError: a version cannot be loaded or a secret is missing; nothing changed.
        """
        self.given = {**self.given, **given}
        keys = {*spec.serve.predict_keys, *spec.serve.feedback_keys}
        self.digests = {**self.digests, **{name: digest_of(given[name]) for name in keys if given.get(name)}}
        # Before anything is loaded: what is missing is told at once.
        self._keys(tuple(sorted(keys)))
        if self.plan is not None and self._serves(self.plan, spec):
            return {"generation": self.plan.generation, "unchanged": True, "unchecked": [], "token": self.token}
        await self.discard()
        sets: dict[int, Replicas] = {}
        fresh: list[Replicas] = []
        for version in spec.versions:
            known = self.sets.get(version.version)
            if known is None or not self._is_current(known, version, spec):
                known = self._replicas(version, spec)
                fresh.append(known)
            sets[version.version] = known
        try:
            for one in fresh:
                await one.start()
            self.generation += 1
            plan = self._plan(spec, sets)
            await self.fronts.prepare(plan, _fronts(spec.serve.fronts))
        except BaseException:
            await asyncio.gather(*(one.stop() for one in fresh))
            raise
        self.candidate = Candidate(spec, plan, sets)
        unchecked = [number for number, one in sets.items() if not one.is_golden and one.version.golden is not None]
        return {"generation": plan.generation, "unchanged": False, "unchecked": unchecked, "token": self.token}

    async def commit(self, generation: int, golden: list[int]) -> dict[str, Any]:
        """Serve the prepared generation from now on, and let go of what it does not need."""
        candidate = self.candidate
        if candidate is None or candidate.plan.generation != generation:
            if self.plan is not None and self.plan.generation == generation:
                return self.status()
            raise InvalidInput(f"Generation {generation} is not prepared; prepare the route again.")
        for number in golden:
            candidate.sets[number].is_golden = True
        released = self.fronts.released(candidate.plan)
        await self.fronts.commit(candidate.plan)
        old, self.sets = self.sets, candidate.sets
        self.spec, self.plan, self.candidate, self.problem = candidate.spec, candidate.plan, None, ""
        leaving = [one for one in old.values() if one not in self.sets.values()]
        self._go(self._let_go(leaving, released))
        route = control.encode_line({"generation": generation, "route": candidate.spec})
        try:
            write_atomically(self.folder / GIVEN, json.dumps(self._to_keep(candidate.spec)), mode=0o600)
            write_atomically(self.folder / ROUTE, route)
        except OSError as error:
            # So that the same route is not taken for one that is served already, and is written when it comes again.
            self.problem = f"What it serves could not be written down for its next start: {error.strerror}."
            raise
        return self.status()

    async def discard(self) -> None:
        """Forget the prepared route and stop the workers that only it needed."""
        candidate, self.candidate = self.candidate, None
        if candidate is not None:
            self.fronts.discard()
            await asyncio.gather(*(one.stop() for one in candidate.sets.values() if one not in self.sets.values()))

    async def restore(self) -> None:
        """Serve what was committed before this process; where that fails, say why in the status."""
        try:
            kept_route = (self.folder / ROUTE).read_bytes()
        except FileNotFoundError:
            return
        try:
            document = json.loads(kept_route)
            self.generation = int(document["generation"])
            with contextlib.suppress(FileNotFoundError):
                kept = json.loads((self.folder / GIVEN).read_bytes())
                self.given, self.digests = kept["secrets"], kept["digests"]
            async with self.lock:
                answer = await self.prepare(control.route_of(document["route"]), {})
                await self.commit(answer["generation"], [])
        except HeadraceError as error:
            self._not_restored(error.fact)
        except Exception as error:  # noqa: BLE001 - the boundary of a start: whoever asks for the status hears of it
            self._not_restored(f"{error!r}")

    def _not_restored(self, why: str) -> None:
        log.warning("The route before could not be restored.", exc_info=True)
        self.problem = f"The route before could not be restored: {why}"

    def status(self) -> dict[str, Any]:
        """Return how the endpoint stands."""
        problems = [one.problem for one in self.sets.values() if one.problem]
        if self.fronts.log_problem:
            problems.append(f"It answers, and its prediction log is in trouble: {self.fronts.log_problem}")
        return {
            "url": self.url,
            "pid": os.getpid(),
            "generation": self.plan.generation if self.plan else 0,
            "shares": {str(number): share for number, share in (self.plan.shares if self.plan else {}).items()},
            "warm": sorted(self.sets),
            "restarts": self.restarts + sum(one.restarts for one in self.sets.values()) + self.fronts.restarts,
            "problem": self.problem or next(iter(problems), ""),
            "predict_keys": list(self.spec.serve.predict_keys) if self.spec else [],
            "feedback_keys": list(self.spec.serve.feedback_keys) if self.spec else [],
            "measured": {str(number): one.measured() for number, one in sorted(self.sets.items())},
        }

    async def stop(self) -> None:
        """Answer what was accepted, then end everything."""
        self.listener.close()
        await self.fronts.stop()
        for task in self._tasks:
            task.cancel()
        sets = {id(one): one for one in self.sets.values()}
        sets |= {id(one): one for one in (self.candidate.sets.values() if self.candidate else ())}
        await asyncio.gather(*(one.stop() for one in sets.values()))

    # Parts

    def _serves(self, plan: Plan, spec: RouteSpec) -> bool:
        """Tell whether a plan is what a route asks for, with the keys and the secrets that there are now."""
        if spec != self.spec or self.problem:
            return False
        keys = (self._keys(spec.serve.predict_keys), self._keys(spec.serve.feedback_keys))
        return keys == (plan.predict_keys, plan.feedback_keys) and all(
            self._is_current(self.sets[version.version], version, spec) for version in spec.versions
        )

    def _is_current(self, known: Replicas, version: ServedVersion, spec: RouteSpec) -> bool:
        same = known.version == version and _same_workers(known.serve, spec.serve)
        return same and known.variables == self._variables(version)

    def _replicas(self, version: ServedVersion, spec: RouteSpec) -> Replicas:
        variables = self._variables(version)
        return Replicas(version, spec.serve, variables, self.folder, cores(), self._address, self._changed)

    def _variables(self, version: ServedVersion) -> Mapping[str, str]:
        return {**self.variables, **{name: _secret(name, self.given) for name in version.secrets}}

    def _plan(self, spec: RouteSpec, sets: Mapping[int, Replicas]) -> Plan:
        return Plan(
            generation=self.generation,
            component=spec.component,
            stage=spec.stage,
            versions=tuple(one.plan() for one in sets.values()),
            shares=spec.shares,
            serve=spec.serve,
            shadow=spec.shadow,
            shadow_share=spec.shadow_share,
            probe=self.token,
            log=str(self.predictions) if self.predictions else "",
            predict_keys=self._keys(spec.serve.predict_keys),
            feedback_keys=self._keys(spec.serve.feedback_keys),
        )

    def _keys(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_secret(name, self.digests) for name in names)

    def _to_keep(self, spec: RouteSpec) -> dict[str, Any]:
        """Return what the next start needs besides the route."""
        keys = {*spec.serve.predict_keys, *spec.serve.feedback_keys}
        names = {name for version in spec.versions for name in version.secrets}
        return {
            "digests": {name: self.digests[name] for name in sorted(keys)},
            "secrets": {name: self.given[name] for name in sorted(names)},
        }

    def _address(self) -> str:
        return f"w{next(self._numbers)}.sock"

    async def _let_go(self, leaving: list[Replicas], released: "asyncio.Future[Any]") -> None:
        await released
        for one in leaving:
            self.restarts += one.restarts
            await one.stop()

    def _changed(self, version: int, problem: str) -> None:
        self.fronts.tell(control.Problem(version, problem))

    def _stuck(self, version: int, address: str) -> None:
        if version in self.sets:
            self.sets[version].kill(address)

    async def _page(self, sequence: int) -> Page:
        status = self.status()
        gauges = Gauges(
            generation=status["generation"],
            fronts=len(self.fronts),
            shares=self.plan.shares if self.plan else {},
            workers={number: len(one.workers) for number, one in self.sets.items()},
            restarts=status["restarts"] - self.fronts.restarts,
            front_restarts=self.fronts.restarts,
        )
        return Page(sequence, await self.fronts.counts(), gauges)

    def _go(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Control

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one control connection."""
        while line := await control.read_line(reader):
            try:
                answer = await self._do(msgspec.json.decode(line))
            except HeadraceError as error:
                answer = {"error": {"kind": type(error).__name__, "fact": error.fact, "remedy": error.remedy}}
            except Exception as error:  # The boundary of a request: whoever asked must hear of it.
                log.exception("control request")
                answer = {"error": {"kind": "Unavailable", "fact": f"The supervisor failed: {error!r}.", "remedy": ""}}
            writer.write(control.encode_line(answer))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        writer.close()

    async def _do(self, asked: dict[str, Any]) -> dict[str, Any]:
        what = asked.get("do")
        if what == "status":
            await self.fronts.counts()
            return self.status()
        if what == "stop":
            self.stopping.set()
            return self.status()
        async with self.lock:
            if what == "prepare":
                return await self.prepare(control.route_of(asked["route"]), asked.get("secrets") or {})
            if what == "commit":
                return await self.commit(int(asked["generation"]), list(asked.get("golden") or ()))
            if what == "discard":
                await self.discard()
                return self.status()
        raise InvalidInput(f"The supervisor does not know how to `{what}`.")


def _secret(name: str, given: Mapping[str, str]) -> str:
    if not given.get(name):
        raise InvalidInput(
            f"The endpoint needs the secret `{name}`, which is not set.",
            f"Set the environment variable {name} and deploy again.",
        )
    return given[name]


def _same_workers(one: control.Limits, other: control.Limits) -> bool:
    return (one.workers, one.threads, one.isolation) == (other.workers, other.threads, other.isolation)


def _fronts(asked: int | str) -> int:
    return max(cores() // 2, 1) if isinstance(asked, str) else max(asked, 1)


def _cannot_listen(host: str, port: int, cause: OSError | UnicodeError) -> HeadraceError:
    why = cause.strerror if isinstance(cause, OSError) else cause
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, socket.gaierror | UnicodeError) or number == errno.EADDRNOTAVAIL:
        return InvalidInput(
            f"This machine has no address `{host}` to listen on ({why}).",
            "Name one that it has: 127.0.0.1 for itself alone, 0.0.0.0 for everybody.",
        )
    another = "set `serve.port` in headrace.yaml (for `headrace serve`: --port) to a free port (0 takes one)."
    if number == errno.EADDRINUSE:
        return Unavailable(
            f"Port {port} on {host} is taken by another process ({why}).", f"Stop that process, or {another}"
        )
    return Unavailable(f"Port {port} on {host} cannot be had ({why}).", another.capitalize())


def open_listener(host: str, port: int) -> socket.socket:
    """Return the listening socket of an endpoint.

    Raises:
        InvalidInput: the host is none of this machine's addresses.
        Unavailable: the port is taken, or this user may not have it.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as cause:
        listener.close()
        raise _cannot_listen(host, port, cause) from cause
    listener.listen(BACKLOG)
    listener.setblocking(False)
    os.set_inheritable(listener.fileno(), True)
    return listener


async def run(folder: Path, host: str, port: int, predictions: Path | None) -> None:
    """Be an endpoint's supervisor until told to stop."""
    listener = open_listener(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}"
    supervisor = Supervisor(folder, listener, url, predictions, read_settings().child_environment())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stopping.set)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(CONTROL)
    server = await asyncio.start_unix_server(supervisor.hear, CONTROL, limit=control.LINE_BYTES)
    restoring = asyncio.ensure_future(supervisor.restore())
    await supervisor.stopping.wait()
    restoring.cancel()
    server.close()
    await supervisor.stop()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(CONTROL)


def main() -> None:
    parser = argparse.ArgumentParser(description="The supervisor of one headrace endpoint; started by its target.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--predictions", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor %(levelname)s %(message)s")
    FAILED.unlink(missing_ok=True)
    try:
        asyncio.run(run(Path.cwd(), options.host, options.port, options.predictions))
    except HeadraceError as error:
        write_atomically(FAILED, json.dumps({"fact": error.fact, "remedy": error.remedy}))
        print(f"{error.fact} {error.remedy}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
