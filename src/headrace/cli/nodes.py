"""The commands about workers: `worker`, `nodes`, `drain`, `restart`, `logs`."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
NodeName = Annotated[str, typer.Argument(help="A node's name, from `headrace nodes`.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the `headrace` command."""
    for command in (worker, nodes, drain, restart, logs):
        app.command()(command)


def worker(
    role: Annotated[
        str, typer.Option(help="What it plays: control, train, serve, monitor, separated by commas; all by default.")
    ] = "",
    name: Annotated[str, typer.Option(help="What it is called; HEADRACE_NODE or the host's name by default.")] = "",
    label: Annotated[str, typer.Option(help="What else is to be known about it, such as gpu.")] = "",
) -> None:
    """Be one worker of an installation on PostgreSQL. Ctrl-C ends it. See docs/howto-several-machines.md.

    Example: headrace worker --role train --label gpu
    """
    from headrace.cli import workers

    workers.work(role, name=name, label=label)


def nodes(as_json: AsJson = False) -> None:
    """Show the workers: where each lives and what it does. With roles, processors, memory, disk, GPUs, and when
    each was heard last.

    Example: headrace nodes --json
    """
    from headrace.cli import workers

    workers.show(as_json=as_json)


def drain(node: NodeName, as_json: AsJson = False) -> None:
    """Let a worker end what it does and take nothing new. `headrace restart` lets it work again.

    Example: headrace drain train-1
    """
    from headrace.cli import workers

    workers.drain(node, as_json=as_json)


def restart(node: NodeName, as_json: AsJson = False) -> None:
    """Let a worker begin anew, and take work again. Trainings and endpoints go on meanwhile.

    Example: headrace restart train-1
    """
    from headrace.cli import workers

    workers.restart(node, as_json=as_json)


def logs(
    name: Annotated[str, typer.Argument(help="A node or a component; all nodes by default.")] = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines of each log.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show what workers, endpoints and trainings wrote last.

    Examples: headrace logs           the workers
              headrace logs digits    the component's endpoint and its newest flow
    """
    from headrace.cli import workers

    workers.logs(name, lines=lines, as_json=as_json)
