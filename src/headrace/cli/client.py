"""Talking to the control process: finding it, starting it, asking it."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import msgspec

from headrace.config.settings import Settings, read_settings
from headrace.errors import Conflict, HeadraceError, InvalidConfig, InvalidInput, Unavailable
from headrace.lifecycle.events import Event, Mark
from headrace.lifecycle.home_lock import holder, is_taken
from headrace.processes import ProcessName, is_alive, start_detached
from headrace.types import Json

#: A machine that is busy takes long to start what a quiet one starts in two seconds; what has died is told at once.
START_S = 180.0
POLL_S = 0.2


class Answered(HeadraceError):
    """An error that the control process told; it keeps its own exit code."""

    def __init__(self, fact: str, remedy: str, exit_code: int) -> None:
        super().__init__(fact, remedy)
        self.exit_code = exit_code  # type: ignore[misc]


class Announced(msgspec.Struct, frozen=True):
    """What the control process writes to `run/control.json`."""

    url: Annotated[str, msgspec.Meta(pattern=r"^http://[^/]+:[0-9]{1,5}/?$")]
    token: str
    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    started: float


class Refusal(msgspec.Struct, frozen=True):
    """What the control process answers where it does not do what it was asked."""

    fact: str
    remedy: str = ""
    exit_code: int = 1


@dataclass(frozen=True, slots=True)
class Client:
    """One control process, as its clients see it."""

    url: str
    process: ProcessName | None  #: None where it runs on another machine
    http: httpx.Client

    def ask(self, method: str, path: str, *, timeout_s: float = 120.0, **body: Json) -> Any:
        """Return the answer's JSON. Raises what the control process told, Unavailable, or InvalidInput."""
        check_text(body)
        try:
            answer = self.http.request(
                method,
                path,
                params={k: str(v) for k, v in body.items()} if method == "GET" else None,
                json=body if method != "GET" else None,
                timeout=timeout_s,
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The control process at {self.url} does not answer ({type(error).__name__}).", self._again()
            ) from error
        try:
            if answer.is_success:
                return answer.json()
            told = msgspec.json.decode(answer.content, type=Refusal)
        except ValueError as error:
            raise Unavailable(
                f"What answers at {self.url} is no control process of this headrace: {answer.status_code} to {path}.",
                self._again(),
            ) from error
        raise Answered(told.fact, told.remedy, told.exit_code)

    def _again(self) -> str:
        if self.process is None:
            return "See whether HEADRACE_URL is right, and start it on its own machine with `headrace up`."
        return "Start it again with `headrace down` and `headrace up`."

    def events(self, flow: str, *, after: int = 0, timeout_s: float = math.inf) -> Iterator[Event]:
        """Yield a flow's events from number `after` on as they come, the last being its end.

        Raises:
            Unavailable: it did not end in time, or the control process does not answer.
        """
        seen, deadline = after, time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = self.ask("GET", "/api/events", flow=flow, after=seen)["events"]
            for document in found:
                event = Event(**{**document, "mark": Mark(document["mark"])})
                yield event
                if event.mark is Mark.ENDED:
                    return
            seen += len(found)
            time.sleep(POLL_S)
        raise Unavailable(f"Flow {flow} did not end within {timeout_s:.0f} s.", f"Follow it: headrace follow {flow}")


def find(settings: Settings) -> Client | None:
    """Return the control process of this home, or the one that HEADRACE_URL names; None where none runs.

    Raises:
        Conflict: one runs, and the file that says where holds something else.
        InvalidConfig: HEADRACE_URL is no address, or HEADRACE_TOKEN no token.
    """
    if settings.control_url:
        return _named(settings.control_url, settings.variables.get("HEADRACE_TOKEN", "").strip())
    path = settings.run / "control.json"
    try:
        told = msgspec.json.decode(path.read_bytes(), type=Announced)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeError) as error:
        if is_taken(settings):
            raise out_of_reach(settings, f"{path} does not say where, for it holds something else") from error
        return None
    process = ProcessName(told.pid, told.started)
    if not is_alive(process):
        return None
    headers = {"authorization": f"Bearer {told.token}"}
    # Plain HTTP on loopback: reading the machine's certificates would cost more than the request.
    http = httpx.Client(base_url=told.url, headers=headers, trust_env=False, verify=False)  # noqa: S501
    return Client(told.url, process, http)


def _named(url: str, token: str) -> Client:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidConfig(f"HEADRACE_URL is no address: {error}.", "export HEADRACE_URL=http://HOST:PORT") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidConfig(
            f"HEADRACE_URL is {url}, which is no address of a server.", "export HEADRACE_URL=http://HOST:PORT"
        )
    if not (token.isascii() and token.isprintable()):
        raise InvalidConfig(
            "HEADRACE_TOKEN holds characters that no token has.", "Set it to what `headrace token create` printed."
        )
    return Client(url, None, httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}))


def out_of_reach(settings: Settings, why: str) -> Conflict:
    """Return what to tell where a process holds this home and commands cannot reach it."""
    pid = holder(settings)
    named = f"Process {pid}" if pid else "A process"
    end = f"kill {pid}" if pid else f"fuser -k {settings.run / 'control.lock'}"
    return Conflict(
        f"{named} works on {settings.home}, and {why}.",
        f"Where it has only begun, or is just ending, wait some seconds and repeat the command; else end it: {end}",
    )


def check_text(body: Mapping[str, Json]) -> None:
    """Refuse bytes from arguments and variables that are no text. Raises InvalidInput."""
    for name, value in body.items():
        if not isinstance(value, str):
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"The {name} {value[:40]!a} is no UTF-8 text.",
                "Set HEADRACE_ACTOR to UTF-8 text, or leave it out." if name == "actor" else "Type it again in UTF-8.",
            ) from error


def elsewhere(settings: Settings) -> Client | None:
    """Return the control process that HEADRACE_URL names; None where this machine's own files are meant."""
    return find(settings) if settings.control_url else None


def here() -> Settings:
    """Return the settings for a command about this machine's own files and processes.

    Raises:
        Conflict: HEADRACE_URL names another control process, so that these are not what is meant.
    """
    settings = read_settings()
    if settings.control_url:
        raise Conflict(
            f"This command is about this machine's own files and processes, and HEADRACE_URL names "
            f"{settings.control_url}.",
            "Type it on that machine, or leave HEADRACE_URL out here: env -u HEADRACE_URL headrace …",
        )
    return settings


def ensure(settings: Settings) -> Client:
    """Return the control process of this home, starting it where none runs, or waiting for one that starts.

    Raises:
        Unavailable: it did not start; the message has its last words.
    """
    client = find(settings)
    if client is not None:
        return client
    settings.prepare()
    log = settings.run / "control.log"
    began = log.stat().st_size if log.exists() else 0
    process = start_detached(
        [sys.executable, "-m", "headrace.dashboard.worker"], env=dict(settings.variables), cwd=settings.home, log=log
    )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        client = find(settings)
        if client is not None:
            return client
        # Of two commands at once one starts it, and the other's process ends at the lock.
        if not is_alive(process) and not is_taken(settings):
            break
        time.sleep(0.05)
    words = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
    last = words[-1] if words else "it said nothing"
    raise Unavailable(f"The control process did not start: {last}", f"Its log is {log}.")
