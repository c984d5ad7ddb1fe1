"""Forms that people type: what is read, and what is refused before it costs anybody time."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headrace.serving import plain
from headrace.serving.rejection import Rejected
from headrace.serving.scoring import scoring_of
from headrace.types import Field, FieldKind, Signature

FORM = "multipart/form-data; boundary=b"


def served(*fields: tuple[str, str]) -> Any:
    signature = Signature(tuple(Field(name, FieldKind.COLUMN, dtype) for name, dtype in fields))
    return SimpleNamespace(scoring=scoring_of(signature))


def refused(read: Any, *given: Any) -> Rejected:
    with pytest.raises(Rejected) as found:
        read(*given)
    return found.value


# Forms with files


def part(content: bytes, *names: str) -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {'; '.join(names)}\r\n\r\n".encode() + content + b"\r\n"


@pytest.mark.parametrize("kind", [FORM, 'Multipart/Form-Data; charset=x; Boundary="b"'])
@pytest.mark.parametrize("content", [b"abc", b"", b"\r\n\r\na --b\r\n", b"\n\n--\r", bytes(range(256))])
def test_a_forms_file_is_read_as_it_was_sent(kind: str, content: bytes) -> None:
    form = part(b"first", "name=note") + part(content, "name=data", 'filename="a"') + part(b"", "filename=b") + b"--b--"
    asked, is_one = plain.read_bare(served(("image", "binary")), form, kind)
    assert (asked.rows.parts[0], is_one) == ([content], True)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_form_without_a_file_gives_its_first_field(end: bytes) -> None:
    form = end.join([b"said before", b"--b", b"X: y", b"", b"abc", b"--b", b"", b"def", b"--b--", b"said after"])
    asked, _ = plain.read_bare(served(("image", "binary")), form, FORM)
    assert asked.rows.parts[0] == [b"abc"]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (b"", FORM),
        (b"--b\r\n", FORM),
        (b"--b--\r\n\r\nabc", FORM),
        (part(b"abc", "name=x"), "multipart/form-data"),
        (part(b"abc", "name=x"), "multipart/form-data; boundary="),
        (part(b"abc", "name=x"), f"multipart/form-data; boundary={'b' * 71}"),
        (part(b"abc", "name=x") * 101 + b"--b--", FORM),
    ],
)
def test_a_form_that_holds_no_file_is_refused(form: bytes, kind: str) -> None:
    assert refused(plain.read_bare, served(("image", "binary")), form, kind).status == 400


def test_an_encoded_part_is_refused() -> None:
    form = part(b"YWJj", 'filename="a"\r\nContent-Transfer-Encoding: BASE64') + b"--b--"
    assert refused(plain.read_bare, served(("image", "binary")), form, FORM).status == 415


def test_forms_within_forms_are_not_read() -> None:
    levels = range(1500)
    form = b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (i, i + 1) for i in levels)
    asked, _ = plain.read_bare(served(("image", "binary")), form, "multipart/form-data; boundary=b0")
    assert asked.rows.parts[0] == [form.partition(b"\r\n\r\n")[2]]


# What a body says that is no document


@pytest.mark.parametrize("dtype", ["double", "float", "long", "integer", "boolean", "binary", "datetime"])
def test_a_text_that_does_not_fit_the_only_column_is_refused(dtype: str) -> None:
    for body in (b'"abc"', b'{"data": "abc"}'):
        assert refused(plain.read_bare, served(("x", dtype)), body, "application/json").status == 422


@pytest.mark.parametrize(
    ("dtype", "body", "value"), [("string", b'"abc"', "abc"), ("binary", b'{"body": "YWJj"}', b"abc")]
)
def test_a_text_for_the_only_column_is_its_value(dtype: str, body: bytes, value: Any) -> None:
    asked, is_one = plain.read_bare(served(("x", dtype)), body, "application/json")
    assert (asked.rows.parts[0], is_one) == ([value], True)


# CSV


def numbers(text: bytes, most_rows: int = 10, dtype: str = "double") -> list[float]:
    asked = plain.read_csv(served(("x", dtype)), text, most_rows)
    [block] = asked.rows.layout.blocks
    return np.frombuffer(asked.rows.parts[0], block.dtype).tolist()  # type: ignore[arg-type]  # bytes: it is numbers


@pytest.mark.parametrize(
    "text",
    [
        b"x\n1\n2\n",
        b"\xef\xbb\xbfx\r\n1\r\n2\r\n",
        b"x\n1\n2\n\n",
        b"\nx\n\n1\n\r\n2",
        b'\xef\xbb\xbf"x"\n1\n2\n\r\n\r\n',
    ],
)
def test_csv_is_read_as_spreadsheets_and_pandas_write_it(text: bytes) -> None:
    assert numbers(text) == [1.0, 2.0]


@pytest.mark.parametrize("text", [b"", b"\n\n", b'x\n"1', b"\xff"])
def test_what_is_no_csv_is_refused(text: bytes) -> None:
    assert refused(numbers, text).status == 400


@pytest.mark.parametrize(("text", "line"), [(b"x\n1\n\n1,2\n", 4), (b"x\n\na\n", 3)])
def test_a_wrong_line_is_named_by_its_number(text: bytes, line: int) -> None:
    found = refused(numbers, text)
    assert (found.status, f"Line {line} " in found.sentence) == (422, True)


def test_csv_with_more_rows_than_are_ever_taken_is_refused_before_cells_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert numbers(b"x\n" + b"1\n" * 10) == [1.0] * 10
    monkeypatch.setattr(plain, "_cell", lambda *_: pytest.fail("a cell was read"))
    for lines in (b"1\n" * 11, b"\n" * 11 + b"1"):
        found = refused(numbers, b"x\n" + lines)
        assert (found.status, "more than 10 rows" in found.sentence) == (413, True)


def test_of_csv_that_is_too_long_the_rest_is_not_read() -> None:
    assert refused(numbers, b"x\n" + b"1\n" * 11 + b'"').status == 413


@pytest.mark.parametrize("dtype", ["integer", "long"])
@pytest.mark.parametrize("cell", ["--5", "+-5", "a", "", "1.5", "nan", "inf", "9" * 22, "9" * 400, "9" * 5000])
def test_a_cell_that_is_no_integer_is_refused(dtype: str, cell: str) -> None:
    assert refused(numbers, f'x\n"{cell}"\n'.encode(), 10, dtype).status == 422


def test_integers_are_read_with_their_signs() -> None:
    assert numbers(b"x\n+5\n-5\n 05\n", dtype="long") == [5, -5, 5]
