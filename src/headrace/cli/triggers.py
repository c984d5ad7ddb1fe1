"""`headrace triggers …`: what starts releases without a command, and what became of each event."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.bounds import MOST_ENTRIES

if TYPE_CHECKING:
    from headrace.types import Json

app = typer.Typer(no_args_is_help=True, help="What starts releases without a command.")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Name = Annotated[str, typer.Argument(help="The component's name; all by default.")]


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="The component's folder, where headrace.yaml lies.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Look at the sources that headrace.yaml names, from now on. `headrace run` does so too.

    Example: headrace triggers watch examples/digits
    """
    from headrace.cli import client as control
    from headrace.config.settings import read_settings

    client = control.ensure(read_settings())
    _show(
        [client.ask("POST", "/api/triggers/watch", folder=str(folder.absolute()))],
        as_json=as_json,
    )


@app.command()
def forget(
    component: Annotated[str, typer.Argument(help="The component's name.")],
    as_json: AsJson = False,
) -> None:
    """Look at a component's sources no more. What was seen stays in the log.

    Example: headrace triggers forget digits
    """
    from headrace.cli import client as control
    from headrace.cli.terminal import good, print_json
    from headrace.config.settings import read_settings

    answer = control.ensure(read_settings()).ask("POST", "/api/triggers/forget", component=component)
    if as_json:
        print_json(answer)
        return
    good(f"{component} is watched no more")


@app.command()
def show(
    component: Name = "",
    limit: Annotated[int, typer.Option(min=1, max=MOST_ENTRIES, help="How many events at most, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what is watched, what waits, and what became of each event. That is: started, repeated, refused, and why.

    Example: headrace triggers show digits
    """
    from headrace import wiring
    from headrace.cli import client as control
    from headrace.config.settings import read_settings
    from headrace.lifecycle.triggers.state import all_states, state_of

    client = control.elsewhere(read_settings())
    if client is not None:
        asked: dict[str, Json] = {"component": component} if component else {}
        found = client.ask("GET", "/api/triggers", timeout_s=120, **asked)
        _show([found] if component else found["components"], as_json=as_json)
        return
    rooms = wiring.rooms(read_settings().prepare())
    _show([state_of(rooms, component, limit=limit)] if component else all_states(rooms, limit=limit), as_json=as_json)


def _show(states: list[dict[str, Any]], *, as_json: bool) -> None:

    from headrace.cli.terminal import console, print_json, table, text_of

    if as_json:
        print_json({"components": [*states]})
        return
    out = console()
    if not states:
        out.print("Nothing is watched yet. Begin with `headrace triggers watch FOLDER`.")
    for state in states:
        sources = ", ".join(state["sources"]) or "nothing: see `triggers` and `retrain.on` in docs/configuration.md"
        folder = text_of(state["folder"] or "not watched")
        out.print(f"[bold]{state['component']}[/bold]  {folder}  looks at {text_of(sources)}")
        for reason in state["waiting"]:
            out.print(f"  waiting  {text_of(reason)}")
        for source, problem in state["problems"].items():
            out.print(f"  [yellow]![/yellow] {text_of(source)}: {text_of(problem)}")
        rows = [[line["at"][:19], line["source"], line["became"], line["actor"], line["fact"]] for line in state["log"]]
        if rows:
            out.print(table("", ["when (UTC)", "source", "became", "who", "what"], rows))
