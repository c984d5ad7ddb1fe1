"""Commands about what runs: up, down, status."""

import sys
from contextlib import suppress
from typing import Any

from headrace import wiring
from headrace.cli import client as control
from headrace.cli import plain
from headrace.cli.terminal import console, good, print_json, text_of
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Target
from headrace.errors import HeadraceError, Unavailable
from headrace.lifecycle.home_lock import is_taken
from headrace.processes import stop_alone
from headrace.types import Json, Stage

WAIT_S = 60.0
#: Each component's model is loaded, one after the other.
UP_S = 1800.0
#: A control process that says nothing for so long hangs.
SILENT_S = 20.0
#: How this machine reaches what listens everywhere.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - named, not bound


def up(*, as_json: bool) -> None:
    """Start control, tracking pages and the production endpoints, and say where they are."""
    settings = read_settings()
    out = console(as_json=as_json)
    with out.status("starting …"):
        client = control.ensure(settings)
        answer = client.ask("POST", "/api/up", timeout_s=UP_S)
    show(answer, as_json=as_json)
    elsewhere = other_address(settings, client)
    if elsewhere:
        console(as_json=True).print(f"[yellow]![/yellow] {text_of(elsewhere)}")


def other_address(settings: Settings, client: control.Client) -> str:
    """Say so where the control process does not listen where HEADRACE_CONTROL says; empty where it does."""
    host, _, port = settings.control_address.rpartition(":")
    near = f"http://{LOOPBACK.get(host, host)}:{port}"
    if not host or client.process is None or client.url.rstrip("/") == near:
        return ""
    return (
        f"The control process runs already, at {client.url}, and keeps that address and its variables. "
        f"HEADRACE_CONTROL={settings.control_address} counts from its next start: headrace down, headrace up"
    )


def status(*, as_json: bool) -> None:
    """Show what runs; nothing is started for it."""
    settings = read_settings()
    client = control.find(settings)
    if client is None:
        show(at_rest(settings), as_json=as_json)
        return
    show(client.ask("GET", "/api/status"), as_json=as_json)


def at_rest(settings: Settings) -> dict[str, Json]:
    """Return what the ledger says while no control process runs."""
    if not settings.home.exists():
        return plain.at_rest(settings, [])
    ledger = wiring.ledger(settings)
    rows: list[dict[str, Json]] = []
    for name in ledger.components():
        serving = ledger.serving(name, Stage.PRODUCTION)
        rows.append(
            {
                "component": name,
                "production": serving.version if serving else None,
                "since": serving.at.isoformat() if serving else None,
            }
        )
    return plain.at_rest(settings, rows)


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print a status."""
    if as_json:
        print_json(answer)
        return
    sys.stdout.write(plain.status(answer) + "\n")


def down(*, as_json: bool) -> None:
    """Stop flows, endpoints, tracking pages and control, in this order, and wait until they are gone."""
    stopped = take_down(control.here())
    if as_json:
        print_json({"stopped": list(stopped)})
        return
    good(f"stopped: {', '.join(stopped) or 'nothing ran'}")


def take_down(settings: Settings) -> list[str]:
    """Stop all that this home runs and return its names.

    Raises:
        Conflict: a process holds this home and does not say where it is to be reached.
    """
    stopped: list[str] = []
    client = control.find(settings)
    if client is None and is_taken(settings):
        raise control.out_of_reach(settings, f"{settings.run / 'control.json'} does not name it")
    if client is not None and client.process is not None:
        for flow in running(client):
            # Where even that cannot be written, the flow ends with the process and goes on at the next `up`.
            with suppress(Unavailable):
                client.ask("POST", "/api/stop", flow=flow, actor=settings.actor)
                stopped.append(flow)
                for _ in client.events(flow, timeout_s=WAIT_S):
                    pass
        # Its endpoints are its children and stop by themselves, drained, below.
        stop_alone(client.process)
        stopped.append("control")
    stopped += remove_endpoints(wiring.target(settings))
    if wiring.stop_tracking(settings):
        stopped.append("MLflow")
    return stopped


def running(client: control.Client) -> list[str]:
    """Return the flows that a control process runs; none where it is silent, for it is ended by its pid anyway."""
    try:
        flows: list[str] = client.ask("GET", "/api/status", timeout_s=SILENT_S)["flows"]
        return flows
    except HeadraceError:
        return []


def remove_endpoints(target: Target) -> list[str]:
    """Drain and stop every endpoint of this home."""
    names = []
    for endpoint in target.endpoints():
        target.remove(endpoint.component, endpoint.stage)
        names.append(f"{endpoint.component} ({endpoint.stage.value})")
    return names
