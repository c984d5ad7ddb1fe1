"""What the control API says of a request that cannot be right names no path of a library and comes with a remedy."""

from typing import Any

import msgspec
import pytest

from headrace.dashboard import bodies
from headrace.dashboard.mistakes import refusal

PROMOTION = {"component": "digits", "version": 1, "reason": "", "key": "k"}


@pytest.mark.parametrize(
    ("kind", "body", "fact"),
    [
        (bodies.Promote, {**PROMOTION, "version": 0}, "`version` must be a whole number, at least 1."),
        (bodies.Promote, {**PROMOTION, "version": 2**31}, "`version` must be a whole number, at most 2147483647."),
        (bodies.Promote, {**PROMOTION, "version": "x"}, "`version` must be a whole number, not text."),
        (bodies.Promote, {**PROMOTION, "reason": "x" * 10_001}, "`reason` must have at most 10000 characters."),
        (bodies.Promote, {**PROMOTION, "reason": "\0"}, "`reason` must have no NUL character."),
        (bodies.Promote, {"component": "digits"}, "The request lacks `version`."),
        (bodies.Promote, {**PROMOTION, "x": 1}, "The request has `x`, which is not known here."),
        (bodies.Promote, [], "The request must be an object, not a list."),
        (bodies.Collect, {"unused_for_s": 1e10}, "`unused_for_s` must be a number, at most 3155760000."),
        (bodies.NewToken, {"name": "a", "lives_s": 0}, "`lives_s` must be a number, above 0."),
    ],
)
def test_a_mistake_is_told_in_words(kind: type[Any], body: object, fact: str) -> None:
    with pytest.raises(msgspec.ValidationError) as found:
        msgspec.convert(body, kind)
    told = refusal(found.value)
    assert told.fact == fact
    assert "/api/openapi.json" in told.remedy


def test_a_name_that_cannot_be_one_is_told_with_the_rule() -> None:
    with pytest.raises(msgspec.ValidationError) as found:
        msgspec.convert({**PROMOTION, "component": "Foo Bar"}, bodies.Promote)
    told = refusal(found.value)
    assert "small letters" in told.fact
    assert "headrace status" in told.remedy
