"""Commands that read what was decided."""

import sys

from headrace import wiring
from headrace.cli import client as control
from headrace.cli import plain
from headrace.cli.terminal import print_json
from headrace.config.settings import read_settings
from headrace.ledger.base import no_component


def history(component: str, *, limit: int, as_json: bool) -> None:
    """Show a component's ledger, newest first."""
    settings = read_settings()
    client = control.elsewhere(settings)
    if client is not None:
        answer = client.ask("GET", "/api/history", component=component, limit=limit)
        if as_json:
            print_json(answer)
        else:
            sys.stdout.write(plain.history(answer["entries"]) + "\n")
        return
    ledger = wiring.ledger(settings.prepare())
    entries = ledger.history(component, limit=limit)
    if not entries:
        raise no_component(ledger, component)
    if as_json:
        print_json({"component": component, "entries": [entry.as_json() for entry in entries]})
        return
    sys.stdout.write(plain.history([entry.as_json() for entry in entries]) + "\n")
