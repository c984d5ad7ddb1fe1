"""Forms that people type: what is read, and what is refused before it costs anybody time."""

from types import SimpleNamespace
from typing import Any

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
