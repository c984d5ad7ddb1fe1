"""Commands that read what was decided."""

from headrace import wiring
from headrace.cli.terminal import console, print_json, table
from headrace.config.settings import read_settings
from headrace.errors import NotFound
from headrace.ledger.base import Entry


def history(component: str, *, limit: int, as_json: bool) -> None:
    """Show a component's ledger, newest first."""
    settings = read_settings()
    ledger = wiring.ledger(settings.prepare())
    entries = ledger.history(component, limit=limit)
    if not entries:
        known = ", ".join(ledger.components()) or "none yet"
        raise NotFound(f"The ledger in {settings.home} knows no component `{component}` (it has: {known}).")
    if as_json:
        print_json({"component": component, "entries": [entry.as_json() for entry in entries]})
        return
    rows = [
        [
            str(entry.sequence),
            f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
            entry.action.value,
            moved(entry),
            str(entry.actor),
            entry.reason,
        ]
        for entry in entries
    ]
    console().print(table("", ["#", "when", "what", "version", "who", "why"], rows))


def moved(entry: Entry) -> str:
    """Return `v1 → v2` for what changed production, `v2` for the rest."""
    now = "–" if entry.version is None else f"v{entry.version}"
    if entry.stage is None:
        return now
    return f"{'–' if entry.from_version is None else f'v{entry.from_version}'} → {now}"
