"""`headrace environment`: how two environments differ, and which there are. `headrace gc` removes what nobody needs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The locked environments of components.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Side = Annotated[str, typer.Argument(help="A version (digits/3, models:/digits/3), or `here`: the python on PATH.")]


@app.command()
def diff(one: Side, other: Side = "here", as_json: AsJson = False) -> None:
    """Say how two environments differ. Python, platform, packages; those that change answers first.

    Examples: headrace environment diff digits/3 here
              headrace environment diff digits/2 digits/3
    """
    from headrace.cli.baseline import find, open_rooms
    from headrace.cli.terminal import console, print_json
    from headrace.lifecycle.evidence.doors import baseline_of
    from headrace.lifecycle.upkeep import environments

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
    out.print(
        f"{sides[0].of} against {sides[1].of}: {len(found)} differences" if found else "nothing differs", markup=False
    )
    for sentence in found:
        out.print(f"  {sentence}", markup=False)


@app.command(name="list")
def show(as_json: AsJson = False) -> None:
    """Show the environments that are kept, and who needs them.

    Example: headrace environment list
    """
    from datetime import UTC, datetime

    from headrace import wiring
    from headrace.cli.client import here
    from headrace.cli.terminal import console, print_json, table
    from headrace.lifecycle.upkeep import environments

    settings = here().prepare()
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
