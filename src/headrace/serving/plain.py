"""Forms that people type: TorchServe's bare bodies, and CSV."""

import csv
import io
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from headrace.serving.generation import Served
from headrace.serving.rejection import BAD_REQUEST, MEDIA_TYPE, TOO_LARGE, UNFIT, Rejected
from headrace.serving.schema import NULLABLE, Table, tensor_row_type
from headrace.serving.scoring import FORMS, Asked, TableScoring, TensorScoring, decode_json
from headrace.types import Field

TRUE, FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})
#: Under what TorchServe's handlers look for a request's content.
WRAPPERS = ("data", "body")
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
ENCODED = re.compile(rb"^content-transfer-encoding:\s*(?:base64|quoted-printable)", re.IGNORECASE | re.MULTILINE)
BLANK_LINE = re.compile(rb"\n\r?\n")
MOST_PARTS = 100
# Bodies are capped already; the module's own 128 KiB would refuse a long text in CSV that is welcome in JSON.
csv.field_size_limit(2**31 - 1)
encode = msgspec.json.encode


def read_bare(served: Served, body: bytes, kind: str) -> tuple[Asked, bool]:
    """Return what a TorchServe client asks for, and whether it is one row, whose answer goes without a list around it.

    The body is a scoring document, a row, a list of rows, any of these under `data` or `body`, a plain text for a
    model of one text column, or the bytes of a file for a model of one binary column.

    Raises:
        Rejected: it is none of these.
    """
    bare = kind.partition(";")[0].strip().lower()
    if bare == "multipart/form-data":
        body = _file_of(body, kind)
        bare = "application/octet-stream"
    field = _lone_column(served)
    if field is not None and field.dtype == "binary" and not bare.endswith("json"):
        return _one(served, field, body), True
    if field is not None and field.dtype == "string" and body.lstrip()[:1] not in (b"{", b"[", b'"'):
        return _one(served, field, _utf8(body)), True
    found = decode_json(msgspec.json.decode, body)
    if isinstance(found, dict):
        if any(name in found for name in FORMS):
            return served.scoring.read(body), False
        for wrapper in WRAPPERS:
            if wrapper in found and len(found) == 1:
                found = found[wrapper]
                break
    if field is not None and isinstance(found, str):
        found = {field.name: found}
    is_one = not isinstance(found, list) or _is_row(served, found)
    rows = [found] if is_one else found
    return served.scoring.read(encode({"instances": rows})), is_one


def _is_row(served: Served, found: list[Any]) -> bool:
    """Tell whether a list is one row of the model's only tensor rather than a list of rows."""
    if not isinstance(served.scoring, TensorScoring):
        return False
    fields = served.scoring.tensors.fields
    if len(fields) != 1:
        return False
    try:
        msgspec.convert(found, tensor_row_type(fields[0]))
    except msgspec.ValidationError:
        return False
    return len(fields[0].shape) > 1


def _lone_column(served: Served) -> Field | None:
    if isinstance(served.scoring, TableScoring) and len(served.scoring.table.names) == 1:
        return served.scoring.table.signature.inputs[0]
    return None


def _one(served: Served, field: Field, value: Any) -> Asked:
    table: Table = served.scoring.table  # type: ignore[union-attr]  # only models of columns come here
    return Asked(table.rows([field.name], [(value,)]))


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as cause:
        raise Rejected(BAD_REQUEST, "The body is not UTF-8.") from cause


def _file_of(form: bytes, kind: str) -> bytes:
    """Return what a form's first file holds, or its first field where it has no file. Raises Rejected.

    What lies in a part is not read as parts again: the time it takes is in proportion to the form's bytes.
    """
    named = BOUNDARY.search(kind)
    if named is None:
        raise Rejected(BAD_REQUEST, "The form's content type names no boundary.")
    boundary = (named[1] or named[2]).encode("latin-1")
    _, *parts = (b"\n" + form).split(b"\n--" + boundary, MOST_PARTS + 1)
    if len(parts) > MOST_PARTS:
        raise Rejected(BAD_REQUEST, f"The form has more than {MOST_PARTS - 1} parts.")
    contents = []
    for part in parts:
        head, *rest = BLANK_LINE.split(part, 1)
        if part.startswith(b"--") or not rest:
            continue  # It is the form's end, or no part.
        if ENCODED.search(head):
            raise Rejected(MEDIA_TYPE, "Encoded parts of forms are not read here.", "Send them as they are.")
        content = rest[0].removesuffix(b"\r")
        if b"filename" in head.lower():
            return content
        contents.append(content)
    if not contents:
        raise Rejected(BAD_REQUEST, "The form holds no file.")
    return contents[0]


def read_csv(served: Served, body: bytes, most_rows: int) -> Asked:
    """Return the rows of a CSV text with a header line; empty lines are passed over.

    Raises:
        Rejected: 413 for more lines than `most_rows` below the header, before any cell is read; 400 and 422 as usual.
    """
    header, lines = _lines(body, most_rows)
    if any(len(cells) != len(header) for _, cells in lines):
        line, cells = next(one for one in lines if len(one[1]) != len(header))
        raise Rejected(UNFIT, f"Line {line} has {len(cells)} values; the header has {len(header)}.")
    if isinstance(served.scoring, TableScoring):
        table = served.scoring.table
        table.check_names(header, "the header")
        fields = [table.fields[name] for name in header]
        rows = [[_cell(cell, field, line) for cell, field in zip(cells, fields, strict=True)] for line, cells in lines]
        return served.scoring.read(encode({"dataframe_split": {"columns": header, "data": rows}}))
    if isinstance(served.scoring, TensorScoring):
        numbers = [[_number(cell, line) for cell in cells] for line, cells in lines]
        return served.scoring.read(encode({"dataframe_split": {"columns": header, "data": numbers}}))
    raise Rejected(MEDIA_TYPE, "A model without a signature takes no CSV.", "Send application/json.")


def _lines(body: bytes, most_rows: int) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header's names, and below it each line's number and cells. Raises Rejected."""
    # Excel begins with a byte order mark.
    reader = csv.reader(io.StringIO(_utf8(body).removeprefix("\ufeff").rstrip("\r\n")), strict=True)
    try:
        # Empty lines count in front of others: who sends ten million of them is not to be read to the end.
        header = next(filter(None, islice(reader, most_rows + 1)))
        lines = [(reader.line_num, cells) for cells in islice(reader, most_rows + 1)]
    except (csv.Error, StopIteration) as cause:
        raise Rejected(BAD_REQUEST, "The body is no CSV with a header line.") from cause
    if len(lines) > most_rows:
        raise Rejected(TOO_LARGE, f"The request holds more than {most_rows} rows, which is the limit.", "Send several.")
    return header, [(line, cells) for line, cells in lines if cells]


def _cell(text: str, field: Field, line: int) -> Any:
    """Return a cell as JSON would say it; the decoder checks it then."""
    if not text and not field.required and field.dtype in NULLABLE:
        return None
    read = CELLS.get(field.dtype)
    return text if read is None else read(text, line)


def _truth(text: str, _: int) -> Any:
    return text.lower() in TRUE if text.lower() in TRUE | FALSE else text


def _whole(text: str, line: int) -> float:
    try:
        return int(text)
    except ValueError:
        return _number(text, line)


def _number(text: str, line: int) -> float:
    try:
        return float(text)
    except ValueError as cause:
        raise Rejected(UNFIT, f"Line {line} holds a text where the model takes a number.") from cause


#: How a column's cells are read; the other types are texts.
CELLS: dict[str, Callable[[str, int], Any]] = {
    "boolean": _truth,
    "integer": _whole,
    "long": _whole,
    "float": _number,
    "double": _number,
}
