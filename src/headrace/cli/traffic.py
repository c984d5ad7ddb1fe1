"""Commands that talk to a production endpoint: predict, feedback."""

import csv
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from headrace import wiring
from headrace.cli.client import here
from headrace.cli.terminal import console, good, print_json
from headrace.client import bearer, plain_value
from headrace.config.settings import Settings
from headrace.deploy.base import Status
from headrace.errors import InvalidInput, NotFound, Unavailable
from headrace.types import Json, Stage

#: The endpoint takes so many truths in one request.
AT_ONCE = 10_000
#: From this status on it is not the request that is wrong.
SERVERS_OWN = 500
TYPES = {".json": "application/json", ".csv": "text/csv"}


def predict(component: str, file: Path, *, as_json: bool) -> None:
    """Send a file's rows to production and print the answer."""
    body, kind = read_body(file)
    settings = here()
    status = serving(settings, component)
    key = bearer(status.predict_keys, settings.variables)
    try:
        answer = post(f"{status.endpoint.url}/invocations", body, kind, key)
    except InvalidInput as error:
        raise with_column_named(error, file) from error
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
        data = [[plain_value(value) for value in row.values()] for row in table.to_pylist()]
        rows = {"columns": table.column_names, "data": data}
        return json.dumps({"dataframe_split": rows}).encode(), "application/json"
    kind = TYPES.get(file.suffix)
    if kind is None:
        raise InvalidInput(f"{file.name} is neither .json, .csv nor .parquet.", "Convert it, or pipe JSON to `-f -`.")
    return file.read_bytes(), kind


def with_column_named(error: InvalidInput, file: Path) -> InvalidInput:
    """Return the error with the name of the column that the endpoint, which repeats no input, calls by its number."""
    found = re.search(r"like the one at `[^`]*\[(\d+)\]`", error.fact)
    if found is None or str(file) == "-":
        return error
    from headrace.data.tables import read_columns

    name = read_columns(file).column_names[int(found[1])]
    return InvalidInput(
        error.fact.replace(found[0], f"`{name}`"),
        f"Leave `{name}` out of {file.name}: only what the model takes belongs there, and not the truth.",
    )


def feedback(component: str, prediction_id: str, actual: str, file: Path | None, *, as_json: bool) -> None:
    """Send truths to production's /feedback."""
    actuals = from_file(file) if file else [one(prediction_id, actual)]
    if not actuals:
        raise InvalidInput(f"No row of {file} has an actual.", "Fill in the column `actual`.")
    settings = here()
    status = serving(settings, component)
    key = bearer(status.feedback_keys, settings.variables)
    accepted = 0
    for start in range(0, len(actuals), AT_ONCE):
        body = json.dumps({"actuals": actuals[start : start + AT_ONCE]}).encode()
        answer = post(f"{status.endpoint.url}/feedback", body, "application/json", key, f"{accepted} were kept before.")
        accepted += int(answer.json()["accepted"])
    if as_json:
        print_json({"accepted": accepted})
        return
    good(f"{len(actuals)} kept")


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
    """Return a number where the text is how it is written, else the text itself: `007` and `nan` are labels."""
    if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)?\.[0-9]+", text):
        return float(text)
    # As Python writes very large and very small ones; `1e5` is rather a label.
    is_power = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?e[-+][0-9]+", text) is not None and repr(float(text)) == text
    return float(text) if is_power else text


def serving(settings: Settings, component: str) -> Status:
    """Return how a component's production stands. Raises NotFound where none runs."""
    status = wiring.target(settings.prepare()).status(component, Stage.PRODUCTION)
    if status is None:
        raise NotFound(
            f"No production endpoint of {component} runs in {settings.home}.",
            "Start what the ledger says with `headrace up`, or make a version with `headrace run`.",
        )
    return status


def post(url: str, body: bytes, kind: str, key: Mapping[str, str], so_far: str = "") -> httpx.Response:
    """Return the endpoint's answer. Raises its error as fact and remedy, `so_far` being told with it."""
    try:
        answer = httpx.post(url, content=body, headers={"content-type": kind, **key}, timeout=60, trust_env=False)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"{url} does not answer ({type(error).__name__}).", f"{so_far} See `headrace status`.".strip()
        ) from error
    if answer.is_error:
        is_json = "json" in answer.headers.get("content-type", "")
        said = answer.json().get("message") if is_json else answer.text[:500]
        fact = f"The endpoint answered {answer.status_code}: {said}"
        if answer.status_code >= SERVERS_OWN:
            raise Unavailable(fact, f"{so_far} See `headrace status` and `headrace logs`.".strip())
        raise InvalidInput(fact, so_far)
    return answer
