"""The `headrace` command. Each group's work is imported when it is called; `--help` loads nothing heavy."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from headrace.cli import evidence, monitor, nodes, parts, predictions, tokens, triggers
from headrace.cli.bounds import LAST_PORT, LAST_VERSION, MOST_ENTRIES
from headrace.cli.sections import Sections

if TYPE_CHECKING:
    from headrace.errors import HeadraceError

app = typer.Typer(
    cls=Sections,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="From an MLflow Project to a watched production endpoint.\n\nBegin with: headrace init, headrace run.",
)

app.add_typer(monitor.app, name="monitor")
app.add_typer(predictions.app, name="predictions")
app.add_typer(triggers.app, name="triggers")
app.add_typer(tokens.app, name="token")

Folder = Annotated[Path, typer.Argument(help="The component's folder, where headrace.yaml lies.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Name = Annotated[str, typer.Argument(help="The component's name.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it goes into the ledger.")]


@app.command()
def init(  # noqa: PLR0913, PLR0917 - a command's options
    folder: Folder = Path(),
    holdout: Annotated[
        str, typer.Option(help="Rows that training does not see: Parquet, CSV or an image folder.")
    ] = "",
    label: Annotated[str, typer.Option(help="The holdout's column with the truth.")] = "",
    evaluate: Annotated[str, typer.Option(help="An entry point that returns rows, instead of a holdout.")] = "",
    name: Annotated[str, typer.Option(help="The component's name; the MLproject's by default.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing headrace.yaml.")] = False,
    git_hook: Annotated[bool, typer.Option("--git-hook", help="Only let git say when there is a commit.")] = False,
    compose: Annotated[
        bool, typer.Option("--compose", help="Only write a compose.yaml with PostgreSQL, S3, MLflow and workers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented headrace.yaml beside an MLproject.

    Examples: headrace init . --holdout data/test.csv --label quality
              headrace init production --compose
    """
    from headrace.cli import project

    if compose:
        project.install_compose(folder, force=force, as_json=as_json)
        return

    if git_hook:
        project.install_hook(folder, as_json=as_json)
        return
    project.init(folder, holdout=holdout, label=label, evaluate=evaluate, name=name, force=force, as_json=as_json)


@app.command()
def up(as_json: AsJson = False) -> None:
    """Bring production back as the ledger says. It starts what this installation needs and shows what runs where.

    Example: headrace up
    """
    from headrace.cli import services

    services.up(as_json=as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop everything that this installation runs. The ledger remembers what production was.

    Example: headrace down
    """
    from headrace.cli import services

    services.down(as_json=as_json)


@app.command()
def run(
    folder: Folder = Path(),
    commit: Annotated[str, typer.Option(help="Train from this commit instead of what lies there.")] = "",
    version: Annotated[
        int,
        typer.Option(min=0, max=LAST_VERSION, help="Train nothing: judge this version, which is in MLflow's registry."),
    ] = 0,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Train, evaluate, gate, try out in dev, and promote. A component may ask for a person's approval before that.

    Examples: headrace run            the component in this folder
              headrace run examples/digits -m "first release"
              headrace run . --version 3
    """
    from headrace.cli import releases

    releases.run(folder, commit=commit, version=version, reason=reason, as_json=as_json)


@app.command()
def promote(
    component: Name,
    version: Annotated[
        int, typer.Option(min=1, max=LAST_VERSION, help="A version that passed its gate and acceptance.")
    ],
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Make a version the champion. It is loaded and warm first; then comes the ledger, then the traffic.

    Example: headrace promote digits --version 3 -m "better on sevens"
    """
    from headrace.cli import releases

    releases.promote(component, version, reason=reason, as_json=as_json)


@app.command()
def approve(
    component: Name,
    version: Annotated[int | None, typer.Option(min=1, max=LAST_VERSION, help="Which one, where several wait.")] = None,
    comment: Annotated[str, typer.Option("--comment", "-m", help="Why; it goes into the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let a version that waits for approval into production.

    Example: headrace approve digits -m "checked the sevens by hand"
    """
    from headrace.cli import releases

    releases.approve(component, version=version, comment=comment, as_json=as_json)


@app.command()
def reject(
    component: Name,
    version: Annotated[int | None, typer.Option(min=1, max=LAST_VERSION, help="Which one, where several wait.")] = None,
    comment: Annotated[str, typer.Option("--comment", "-m", help="Why; it goes into the ledger.")] = "",
    as_json: AsJson = False,
) -> None:
    """Keep a version that waits for approval out of production.

    Example: headrace reject digits --version 4 -m "worse on sevens"
    """
    from headrace.cli import releases

    releases.reject(component, version=version, comment=comment, as_json=as_json)


@app.command()
def rollback(
    component: Name,
    to: Annotated[
        int | None,
        typer.Option(min=1, max=LAST_VERSION, help="An earlier champion; the one before the present by default."),
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Serve an earlier champion again, at once.

    Example: headrace rollback digits -m "sevens got worse"
    """
    from headrace.cli import releases

    releases.rollback(component, to=to, reason=reason, as_json=as_json)


@app.command()
def retire(
    component: Name,
    version: Annotated[int, typer.Option(min=1, max=LAST_VERSION, help="A version that is not wanted any more.")],
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Say that a version will not be served again. Refused for what serves, waits, or may be gone back to.

    Example: headrace retire digits --version 2 -m "trained on the wrong labels"
    """
    from headrace.cli import garbage

    garbage.retire(component, version, reason=reason, as_json=as_json)


@app.command()
def gc(
    component: Annotated[str, typer.Argument(help="One component only, environments left alone.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    unused_for: Annotated[str, typer.Option(help="Leave alone what was used since: 90s, 6h, 7d.")] = "7d",
    predictions: Annotated[str, typer.Option(help="Age from which retired versions' predictions go.")] = "90d",
    as_json: AsJson = False,
) -> None:
    """Remove what nobody needs. That is: models, data and old predictions of versions that were retired or refused,
    the workings of ended flows, environments. Events, logs and the ledger stay.

    Example: headrace gc --dry-run
    """
    from headrace.cli import garbage

    garbage.collect(component, dry_run=dry_run, unused_for=unused_for, predictions=predictions, as_json=as_json)


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Rehearse on a copy, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Migrate the ledger after a newer headrace was installed. Everything is backed up, the migration rehearsed on a
    copy and all rows compared before it is done. Refused while anything runs.

    Example: headrace upgrade --dry-run
    """
    from headrace.cli import upgrade as work

    work.upgrade(dry_run=dry_run, as_json=as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what serves, what runs, and where.

    Example: headrace status --json
    """
    from headrace.cli import services

    services.status(as_json=as_json)


@app.command()
def history(
    component: Name,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ENTRIES, help="How many entries at most, newest first.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show a component's ledger: who, when, what and why.

    Example: headrace history digits
    """
    from headrace.cli import records

    records.history(component, limit=limit, as_json=as_json)


@app.command()
def follow(flow: Annotated[str, typer.Argument(help="A flow's id, from `status`.")], as_json: AsJson = False) -> None:
    """Show a flow's steps, live where it still runs.

    Example: headrace follow digits/person-20261121-101500-4f2a/1
    """
    from headrace.cli import releases

    releases.follow(flow, as_json=as_json)


@app.command()
def stop(flow: Annotated[str, typer.Argument(help="A flow's id, from `status`.")], as_json: AsJson = False) -> None:
    """Stop a flow. Its children are ended, its run is marked KILLED, production stays as it is.

    Example: headrace stop digits/person-20261121-101500-4f2a/1
    """
    from headrace.cli import releases

    releases.stop(flow, as_json=as_json)


@app.command()
def predict(
    component: Name,
    file: Annotated[Path, typer.Option("--file", "-f", help="JSON body, CSV or Parquet; - reads standard input.")],
    as_json: AsJson = False,
) -> None:
    """Ask the production endpoint.

    Examples: headrace predict digits -f rows.csv
              echo '{"inputs": [[0.1, 0.2]]}' | headrace predict digits -f -
    """
    from headrace.cli import traffic

    traffic.predict(component, file, as_json=as_json)


@app.command()
def feedback(
    component: Name,
    prediction_id: Annotated[str, typer.Argument(help="From the answer's X-Headrace-Prediction-Id.")] = "",
    actual: Annotated[str, typer.Argument(help="What turned out to be true.")] = "",
    file: Annotated[Path | None, typer.Option("--file", "-f", help="CSV with prediction_id and actual.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the truth about earlier predictions.

    Example: headrace feedback digits 0193-… 7
    """
    from headrace.cli import traffic

    traffic.feedback(component, prediction_id, actual, file, as_json=as_json)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="models:/NAME/VERSION, runs:/RUN/model, or an MLflow model folder.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=LAST_PORT, help="The port; 0 takes a free one.")] = 5001,
    workers: Annotated[str, typer.Option(help="How many worker processes, or auto.")] = "1",
    python: Annotated[
        Path | None, typer.Option(help="An interpreter that has what the model needs; built with uv by default.")
    ] = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Load a model that unpickles.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a model, and nothing else: no ledger, no stages.

    Example: headrace serve models:/digits/3 --port 8080
    """
    from headrace.cli import serving

    serving.serve(
        model, host=host, port=port, workers=workers, python=python, allow_pickle=allow_pickle, as_json=as_json
    )


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the whole story on handwritten digits. It trains, gates, serves, watches, retrains and rolls back.

    Example: headrace demo --keep
    """
    from headrace.cli.demo import story

    story.tell(keep=keep, as_json=as_json)


evidence.add_to(app)
nodes.add_to(app)
parts.add_to(app)


def run_command() -> None:
    """Run the command line; a user's mistake ends in a fact and a remedy, never in a traceback."""
    from headrace.errors import HeadraceError, InvalidInput

    try:
        # Typer turns Ctrl-C into an exit code that it returns.
        sys.exit(app(standalone_mode=False) or 0)
    except HeadraceError as error:
        _tell(error)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        # The system hands bytes that are no text on as lone surrogates, and no file or database takes them.
        found = ascii(str(error.object)[max(error.start - 20, 0) : error.end])
        _tell(InvalidInput(f"An argument or a variable is no UTF-8 text: …{found}.", "Type it again in UTF-8."))
    except Exception as error:
        from headrace.files import disk_trouble

        show, trouble = getattr(error, "show", None), disk_trouble(error)
        if trouble is not None:
            _tell(trouble)
        if show is None:
            raise
        show()
        sys.exit(2)


def _tell(error: "HeadraceError") -> NoReturn:
    from headrace.cli.terminal import print_error

    print_error(error, as_json="--json" in sys.argv)
    sys.exit(error.exit_code)
