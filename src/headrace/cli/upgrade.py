"""`headrace upgrade`: this home's ledger is brought to the schema that this headrace knows."""

from headrace.cli import client as control
from headrace.cli.terminal import console, print_json
from headrace.clock import SystemClock
from headrace.config.settings import Settings
from headrace.errors import Conflict, HeadraceError
from headrace.lifecycle.upkeep.upgrade import Upgraded
from headrace.lifecycle.upkeep.upgrade import upgrade as perform


def upgrade(*, dry_run: bool, as_json: bool) -> None:
    """Back up, rehearse, compare, then do it."""
    settings = control.here()
    refuse_while_it_runs(settings)
    found = perform(settings, SystemClock(), is_rehearsal=dry_run)
    if as_json:
        print_json(found.as_json())
        return
    for line in lines(found, settings):
        console().print(line, markup=False)


def refuse_while_it_runs(settings: Settings) -> None:
    """Raise Conflict where the control process of this home runs, naming its flows."""
    client = control.find(settings)
    if client is None:
        return
    try:
        flows = client.ask("GET", "/api/status")["flows"]
    except HeadraceError:
        flows = []
    what = f"{len(flows)} flows run ({', '.join(flows[:3])})" if flows else "The control process runs"
    raise Conflict(f"{what} in {settings.home}.", "Stop everything with `headrace down`, then repeat the command.")


def lines(found: Upgraded, settings: Settings) -> list[str]:
    """Return what was done, for people."""
    if not found.before:
        return [f"There is no ledger in {settings.home} yet: nothing to upgrade."]
    if found.before == found.after:
        return [f"The ledger has schema {found.after} already: nothing to upgrade."]
    rows = ", ".join(f"{count} {name}" for name, count in found.rows.items())
    told = [f"rehearsed on a copy: {rows} came through schema {found.before} → {found.after} unchanged, chains whole"]
    if not found.is_done:
        return [*told, "Nothing was changed. Without --dry-run it is done."]
    return [
        *told,
        f"backup: {found.backup}",
        f"✓ the ledger has schema {found.after}. Start again with `headrace up`.",
    ]
