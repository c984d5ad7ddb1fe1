"""The commands about production parts: `migrate`, `mlflow`, `database`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.bounds import LAST_PORT

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the `headrace` command."""
    for command in (migrate, mlflow):
        app.command()(command)
    app.command(name="database-roles")(database_roles)


def migrate(
    to: Annotated[Path, typer.Option("--to", help="A file with the new place's variables, as NAME=VALUE lines.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Rehearse, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a home on files to PostgreSQL and S3. It is rehearsed, copied, compared; the old home stays as it is. What
    breaks off goes on with the same command. See docs/howto-production-parts.md.

    Example: headrace migrate --to production.env --dry-run
    """
    from headrace.cli import migrate as work

    work.migrate(to, dry_run=dry_run, as_json=as_json)


def mlflow(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=LAST_PORT, help="The port.")] = 5000,
    allowed_hosts: Annotated[
        str, typer.Option(help="Names that it may be called by from elsewhere, such as mlflow:5000; commas between.")
    ] = "",
) -> None:
    """Be MLflow's server over PostgreSQL and S3. HEADRACE_MLFLOW_DATABASE_URL_FILE and HEADRACE_ARTIFACTS_URL say
    which. Ctrl-C ends it. Clients need neither key: MLFLOW_TRACKING_URI=http://HOST:5000.

    Example: headrace mlflow --host 0.0.0.0 --allowed-hosts mlflow:5000
    """
    from headrace import wiring
    from headrace.cli.client import here

    found = wiring.tracking_command(here(), host=host, port=port, allowed_hosts=allowed_hosts)
    os.execve(sys.executable, found.command, found.environment)  # noqa: S606 - this interpreter and MLflow


def database_roles(
    apply: Annotated[bool, typer.Option("--apply", help="Do it, with HEADRACE_DATABASE_URL as the owner.")] = False,
    worker: Annotated[str, typer.Option(help="The role that workers log in as.")] = "headrace_worker",
    reader: Annotated[str, typer.Option(help="The role of dashboards and audits.")] = "headrace_reader",
    as_json: AsJson = False,
) -> None:
    """Print SQL that gives workers and readers what they need. No more: a worker adds ledger entries and can neither
    change nor delete one. With --apply the tables are made, too, where they are absent. A repeat changes nothing.

    Examples: headrace database-roles | psql "$OWNERS_URL"
              HEADRACE_DATABASE_URL_FILE=owner-url headrace database-roles --apply
    """
    from headrace.cli.client import here
    from headrace.cli.terminal import console, print_json
    from headrace.errors import InvalidConfig
    from headrace.lifecycle.upkeep import roles

    settings = here()
    if not apply:
        sql = roles.statements(worker=worker, reader=reader)
        if as_json:
            print_json({"sql": sql, "applied": False})
        else:
            sys.stdout.write(sql)
        return
    url = settings.database_url
    if url is None:
        raise InvalidConfig("HEADRACE_DATABASE_URL is not set.", "Name the owner's URL: HEADRACE_DATABASE_URL_FILE=…")
    roles.prepare(url, worker=worker, reader=reader)
    if as_json:
        print_json({"worker": worker, "reader": reader, "applied": True})
    else:
        console().print(f"[green]✓[/green] {worker} may work and {reader} may read; neither may change an entry")
