"""The command groups about evidence: `headrace baseline …`, `headrace ledger …`, `check`, `restore`, `reproduce`,
`adopt`."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import environment, image, signers

Version = Annotated[str, typer.Argument(help="A version: digits/3; digits alone is its champion.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

baseline = typer.Typer(no_args_is_help=True, help="What a version is made of, and whether it still is.")
ledger = typer.Typer(no_args_is_help=True, help="The record of every decision.")


def add_to(app: typer.Typer) -> None:
    """Add the groups and commands to the `headrace` command."""
    app.add_typer(baseline, name="baseline")
    app.add_typer(ledger, name="ledger")
    app.add_typer(environment.app, name="environment")
    app.add_typer(signers.app, name="signers")
    app.add_typer(image.app, name="image")
    app.command()(check)
    app.command()(restore)
    app.command()(reproduce)
    app.command()(adopt)


@baseline.command()
def show(version: Version, as_json: AsJson = False) -> None:
    """Show what a version is made of, and how each fact is known. Code, data, parameters, environment, model, golden
    answers.

    Example: headrace baseline show digits/3
    """
    from headrace.cli import baseline as work

    work.show(version, as_json=as_json)


@baseline.command()
def verify(
    version: Version,
    model: Annotated[Path | None, typer.Option(help="Check this copy of the model folder instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every digest and signature; name what differs.

    Example: headrace baseline verify digits/3
    """
    from headrace.cli import baseline as work

    work.check_all(version, model=model, as_json=as_json)


@baseline.command()
def diff(one: Version, other: Version, as_json: AsJson = False) -> None:
    """Say in words what changed between two versions. Commits, data rows, parameters, packages, metrics.

    Example: headrace baseline diff digits/1 digits/2
    """
    from headrace.cli import baseline as work

    work.diff(one, other, as_json=as_json)


@baseline.command()
def export(
    version: Version,
    to: Annotated[
        Path | None, typer.Option("--to", "-o", help="The file to write; standard output without it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model card in Markdown, from the same facts.

    Example: headrace baseline export digits/3 -o MODEL_CARD.md
    """
    from headrace.cli import baseline as work

    work.export(version, to=to, as_json=as_json)


@ledger.command(name="verify")
def verify_ledger(
    component: Annotated[str, typer.Argument(help="The component's name; all without it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Recompute the hash chains. They are compared with what release tags anchor.

    Example: headrace ledger verify
    """
    from headrace.cli import baseline as work

    work.verify_ledger(component, as_json=as_json)


def check(version: Version, as_json: AsJson = False) -> None:
    """Try a version in the interpreter that will serve it. Every finding is listed with its remedy.

    Example: headrace check digits/3
    """
    from headrace.cli import baseline as work

    work.preflight(version, as_json=as_json)


def reproduce(
    version: Version,
    here: Annotated[
        bool, typer.Option("--here", help="From the project as it lies there, not from its commit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a version again from its baseline. It tells: identical, equivalent, or which input differs.

    Example: headrace reproduce digits/3
    """
    from headrace.cli import baseline as work

    work.reproduce(version, here=here, as_json=as_json)


def restore(version: Version, as_json: AsJson = False) -> None:
    """Bring back a version's model files and environment. They come from the registry and the lock, and are checked.

    Example: headrace restore digits/3
    """
    from headrace.cli import baseline as work

    work.restore(version, as_json=as_json)


def adopt(
    uri: Annotated[str, typer.Argument(help="A registered version: models:/NAME/3.")],
    folder: Annotated[Path | None, typer.Option(help="Where its headrace.yaml lies; defaults without one.")] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it goes into the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Seal a version that headrace did not train. Digests are taken now, the rest is as stated.

    `headrace run FOLDER --version 3` judges it then, and brings it to production.

    Example: headrace adopt models:/churn/3 -m "it served before headrace"
    """
    from headrace.cli import baseline as work

    work.adopt(uri, folder=folder, reason=reason, as_json=as_json)
