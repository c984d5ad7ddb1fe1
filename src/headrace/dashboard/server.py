"""The control process: durable engine, watch and API of one installation. Started by `headrace up`.

One runs per home (a lock holds that). It writes where it listens to `run/control.json`, readable by its owner only.
"""

import ipaddress
import json
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from headrace import wiring
from headrace.config.settings import Settings, read_settings
from headrace.dashboard.access import Access, Failures
from headrace.dashboard.api import Api, application
from headrace.errors import Conflict, HeadraceError, InvalidConfig
from headrace.files import write_atomically
from headrace.lifecycle import aliases, due, notify
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Role
from headrace.lifecycle.engine import start_engine
from headrace.lifecycle.flows import FLOWS, PHASES
from headrace.lifecycle.home_lock import take_lock
from headrace.lifecycle.tokens import Tokens
from headrace.lifecycle.triggers.door import Door
from headrace.lifecycle.triggers.patrol import Patrol, settings_of
from headrace.processes import free_port, name_of

LOG = logging.getLogger("headrace.control")
WATCH_S = 0.5
PATROL_S = 1.0


def main() -> None:
    """Run until SIGTERM. Endpoints go on without this process."""
    # Our own doings and the troubles of others; libraries tell each request and each table otherwise.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("headrace").setLevel(logging.INFO)
    settings = read_settings().prepare()
    try:
        lock = take_lock(settings)
    except HeadraceError as error:
        sys.exit(error.fact)
    rooms = wiring.rooms(settings)
    engine = start_engine(rooms, roles=list(Role), flows=FLOWS, phases=PHASES)
    control = Control(rooms, engine)
    tokens = Tokens(settings.home / "tokens.json", rooms.clock)
    try:
        host, port = listen_at(settings, tokens)
    except HeadraceError as error:
        sys.exit(f"{error.fact} {error.remedy}")
    token = secrets.token_urlsafe(32)
    door = Door(rooms, control, lambda component: settings_of(rooms, component))
    access = Access(token, tokens, Failures(rooms.clock))
    app = application(Api(control, door, access, lambda: wiring.start_tracking(settings)))
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False))
    ended = threading.Event()

    def finish(_number: int, _frame: FrameType | None) -> None:
        ended.set()
        server.should_exit = True

    threads = [
        threading.Thread(target=serve_api, args=(server, settings, own_url(host, port), token), name="api"),
        threading.Thread(target=look_regularly, args=(control, ended), name="watch", daemon=True),
        threading.Thread(target=patrol_regularly, args=(control, door, ended), name="patrol", daemon=True),
        threading.Thread(target=control.bring_up, name="bring-up", daemon=True),
    ]
    signal.signal(signal.SIGTERM, finish)
    signal.signal(signal.SIGINT, finish)
    for thread in threads:
        thread.start()
    threads[0].join()
    ended.set()
    with suppress(FileNotFoundError):
        (settings.run / "control.json").unlink()
    engine.stop()
    os.close(lock)
    # Steps that wait for a child have nothing more to do here; the child is found again at the next start.
    os._exit(0)


def listen_at(settings: Settings, tokens: Tokens) -> tuple[str, int]:
    """Return where the API listens: loopback and a free port, or what `HEADRACE_CONTROL` says.

    Raises:
        InvalidConfig: it is no HOST:PORT.
        Conflict: it can be reached from elsewhere, and no token is there to keep strangers out.
    """
    address = settings.control_address
    if not address:
        return "127.0.0.1", free_port()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
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


def serve_api(server: uvicorn.Server, settings: Settings, url: str, token: str) -> None:
    """Answer until told to stop; say where once the socket is open."""

    def announce() -> None:
        while not server.started and not server.should_exit:
            threading.Event().wait(0.01)
        name = name_of(os.getpid())
        document = {"url": url, "token": token, **name.as_json()}
        write_atomically(settings.run / "control.json", json.dumps(document))

    threading.Thread(target=announce, daemon=True).start()
    server.run()


def look_regularly(control: Control, ended: threading.Event) -> None:
    """Start a watch flow for each window that is due, and keep the aliases equal to the ledger."""
    next_look_s: dict[str, float] = {}
    told = ""
    while not ended.wait(WATCH_S):
        try:
            components = control.rooms.ledger.components()
            aliases.project(control.rooms)
            told = ""
        except Exception as error:  # The loop's boundary: ledger or registry may be away; the outbox keeps what it has.
            if told != repr(error):
                LOG.exception("aliases")
            told = repr(error)
            continue
        for component in components:
            now_s = control.rooms.clock.monotonic_s()
            if now_s < next_look_s.get(component, 0.0):
                continue
            try:
                next_look_s[component] = now_s + due.pause_s(control.rooms, component)
                request = due.standing(control.rooms, component).request
                if request is not None:
                    control.engine.start("watch", request.flow_id, request)
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


if __name__ == "__main__":
    main()
