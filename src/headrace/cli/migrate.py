"""`headrace migrate`: from a home on files to PostgreSQL and an object store."""

import sys
from pathlib import Path

from headrace import wiring
from headrace.cli.client import here
from headrace.cli.terminal import console, print_json
from headrace.cli.upgrade import refuse_while_it_runs
from headrace.clock import SystemClock
from headrace.config.settings import read_settings
from headrace.errors import Conflict
from headrace.lifecycle.migration.move import Migrated
from headrace.lifecycle.migration.move import migrate as perform
from headrace.lifecycle.migration.there import settings_there


def migrate(to: Path, *, dry_run: bool, as_json: bool) -> None:
    """Rehearse, copy, compare."""
    settings = here()
    there = read_settings(settings_there(settings.variables, to))
    refuse_while_it_runs(settings)
    if wiring.is_tracking_started(settings):
        raise Conflict("MLflow's pages run on this home.", "Stop them first: headrace down")
    try:
        found = perform(
            settings, there, wiring.target(settings), SystemClock(), is_rehearsal=dry_run,
            told=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    except KeyboardInterrupt:
        print("Stopped. The old home is as it was; the same command goes on.", file=sys.stderr)
        raise
    if as_json:
        print_json(found.as_json())
        return
    for line in lines(found, to):
        console().print(line, markup=False, soft_wrap=True)


def lines(found: Migrated, to: Path) -> list[str]:
    """Return what was done, for people."""
    if found.was_done:
        return [f"{found.home} was made from {found.source} before, and is ready.", *_next(to)]
    told = [f"{len(found.tables)} tables and {len(found.predictions)} components' predictions came through, counts and "
            "digests equal"]  # fmt: skip
    if not found.is_done:
        return [f"rehearsed: {told[0]}. Nothing was changed; without --dry-run it is done."]
    what = f"{found.files['files']} files of the home"
    if found.artifacts:
        what += f" and {found.artifacts['files']} artifacts"
    return [
        f"✓ {told[0]}; {what} were read back and are equal.",
        f"The old home is as it was: {found.source}",
        *_next(to),
    ]


def _next(to: Path) -> list[str]:
    return [f"Go on there:  set -a; . {to}; set +a; headrace up"]
