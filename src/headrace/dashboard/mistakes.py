"""Sentences for what a request has wrong, made from what msgspec found."""

import re

from headrace.config.mistakes import NAME_RULE
from headrace.dashboard.bodies import WITHOUT_NUL
from headrace.dashboard.openapi import PATH
from headrace.errors import InvalidInput

_KINDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip
_BOUNDS = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}


def refusal(error: Exception) -> InvalidInput:
    """Return what to tell about a body or query that cannot be decoded."""
    found = re.fullmatch(r"(.*?)(?: - at `\$\.?([^`]*)`)?", str(error), re.DOTALL)
    assert found is not None
    what, field = found[1], found[2] or ""
    if field == "component" and "regex" in what:
        return InvalidInput(f"This cannot be a component: {NAME_RULE}.", "The names that there are: headrace status")
    return InvalidInput(f"{_sentence(what, field)}.", f"What each request takes: GET {PATH}")


def _sentence(what: str, field: str) -> str:
    name = f"`{field}`" if field else "The request"
    if bound := re.fullmatch(r"Expected `(\w+)` ([<>]=?) (\S+)", what):
        return f"{name} must be {_kind(bound[1])}, {_BOUNDS[bound[2]]} {bound[3].removesuffix('.0')}"
    if length := re.fullmatch(r"Expected `str` of length ([<>]=?) (\d+)", what):
        return f"{name} must have {_BOUNDS[length[1]]} {length[2]} characters"
    if what == f"Expected `str` matching regex {WITHOUT_NUL!r}":
        return f"{name} must have no NUL character"
    if kinds := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", what):
        return f"{name} must be {_kind(kinds[1])}, not {_kind(kinds[2])}"
    if key := re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", what, re.DOTALL):
        lacks = f"The request lacks `{key[2]}`"
        return lacks if key[1] == "missing required" else f"The request has `{key[2]}`, which is not known here"
    return f"{name}: {what}"


def _kind(named: str) -> str:
    return " or ".join(_KINDS.get(one, one) for one in named.split(" | "))
