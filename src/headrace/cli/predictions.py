"""`headrace predictions`: SQL over the prediction log, and its upkeep."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The prediction log: SQL, checks, retention.")

Name = Annotated[str, typer.Argument(help="The component's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command()
def query(
    component: Name,
    sql: Annotated[str, typer.Argument(help="Views: predictions, arrivals, first_actuals, joined.")],
    as_json: AsJson = False,
) -> None:
    """Ask the prediction log in SQL (DuckDB). Inputs are columns in_<field>, outputs out_<field>, times are UTC.
    `to_label` says which rows are in the uniform sample for labelling (`monitor.label.rate`).

    Examples: headrace predictions query digits "SELECT version, count(*) FROM predictions GROUP BY ALL"
              headrace predictions query churn "SELECT in_city, avg((actual = out_)::int) FROM joined GROUP BY ALL"
              headrace predictions query churn "SELECT count(*) FROM joined WHERE to_label AND NOT labelled"
    """
    from headrace import wiring
    from headrace.cli.client import check_text, here
    from headrace.cli.terminal import console, print_json, table
    from headrace.cli.watching import label_rates, log_of
    from headrace.errors import InvalidInput
    from headrace.predictions.query import connect

    check_text({"SQL": sql})
    seen = log_of(component).snapshot(component)
    rates = label_rates(wiring.rooms(here().prepare()), component, seen)
    with connect(seen, label_rates=rates) as connection:
        found = connection.execute(sql)
        if found is None:
            raise InvalidInput(
                "There is no SQL statement in what was asked.",
                f'See what there is: headrace predictions query {component} "DESCRIBE joined"',
            )
        names = [column[0] for column in found.description or []]
        rows = found.fetchall()
    if as_json:
        print_json({"columns": list(names), "rows": [[_plain(value) for value in row] for row in rows]})
        return
    console().print(table("", names, [[str(value) for value in row] for row in rows]))


@app.command()
def labels(
    component: Name,
    maturity: Annotated[
        str, typer.Option(help="How long labels may take, such as 1h or 2d; auto: as long as 99 of 100 took so far.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show how actuals found their predictions, and how many came.

    Example: headrace predictions labels digits --maturity 1d
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from headrace.cli.terminal import console, duration, print_json
    from headrace.cli.watching import log_of
    from headrace.lifecycle.watching.label_wait import LOOKBACK, lasting, usual_s
    from headrace.predictions.labels import coverage

    log = log_of(component)
    counts = log.counts(component)
    now = datetime.now(UTC)
    taken = log.delays(component, since=now - LOOKBACK, now=now)
    maturity_s = usual_s(taken) if maturity == "auto" else duration(maturity)
    found = coverage(log.snapshot(component), now=now, maturity_s=maturity_s)
    if as_json:
        print_json(
            {**asdict(counts), "mature": found.predictions, "mature_labelled": found.labelled,
             "watermark": found.watermark.isoformat(), "delay_s": found.delay_s, "maturity_s": maturity_s,
             "delays": {"labels": taken.labels, "within_s": taken.within_s}}
        )  # fmt: skip
        return
    out = console()
    share = f"of those older than {lasting(maturity_s)}, {found.share:.0%}"
    out.print(f"{counts.predictions} predictions, {counts.labelled} labelled; {share}. Nine in ten labels came within "
              f"{found.delay_s:.0f} s, 99 of 100 within {lasting(taken.within_s)}.")  # fmt: skip
    out.print(f"Out of place: {counts.orphans} orphans, {counts.duplicates} duplicates, {counts.conflicts} conflicts, "
              f"{counts.early} dated before their prediction, {counts.mistyped} no number or text.")  # fmt: skip
    if counts.behind:
        out.print(f"{counts.behind} predictions were made while the clock stood behind the ids already given.")


@app.command()
def check(
    component: Name,
    repair: Annotated[bool, typer.Option("--repair", help="Set damaged files aside, so that the rest reads.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of the log and name what is damaged or missing.

    Example: headrace predictions check digits --repair
    """

    from headrace.cli.terminal import console, good, print_json, text_of
    from headrace.cli.watching import log_of
    from headrace.predictions import upkeep

    log = log_of(component)
    problems = upkeep.repair(log.folder(component)) if repair else upkeep.check(log.folder(component))
    remote = log.remote(component)
    if remote is not None:
        problems += remote.check()
    seen = log.snapshot(component)
    lost = {"damaged_bytes": seen.damaged_bytes, "senseless_rows": seen.manifest.senseless_rows}
    if as_json:
        print_json({"problems": [one.sentence for one in problems], "repaired": repair, **lost})
    else:
        for one in problems:
            console().print(f"[red]✗[/red] {text_of(one.sentence)}")
        if not problems:
            good("every file holds what it should")
        if any(lost.values()):
            console().print(f"Lost so far: {lost['damaged_bytes']} bytes of journals that could not be read, "
                            f"{lost['senseless_rows']} rows that made no sense or were set aside.")  # fmt: skip
    if problems and not repair:
        raise typer.Exit(1)


@app.command()
def compact(component: Name, as_json: AsJson = False) -> None:
    """Roll what dead writers left, and merge small files.

    Example: headrace predictions compact digits
    """
    from dataclasses import asdict

    from headrace.cli.terminal import good, print_json
    from headrace.cli.watching import prediction_folder
    from headrace.predictions import upkeep
    from headrace.predictions.actuals import roll_actuals
    from headrace.predictions.roll import roll

    folder = prediction_folder(component)
    rows = roll(folder) + roll_actuals(folder)
    found = upkeep.compact(folder)
    if as_json:
        print_json({"rolled": rows, **asdict(found)})
        return
    good(f"{rows} rows rolled, {found.merged} files merged into {found.into}, "
                    f"{found.removed} old ones removed")  # fmt: skip


@app.command()
def prune(
    component: Name,
    older_than: Annotated[str, typer.Option(help="Age, such as 90d.")] = "90d",
    as_json: AsJson = False,
) -> None:
    """Drop files whose rows are all older than an age.

    Example: headrace predictions prune digits --older-than 30d
    """
    from datetime import UTC, datetime, timedelta

    from headrace.cli.terminal import duration, good, print_json
    from headrace.cli.watching import log_of
    from headrace.predictions import upkeep

    before = datetime.now(UTC) - timedelta(seconds=duration(older_than))
    log = log_of(component)
    rows = upkeep.prune(log.folder(component), before)
    remote = log.remote(component)
    if remote is not None:
        rows += remote.put_floor(before)
        remote.sweep()
    if as_json:
        print_json({"dropped": rows})
        return
    good(f"{rows} rows dropped")


@app.command()
def ship(
    component: Annotated[str, typer.Argument(help="All components by default.")] = "", as_json: AsJson = False
) -> None:
    """Put what lies on this machine into the object store. Its worker does so every 30 s; HEADRACE_PREDICTIONS_URL
    names the store. A repeat puts nothing twice.

    Example: headrace predictions ship
    """
    from dataclasses import asdict

    from headrace import wiring
    from headrace.cli.terminal import good, print_json
    from headrace.config.settings import read_settings
    from headrace.errors import InvalidConfig
    from headrace.predictions.shipping import ship as put

    settings = read_settings()
    if not settings.predictions_url:
        raise InvalidConfig(
            "HEADRACE_PREDICTIONS_URL names no object store: predictions stay on this machine.",
            "export HEADRACE_PREDICTIONS_URL=s3://BUCKET/PREFIX",
        )
    log = wiring.segment_log(settings)
    done = {name: put(one) for name in ([component] if component else log.local()) if (one := log.remote(name))}
    if as_json:
        print_json({"store": settings.predictions_url, "shipped": {name: asdict(one) for name, one in done.items()}})
        return
    for name, shipped in done.items():
        left = f"; {shipped.left} are here alone still" if shipped.left else ""
        good(f"{name}: {shipped.rows} rows in {shipped.segments} files{left}")


@app.command()
def rebuild(component: Name, as_json: AsJson = False) -> None:
    """Make a lost or damaged manifest anew from the files there are.

    Example: headrace predictions rebuild digits
    """
    from headrace.cli.terminal import good, print_json
    from headrace.cli.watching import log_of
    from headrace.predictions import upkeep

    log = log_of(component)
    remote = log.remote(component)
    found = remote.rebuild() if remote else upkeep.rebuild(log.folder(component))
    if as_json:
        print_json({"predictions": len(found.predictions), "actuals": len(found.actuals)})
        return
    good(f"{len(found.predictions)} files of predictions, {len(found.actuals)} of actuals")


def _plain(value: object) -> str | int | float | bool | None:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
