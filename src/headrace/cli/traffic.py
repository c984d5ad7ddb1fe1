"""Commands that talk to a production endpoint: predict, feedback."""

import codecs
import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping
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
SHEET = "Name a CSV file with the columns prediction_id and actual, such as `headrace monitor sample NAME --to` writes."
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
        return parquet_body(file), "application/json"
    kind = TYPES.get(file.suffix)
    if kind is None:
        raise InvalidInput(f"{file.name} is neither .json, .csv nor .parquet.", "Convert it, or pipe JSON to `-f -`.")
    try:
        # A spreadsheet puts a byte order mark first.
        return file.read_bytes().removeprefix(codecs.BOM_UTF8), kind
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read: {error.strerror}.", "Name a JSON, CSV or Parquet file, or - for standard input."
        ) from error


def parquet_body(file: Path) -> bytes:
    """Return a Parquet file's rows as a request body. Raises InvalidInput where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InvalidInput(f"{file} cannot be read as Parquet: {reason}.", "Write the file again.") from error
    data = [[plain_value(value) for value in row.values()] for row in table.to_pylist()]
    return json.dumps({"dataframe_split": {"columns": table.column_names, "data": data}}).encode()


def with_column_named(error: InvalidInput, file: Path) -> InvalidInput:
    """Return the error with the name of the column that the endpoint, which repeats no input, calls by its number."""
    found = re.search(r"like the one at `[^`]*\[(\d+)\]`", error.fact)
    if found is None or file.suffix not in (".csv", ".parquet"):
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
    """Return the truths in a CSV file. Raises InvalidInput."""
    if not file.exists():
        raise InvalidInput(f"{file} is not there.", SHEET)
    try:
        # A spreadsheet puts a byte order mark first.
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return list(truths(csv.DictReader(lines), file))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is no UTF-8 text ({error.reason}).", "Save it as CSV in UTF-8.") from error
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"{file} cannot be read: {reason}.", SHEET) from error


def truths(rows: "csv.DictReader[str]", file: Path) -> Iterator[Json]:
    """Yield a sheet's truths. Raises InvalidInput where it is none, or a row is cut short."""
    if {"prediction_id", "actual"} - set(rows.fieldnames or ()):
        has = ", ".join(rows.fieldnames or ()) or "none"
        raise InvalidInput(f"{file} needs the columns prediction_id and actual (it has: {has}).", SHEET)
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007 - counted, too
        name, actual = row["prediction_id"], row["actual"]
        if not name and not actual:  # A line of commas alone.
            continue
        if not name or actual is None:
            raise InvalidInput(
                f"Line {rows.line_num} of {file} has no {'actual' if name else 'prediction_id'}.",
                "Write both there, or leave the line out.",
            )
        # A sheet for labelling has rows that nobody has filled in yet.
        if actual.strip():
            yield {"prediction_id": name, "actual": number(actual)}
    if not count:
        raise InvalidInput(f"{file} has no rows below its columns.", SHEET)


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
