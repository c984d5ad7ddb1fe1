"""The API of a worker with the role `control`, and what such workers do regularly.

It writes where it listens to `run/control.json`, readable by its owner only.
"""

import ipaddress
import json
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import uvicorn

from headrace import wiring
from headrace.config.settings import Settings
from headrace.dashboard.access import Access, Failures
from headrace.dashboard.api import Api, application
from headrace.errors import Conflict, HeadraceError, InvalidConfig, Unavailable
from headrace.files import write_atomically
from headrace.lifecycle.control import Control
from headrace.lifecycle.production import aliases, notify
from headrace.lifecycle.triggers.door import Door
from headrace.lifecycle.triggers.patrol import Patrol, settings_of
from headrace.lifecycle.upkeep.tokens import Tokens
from headrace.lifecycle.watching import due
from headrace.processes import name_of

LOG = logging.getLogger("headrace.control")
WATCH_S = 0.5
LAST_PORT = 65_535
PATROL_S = 1.0
#: How long the watch leaves a component alone whose settings cannot be read.
TROUBLE_S = 60.0
#: How soon it looks again where a window was due.
AGAIN_S = 2.0
#: So long what is being answered may take at the end, and what listens is cut off then.
STOP_S = 5.0


@dataclass(slots=True)
class ControlServer:
    """The API of a control worker, with what it does regularly.

    Attributes:
        listening: the socket that `listen` opened.
        ended: says to everybody that this worker ends.
    """

    control: Control
    listening: socket.socket
    ended: threading.Event
    url: str = ""
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer from now on."""
        rooms = self.control.rooms
        settings = rooms.settings
        tokens = Tokens(settings.home / "tokens.json", rooms.clock)
        self.url = own_url(*self.listening.getsockname()[:2])
        token = secrets.token_urlsafe(32)
        door = Door(rooms, self.control, lambda component: settings_of(rooms, component))
        access = Access(token, tokens, Failures(rooms.clock))
        app = application(Api(self.control, access, lambda: wiring.start_tracking(settings), self.ended))
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, log_config=None, timeout_graceful_shutdown=int(STOP_S)
            )
        )
        self._thread = threading.Thread(
            target=serve_api, args=(self._server, self.listening, settings, self.url, token), name="api", daemon=True
        )
        self._thread.start()
        projecting = threading.Thread(target=project_regularly, args=(self.control, self.ended), name="aliases")
        patrolling = threading.Thread(target=patrol_regularly, args=(self.control, door, self.ended), name="patrol")
        opening = threading.Thread(target=open_registry, args=(self.control,), name="registry")
        for thread in (projecting, patrolling, opening):
            thread.daemon = True
            thread.start()

    def is_answering(self) -> bool:
        """Tell whether the API still runs."""
        return self._thread is None or self._thread.is_alive()

    def stop(self) -> None:
        """Answer what was asked, and nothing more; who listens or is slow is cut off after `STOP_S`."""
        self.ended.set()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(2 * STOP_S)
        with suppress(FileNotFoundError):
            (self.control.rooms.settings.run / "control.json").unlink()


def listen(settings: Settings, tokens: Tokens) -> socket.socket:
    """Return the socket of the API, open before anything else is begun: what cannot be had ends the start.

    Raises:
        InvalidConfig: `HEADRACE_CONTROL` is no HOST:PORT.
        Conflict: it could be reached from elsewhere, and there is no token.
        Unavailable: somebody else listens there, or the address is not this machine's.
    """
    host, port = listen_at(settings, tokens)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Unavailable(
            f"The control process cannot listen at {settings.control_address or host}: {why}.",
            "End what listens there, or name another place: HEADRACE_CONTROL=127.0.0.1:8010",
        ) from error


def listen_at(settings: Settings, tokens: Tokens) -> tuple[str, int]:
    """Return where the API listens: loopback and a free port (0), or what `HEADRACE_CONTROL` says.

    Raises:
        InvalidConfig: it is no HOST:PORT.
        Conflict: it can be reached from elsewhere, and no token is there to keep strangers out.
    """
    address = settings.control_address
    if not address:
        return "127.0.0.1", 0
    host, _, port = address.rpartition(":")
    if not host or re.fullmatch("[0-9]{1,5}", port) is None or int(port) > LAST_PORT:
        raise InvalidConfig(
            f"HEADRACE_CONTROL is `{address}`, which is no HOST:PORT.", "HEADRACE_CONTROL=127.0.0.1:8010"
        )
    host = host.strip("[]")
    if not is_loopback(host) and not tokens.usable():
        raise Conflict(
            f"The control process is to listen at {address}, where others can reach it, and there is no token.",
            "Make one first: headrace token create NAME --role operator",
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address; a name is taken for one that others can."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_url(host: str, port: int) -> str:
    """Return how this machine's command line reaches the API."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - named, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_api(server: uvicorn.Server, listening: socket.socket, settings: Settings, url: str, token: str) -> None:
    """Answer until told to stop; say where once that is so."""

    def announce() -> None:
        while not server.started and not server.should_exit:
            threading.Event().wait(0.01)
        name = name_of(os.getpid())
        document = {"url": url, "token": token, **name.as_json()}
        write_atomically(settings.run / "control.json", json.dumps(document))

    threading.Thread(target=announce, daemon=True).start()
    server.run(sockets=[listening])


def open_registry(control: Control) -> None:
    """Import MLflow and open its store, which takes seconds, before the first release waits for it."""
    try:
        control.rooms.registry.alias("none", aliases.CHAMPION)
    except Exception:  # The thread's boundary: whoever needs the registry is told what is wrong with it.
        LOG.debug("the registry cannot be opened yet", exc_info=True)


def project_regularly(control: Control, ended: threading.Event) -> None:
    """Keep the aliases equal to the ledger."""
    told = ""
    while not ended.wait(WATCH_S):
        try:
            aliases.project(control.rooms)
            told = ""
        except Exception as error:  # The loop's boundary: ledger or registry may be away; the outbox keeps what it has.
            if told != repr(error):
                LOG.exception("aliases")
            told = repr(error)


def watch_regularly(control: Control, ended: threading.Event) -> None:
    """Start a watch flow for each window that is due; a second worker that does the same changes nothing."""
    next_look_s: dict[str, float] = {}
    told = ""
    while not ended.wait(WATCH_S):
        try:
            components = control.rooms.ledger.components()
            told = ""
        except Exception as error:  # The loop's boundary: the ledger may be away, and come back.
            if told != repr(error):
                LOG.exception("watch")
            told = repr(error)
            continue
        for component in components:
            now_s = control.rooms.clock.monotonic_s()
            if now_s < next_look_s.get(component, 0.0):
                continue
            next_look_s[component] = now_s + TROUBLE_S  # Where not even its settings can be read.
            try:
                pause_s = due.pause_s(control.rooms, component)
                next_look_s[component] = now_s + pause_s
                flow, _ = control.watch(component)
                if flow:  # There may be more; windows must not fill more quickly than they are judged.
                    next_look_s[component] = now_s + min(pause_s, AGAIN_S)
            except HeadraceError as error:
                LOG.warning("watch of %s: %s", component, error.fact)
            except Exception:  # The loop's boundary: one component's trouble must not end the watch of the others.
                LOG.exception("watch of %s", component)


def patrol_regularly(control: Control, door: Door, ended: threading.Event) -> None:
    """Look at all sources of triggers, guard the aliases, let approvals run out; a slow remote holds up only this."""
    patrol = Patrol(control.rooms, door)
    sender = notify.notifier(control.rooms)
    tasks: dict[str, tuple[float, Callable[[], object]]] = {
        "aliases": (2.0, control.guard_aliases),
        "approvals": (5.0, control.tidy_approvals),
        "triggers": (PATROL_S, patrol.look),
        "webhooks": (PATROL_S, (lambda: tell_problem(sender.send())) if sender else lambda: None),
    }
    told: dict[str, str] = {}
    next_s = dict.fromkeys(tasks, 0.0)
    while not ended.wait(PATROL_S):
        for name, (every_s, task) in tasks.items():
            now_s = control.rooms.clock.monotonic_s()
            if now_s < next_s[name]:
                continue
            next_s[name] = now_s + every_s
            try:
                task()
                told.pop(name, None)
            except Exception as error:  # The loop's boundary: registry or ledger may be away, and come back.
                if told.get(name) != repr(error):
                    LOG.exception("%s", name)
                told[name] = repr(error)


def tell_problem(problem: str) -> None:
    """Write down what a task could not do."""
    if problem:
        LOG.warning("%s", problem)
