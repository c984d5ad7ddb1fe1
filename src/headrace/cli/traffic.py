"""Commands that talk to a production endpoint: predict, feedback."""

import csv
import json
import sys
from pathlib import Path

import httpx

from headrace import wiring
from headrace.cli.terminal import console, print_json
from headrace.config.settings import Settings, read_settings
from headrace.errors import InvalidInput, NotFound, Unavailable
from headrace.types import Json, Stage

TYPES = {".json": "application/json", ".csv": "text/csv"}


def predict(component: str, file: Path, *, as_json: bool) -> None:
    """Send a file's rows to production and print the answer."""
    body, kind = read_body(file)
    answer = post(endpoint(read_settings(), component) + "/invocations", body, kind)
    document: dict[str, Json] = answer.json()
    if as_json:
        print_json({**document, "version": answer.headers.get("x-headrace-version")})
        return
    out = console()
    out.print(f"answered by v{answer.headers.get('x-headrace-version')}")
    out.print_json(json.dumps(document))


def read_body(file: Path) -> tuple[bytes, str]:
    """Return a request body and its content type from a file, `-` being standard input."""
    if str(file) == "-":
        return sys.stdin.buffer.read(), "application/json"
    if not file.exists():
        raise InvalidInput(f"{file} is not there.", "Name a JSON, CSV or Parquet file, or - for standard input.")
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        rows = {"columns": table.column_names, "data": [list(row.values()) for row in table.to_pylist()]}
        return json.dumps({"dataframe_split": rows}, default=str).encode(), "application/json"
    kind = TYPES.get(file.suffix)
    if kind is None:
        raise InvalidInput(f"{file.name} is neither .json, .csv nor .parquet.", "Convert it, or pipe JSON to `-f -`.")
    return file.read_bytes(), kind


def feedback(component: str, prediction_id: str, actual: str, file: Path | None, *, as_json: bool) -> None:
    """Send truths to production's /feedback."""
    actuals = from_file(file) if file else [one(prediction_id, actual)]
    body = json.dumps({"actuals": actuals}).encode()
    if not actuals:
        raise InvalidInput(f"No row of {file} has an actual.", "Fill in the column `actual`.")
    answer = post(endpoint(read_settings(), component) + "/feedback", body, "application/json")
    if as_json:
        print_json(answer.json())
        return
    console().print(f"[green]✓[/green] {len(actuals)} kept")


def one(prediction_id: str, actual: str) -> Json:
    """Return one truth. Raises InvalidInput where half of it is missing."""
    if not prediction_id or not actual:
        raise InvalidInput("A prediction's id and its actual belong together.", "headrace feedback NAME ID ACTUAL")
    return {"prediction_id": prediction_id, "actual": number(actual)}


def from_file(file: Path) -> list[Json]:
    """Return the truths in a CSV file."""
    if not file.exists():
        raise InvalidInput(f"{file} is not there.")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or {"prediction_id", "actual"} - set(rows[0]):
        raise InvalidInput(f"{file} needs the columns prediction_id and actual, and at least one row.")
    # A sheet for labelling has rows that nobody has filled in yet.
    filled = [row for row in rows if row["actual"].strip()]
    return [{"prediction_id": row["prediction_id"], "actual": number(row["actual"])} for row in filled]


def number(text: str) -> Json:
    """Return a whole number, a number, or the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def endpoint(settings: Settings, component: str) -> str:
    """Return the URL of a component's production. Raises NotFound where none runs."""
    status = wiring.target(settings.prepare()).status(component, Stage.PRODUCTION)
    if status is None:
        raise NotFound(
            f"No production endpoint of {component} runs in {settings.home}.",
            "Start what the ledger says with `headrace up`, or make a version with `headrace run`.",
        )
    return status.endpoint.url


def post(url: str, body: bytes, kind: str) -> httpx.Response:
    """Return the endpoint's answer. Raises its error as fact and remedy."""
    try:
        answer = httpx.post(url, content=body, headers={"content-type": kind}, timeout=60, trust_env=False)
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} does not answer ({type(error).__name__}).", "See `headrace status`.") from error
    if answer.is_error:
        raise InvalidInput(f"The endpoint answered {answer.status_code}: {answer.text[:500]}")
    return answer
