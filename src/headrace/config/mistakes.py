"""Sentences for what a headrace.yaml has wrong, made from what pydantic found. No files, no YAML."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from headrace.config.component import Component
from headrace.config.document import Document, Mistake, Path

NAME_RULE = (
    "a component's name has small letters, digits, `.`, `_` and `-`, begins with a letter or digit, "
    "and is at most 63 characters long"
)
#: Set by the parser, so no key of the file.
NOT_WRITTEN = frozenset({"folder"})

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "model_type": "a section of `key: value` lines",
    "dict_type": "a section of `key: value` lines",
    "tuple_type": "a list, such as [a, b]",
}
_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def keys_at(path: Path) -> tuple[str, ...]:
    """Return the keys that a section knows; none where the user chooses the names, or where no section is."""
    model = _model(_annotation_at(path))
    return tuple(name for name in model.model_fields if name not in NOT_WRITTEN) if model else ()


def sections(model: type[BaseModel] = Component, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every key, sections before what is in them; names that users choose appear as `*`."""
    for name in model.model_fields:
        if name in NOT_WRITTEN:
            continue
        yield (*path, name)
        annotation = model.model_fields[name].annotation
        inner = _model(annotation) or (_model(_step(annotation, "*")) if _is_mapping(annotation) else None)
        if inner is not None:
            yield from sections(inner, (*path, name, *(("*",) if _is_mapping(annotation) else ())))


def is_section(path: Path) -> bool:
    """Tell whether a path holds a section or a list that may be left empty, rather than a single value."""
    annotation = _annotation_at(path)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_model or get_origin(annotation) in {dict, tuple}


def unknown_key(path: Path) -> str:
    """Return the sentence for a key that its section does not know, with the nearest that it does."""
    name, known = str(path[-1]), keys_at(path[:-1])
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"there is no such key; did you mean `{near[0]}`?"
    elsewhere = [".".join(map(str, place)) for place in sections() if place[-1] == name and place != path]
    if elsewhere:
        return f"there is no such key here; it belongs to `{elsewhere[0]}`"
    return f"there is no such key; known here: {', '.join(known)}"


def from_pydantic(errors: Sequence[ErrorDetails], document: Document) -> list[Mistake]:
    """Return one mistake for each place that pydantic complains about.

    A value that may be of several types is complained about once for each of them, under a path with the type's name;
    these are folded into one sentence.
    """
    grouped: dict[Path, list[ErrorDetails]] = {}
    for error in errors:
        grouped.setdefault(_written(error["loc"], document, missing=error["type"] == "missing"), []).append(error)
    return [Mistake(path, document.line(path), _sentence(path, found)) for path, found in grouped.items()]


def said_of(error: ErrorDetails) -> str:
    """Return the sentence for one value that pydantic complains about, without its name."""
    return _one(error["loc"], error)


def _written(location: Path, document: Document, *, missing: bool) -> Path:
    if missing:
        return location
    while location and location not in document.lines:
        location = location[:-1]
    return location


def _sentence(path: Path, errors: Sequence[ErrorDetails]) -> str:
    if len(errors) == 1 or any(error["type"] in _LIMITS for error in errors):
        return _one(path, next((error for error in errors if error["type"] in _LIMITS), errors[0]))
    wanted = dict.fromkeys(_wanted(error) for error in errors)
    return f"must be {' or '.join(wanted)}, not {_shown(path, errors[0]['input'])}"


def _one(path: Path, error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return unknown_key(path)
        case "missing":
            return "is missing" + (f"; {NAME_RULE}" if path == ("component",) else "")
        case "string_pattern_mismatch":
            return f"{_shown(path, error['input'])} cannot be a name: {NAME_RULE}"
        case "value_error":
            return str(context.get("error", error["msg"]))
    return _wrong_value(path, error)


def _wrong_value(path: Path, error: ErrorDetails) -> str:
    if error["loc"][-1:] == ("[key]",):
        return f"must be named {_wanted(error)}"
    if error["input"] is None:
        return f"has no value; it must be {_wanted(error)} (or leave the key out)"
    quotes = (
        "; put it in quotes"
        if error["type"] == "string_type" and isinstance(error["input"], bool | int | float)
        else ""
    )
    return f"must be {_wanted(error)}, not {_shown(path, error['input'])}{quotes}"


def _wanted(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {context[name]:g}"
    if kind in {"enum", "literal_error"}:
        return str(context["expected"]).replace("'", "`")
    return _KINDS.get(kind, error["msg"].removeprefix("Input should be ").rstrip("."))


def _shown(path: Path, value: object) -> str:
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if "environment_variables" in path:  # It may be something that should not travel in messages.
        return "what is written there"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text[:40]}{'…' if len(text) > 40 else ''}`"


def _annotation_at(path: Path) -> Any:
    annotation: Any = Component
    for part in path:
        annotation = _step(annotation, part)
    return annotation


def _step(annotation: Any, part: str | int) -> Any:
    model = _model(annotation)
    if model is not None and not _is_mapping(annotation):
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if get_origin(annotation) is tuple else None


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if _is_mapping(annotation):
        return None
    return next((found for part in get_args(annotation) if (found := _model(part)) is not None), None)
