"""The control process: durable engine, watch and API of one installation. Started by `headrace up`.

One runs per home (a lock holds that). It writes where it listens to `run/control.json`, readable by its owner only.
"""

import fcntl
import json
import logging
import os
import secrets
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

import uvicorn

from headrace import wiring
from headrace.config.settings import Settings, read_settings
from headrace.dashboard.api import application
from headrace.errors import Conflict, HeadraceError
from headrace.files import write_atomically
from headrace.lifecycle import aliases, watch
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Role
from headrace.lifecycle.engine import start_engine
from headrace.lifecycle.flows import FLOWS, PHASES
from headrace.processes import free_port, name_of

LOG = logging.getLogger("headrace.control")
WATCH_S = 0.5


def main() -> None:
    """Run until SIGTERM. Endpoints go on without this process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = read_settings().prepare()
    try:
        lock = take_lock(settings)
    except HeadraceError as error:
        sys.exit(error.fact)
    rooms = wiring.rooms(settings)
    engine = start_engine(rooms, roles=list(Role), flows=FLOWS, phases=PHASES)
    control = Control(rooms, engine)
    token, port = secrets.token_urlsafe(32), free_port()
    app = application(control, token, lambda: wiring.start_tracking(settings))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False))
    ended = threading.Event()

    def finish(_number: int, _frame: FrameType | None) -> None:
        ended.set()
        server.should_exit = True

    threads = [
        threading.Thread(target=serve_api, args=(server, settings, port, token), name="api"),
        threading.Thread(target=look_regularly, args=(control, ended), name="watch", daemon=True),
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


def take_lock(settings: Settings) -> int:
    """Hold the home's lock until this process ends. Raises Conflict."""
    handle = os.open(settings.run / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Conflict(
            f"Another control process runs for {settings.home}.", "Use it, or `headrace down` first."
        ) from error
    return handle


def serve_api(server: uvicorn.Server, settings: Settings, port: int, token: str) -> None:
    """Answer until told to stop; say where once the socket is open."""

    def announce() -> None:
        while not server.started and not server.should_exit:
            threading.Event().wait(0.01)
        name = name_of(os.getpid())
        document = {"url": f"http://127.0.0.1:{port}", "token": token, **name.as_json()}
        write_atomically(settings.run / "control.json", json.dumps(document))

    threading.Thread(target=announce, daemon=True).start()
    server.run()


def look_regularly(control: Control, ended: threading.Event) -> None:
    """Start a watch flow for each window that is due, and keep the aliases equal to the ledger."""
    next_look_s: dict[str, float] = {}
    while not ended.wait(WATCH_S):
        try:
            aliases.project(control.rooms)
        except Exception:  # The loop's boundary: the registry may be away; the outbox keeps what is to be written.
            LOG.exception("aliases")
        for component in control.rooms.ledger.components():
            now_s = control.rooms.clock.monotonic_s()
            if now_s < next_look_s.get(component, 0.0):
                continue
            try:
                next_look_s[component] = now_s + watch.pause_s(control.rooms, component)
                request = watch.due(control.rooms, component)
                if request is not None:
                    control.engine.start("watch", request.flow_id, request)
            except HeadraceError as error:
                LOG.warning("watch of %s: %s", component, error.fact)
            except Exception:  # The loop's boundary: one component's trouble must not end the watch of the others.
                LOG.exception("watch of %s", component)


if __name__ == "__main__":
    main()
