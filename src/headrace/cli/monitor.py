"""`headrace monitor`: what the watch said, or would have said, about a component's predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.bounds import LAST_VERSION

if TYPE_CHECKING:
    from headrace.monitoring.labelling import Task
    from headrace.monitoring.replay import Replay
    from headrace.types import Json

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What the watch says about predictions.")

Name = Annotated[str, typer.Argument(help="The component's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Window = Annotated[
    int, typer.Option(min=0, help="Predictions per window, from 20 on; the version's own setting where it is 0.")
]
Budget = Annotated[
    float, typer.Option(min=0, max=1, help="False alarms per window; the version's own setting where it is 0.")
]
File = Annotated[
    Path | None, typer.Option("--file", help="Rows (Parquet or CSV) to answer and judge in place of the stored ones.")
]
Label = Annotated[str, typer.Option(help="The file's column with the truth; the holdout's where it has that one.")]
Version = Annotated[
    int,
    typer.Option(
        min=0, max=LAST_VERSION, help="Whose answers to the file are judged; the newest in production where 0."
    ),
]


@app.command()
def run(component: Name, as_json: AsJson = False) -> None:
    """Judge the windows that are due now, and act on what is found. Also says what the next one waits for.

    A control process (`headrace up`) does so by itself every `monitor.every_s`; where none runs, this command judges
    here and ends, so that cron can be the clock. A candidate that an alarm asks for then starts with `headrace up`.

    Examples: headrace monitor run digits
              */10 * * * *  headrace monitor run digits
    """
    from headrace.cli.client import Answered
    from headrace.cli.judging import Judging
    from headrace.cli.terminal import console, print_json

    judging, out = Judging(component), console()
    outcomes = []
    for outcome in judging.outcomes():
        outcomes.append(outcome)
        code = int(str(outcome["exit_code"]))
        if code and not as_json:
            raise Answered(str(outcome["fact"]), str(outcome["remedy"]), code)
        if not as_json:
            out.print(f"v{outcome['version']}: {outcome['fact']}", markup=False)
    if as_json:
        print_json({"component": component, "windows": [*outcomes], "waits_for": judging.waits_for})
        raise typer.Exit(max((int(str(one["exit_code"])) for one in outcomes), default=0))
    out.print(judging.waits_for, markup=False)


@app.command()
def replay(
    component: Name,
    file: File = None,
    label: Label = "",
    version: Version = 0,
    window: Window = 0,
    false_alarms: Budget = 0.0,
    as_json: AsJson = False,
) -> None:
    """Judge all stored predictions again, or a file's rows. It goes window by window, and changes nothing.

    A file has the model's inputs as columns, in the order in which they came; with the truth its quality is judged too.

    Examples: headrace monitor replay digits
              headrace monitor replay digits --window 200 --false-alarms 0.01
              headrace monitor replay churn --file march.parquet --label churned
    """
    from headrace.cli.terminal import console, print_json, table

    found = _replayed(component, file, label, version, window, false_alarms)
    if as_json:
        print_json(found.as_json())
        return
    rows = [
        [seen.at, f"v{seen.version}", f"{seen.rows} ({seen.labelled})", seen.alarm.consequence.value,
         seen.alarm.sentence]
        for seen in found.windows
    ]  # fmt: skip
    console().print(table("", ["until", "version", "rows (labelled)", "verdict", "why"], rows))


@app.command()
def report(
    component: Name,
    to: Annotated[Path, typer.Option(help="The page to write.")] = Path("monitor.html"),
    file: File = None,
    label: Label = "",
    version: Version = 0,
    window: Window = 0,
    false_alarms: Budget = 0.0,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page about all windows, with charts.

    Examples: headrace monitor report digits --to digits.html
              headrace monitor report churn --file march.parquet --to march.html
    """
    from headrace.cli.terminal import good, print_json
    from headrace.files import write_atomically
    from headrace.monitoring.report import html

    found = _replayed(component, file, label, version, window, false_alarms)
    write_atomically(to.absolute(), html(found), mode=0o644)
    if as_json:
        print_json({**found.as_json(), "page": str(to.absolute())})
        return
    counts = ", ".join(f"{count} {name}" for name, count in found.counts().items() if count) or "no full window"
    good(f"{to}: {len(found.windows)} windows ({counts})")


@app.command()
def hard(
    component: Name,
    to: Annotated[Path, typer.Option(help="The file to write: JSON lines for labelling tools, or .csv.")] = Path(
        "hard.jsonl"
    ),
    most: Annotated[int, typer.Option(min=1, help="How many rows at most.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Set out the rows that the model got wrong or was unsure of.

    Examples: headrace monitor hard digits --most 50
              headrace monitor hard digits --to hard.csv
    """
    from headrace.cli.terminal import good, print_json
    from headrace.cli.watching import hardest
    from headrace.files import write_atomically
    from headrace.monitoring.examples import as_tasks

    found = hardest(component, most)
    write_atomically(to.absolute(), _written(as_tasks(found), to), mode=0o644)
    if as_json:
        reasons: dict[str, Json] = {one.row.prediction.id: one.reason for one in found}
        print_json({"rows": reasons, "file": str(to.absolute())})
        return
    good(f"{to}: {len(found)} rows")


@app.command()
def sample(
    component: Name,
    rate: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The share of predictions; by default the version's own.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Write the rows: .jsonl for labelling tools, .csv for a sheet to fill in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the uniform sample of predictions that has no label yet. Only labels reveal concept drift.

    Which predictions are in it, their ids say; `monitor: {label: {rate: 0.01}}` in headrace.yaml sets the share.

    Examples: headrace monitor sample digits
              headrace monitor sample digits --to sheet.csv    then: headrace feedback digits --file sheet.csv
    """
    from headrace.cli.terminal import good, print_json
    from headrace.cli.watching import to_be_labelled
    from headrace.files import write_atomically

    found = to_be_labelled(component, rate)
    if to is not None:
        write_atomically(to.absolute(), _written(found, to), mode=0o644)
    if as_json:
        print_json(
            {"prediction_ids": [one.row.prediction.id for one in found], "file": str(to.absolute()) if to else None}
        )
    elif to is not None:
        good(f"{to}: {len(found)} rows")
    else:
        for one in found:
            typer.echo(one.row.prediction.id)


def _replayed(
    component: str, file: Path | None, label: str, version: int, window: int, false_alarms: float
) -> "Replay":
    if file is None:
        from headrace.cli.watching import replayed

        return replayed(component, window, false_alarms)
    from headrace.cli.given import replayed_file

    return replayed_file(
        component, file.absolute(), label=label, version=version, window=window, false_alarms=false_alarms
    )


def _written(found: "Sequence[Task]", to: Path) -> str:
    from headrace.monitoring.labelling import as_lines, as_sheet

    return as_sheet(found) if to.suffix == ".csv" else as_lines(found)
