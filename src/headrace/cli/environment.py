"""`headrace environment`: how two environments differ, which there are, and what nobody needs any more."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The locked environments of components.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Side = Annotated[str, typer.Argument(help="A version (digits/3, models:/digits/3), or `here`: the python on PATH.")]


@app.command()
def diff(one: Side, other: Side = "here", as_json: AsJson = False) -> None:
    """Say how two environments differ: Python, platform, packages; those that change answers first.

    Examples: headrace environment diff digits/3 here
              headrace environment diff digits/2 digits/3
    """
    from headrace.cli.baseline import find, open_rooms
    from headrace.cli.terminal import console, print_json
    from headrace.lifecycle import environments
    from headrace.lifecycle.doors import baseline_of

    rooms = open_rooms()
    sides = []
    for name in (one, other):
        if name == environments.HERE:
            sides.append(environments.here(rooms.settings))
        else:
            record = find(rooms, name)
            sides.append(environments.of_version(record, baseline_of(rooms, record)))
    found = environments.differences(*sides)
    if as_json:
        print_json({"one": sides[0].of, "other": sides[1].of, "differences": [*found]})
        return
    out = console()
    out.print(f"{sides[0].of} against {sides[1].of}: {len(found)} differences" if found else "nothing differs")
    for sentence in found:
        out.print(f"  {sentence}", markup=False)


@app.command(name="list")
def show(as_json: AsJson = False) -> None:
    """Show the environments that are kept, and the versions that need them.

    Example: headrace environment list
    """
    from datetime import UTC, datetime

    from headrace import wiring
    from headrace.cli.terminal import console, print_json, table
    from headrace.config.settings import read_settings
    from headrace.lifecycle import environments

    settings = read_settings().prepare()
    found = environments.environments(settings, environments.needed(settings, wiring.ledger))
    if as_json:
        print_json(
            {
                "folder": str(settings.environments),
                "environments": [
                    {
                        "digest": use.digest, "python": use.python, "packages": use.packages,
                        "last_used": datetime.fromtimestamp(use.last_used, UTC).isoformat(timespec="seconds"),
                        "needed_by": [*use.versions],
                    }
                    for use in found
                ],
            }
        )  # fmt: skip
        return
    rows = [
        [
            use.digest[:12], use.python, str(use.packages),
            f"{datetime.fromtimestamp(use.last_used, UTC).astimezone():%Y-%m-%d %H:%M}",
            ", ".join(Path(version).name for version in use.versions[:3])
            + (f" and {len(use.versions) - 3} more" if len(use.versions) > 3 else ""),
        ]
        for use in found
    ]  # fmt: skip
    console().print(table("", ["environment", "Python", "packages", "last used", "needed by"], rows))


@app.command()
def collect(
    unused_for: Annotated[str, typer.Option(help="Leave alone what was used since: 90s, 6h, 7d.")] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the environments that no version of any home needs, that were not used lately, and that nothing runs in.

    A version needs its environment until the ledger says that it was refused. A removed environment can be made again
    from the version's lock: headrace restore.

    Example: headrace environment collect --unused-for 1d
    """
    from headrace import wiring
    from headrace.cli.terminal import console, print_json
    from headrace.clock import SystemClock
    from headrace.config.component import seconds
    from headrace.config.settings import read_settings
    from headrace.environment.garbage import collect_garbage
    from headrace.errors import InvalidInput
    from headrace.lifecycle import environments

    settings = read_settings().prepare()
    try:
        unused_for_s = float(seconds(unused_for))
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error
    keep = environments.needed(settings, wiring.ledger)
    found = collect_garbage(settings, keep=keep, clock=SystemClock(), unused_for_s=unused_for_s, is_rehearsal=dry_run)
    if as_json:
        print_json(
            {"removed": [] if dry_run else [*found.environments], "would_remove": [*found.environments],
             "bytes": found.bytes, "kept": [*keep]}
        )  # fmt: skip
        return
    verb = "would be removed" if dry_run else "removed"
    console().print(
        f"[green]✓[/green] {len(found.environments)} environments {verb}, {found.bytes / 1e6:.0f} MB that nothing "
        f"else shares; {len(keep)} are needed by versions"
    )
