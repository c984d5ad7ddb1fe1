"""Keys match as they were sent, whatever letters they are made of."""

import pytest

from headrace.serving.keys import check_key, digest_of
from headrace.serving.rejection import Rejected

KEY = "d\u00e9j\u00e0 \u0141"


@pytest.mark.parametrize("key", ["open sesame", KEY])
def test_a_key_in_utf8_matches(key: str) -> None:
    check_key([digest_of("other"), digest_of(key)], f"Bearer {key}".encode().decode("latin-1"), "predicting")


def test_a_key_in_latin_1_matches() -> None:
    check_key([digest_of("d\u00e9j\u00e0")], "bearer d\u00e9j\u00e0 ", "predicting")


def test_a_key_of_any_bytes_matches() -> None:
    raw = b"\xe9\xff"
    check_key([digest_of(raw.decode("utf-8", "surrogateescape"))], f"Bearer {raw.decode('latin-1')}", "predicting")


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer x", "Basic open sesame", f"Bearer {KEY}", "Bearer \u00e9\u00ff"]
)
def test_other_keys_are_refused(given: str) -> None:
    with pytest.raises(Rejected) as refusal:
        check_key([digest_of("open sesame")], given, "predicting")
    assert refusal.value.status == 401
