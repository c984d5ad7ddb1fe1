"""YAML text as plain values that remember their lines. Knows nothing of what the keys mean.

Words stay words: only `true`, `false`, `null` and numbers are more than text, so the key `on` is no boolean and a date
no date, as in YAML 1.2.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from headrace.types import Json

#: Keys and list positions from the root, as pydantic writes them.
Path: TypeAlias = tuple[str | int, ...]

DEEPEST = 30


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, and where."""

    path: Path
    line: int
    sentence: str

    def __str__(self) -> str:
        place = ".".join(str(part) for part in self.path)
        return f"{place}, line {self.line}: {self.sentence}" if place else f"line {self.line}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: values, the line of every path in them, and what the YAML itself has wrong."""

    values: dict[str, Json]
    lines: Mapping[Path, int]
    mistakes: tuple[Mistake, ...] = ()

    def line(self, path: Path) -> int:
        """Return the line of a path, or of the nearest thing above it that is written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """PyYAML's reader with YAML 1.2's few plain types."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's shape


#: What may be written under each plain type.
_FITTING: dict[str, re.Pattern[str]] = {}
_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("null", r"~|null|Null|", "~nN\0"),
    # Longer runs of digits are somebody's identifier, not a number.
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", r"[-+]?([0-9]{1,18}\.[0-9]*|\.[0-9]+|[0-9]{1,18}(?=[eE]))([eE][-+]?[0-9]{1,3})?", "-+.0123456789"),
):
    _firsts: list[str] = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _firsts)
    _FITTING[f"{_TAG}{_name}"] = re.compile(_pattern)


def read_document(text: str) -> Document:
    """Return the values of a YAML text with their lines; an empty text is an empty document.

    What can be read although something is wrong (a key written twice, an anchor) is in `mistakes`; a text that cannot
    be read has no values and one mistake.
    """
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        return _unreadable(error.problem_mark, _sentence(error))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return Document({}, {}, (Mistake((), line, f"holds a character that YAML forbids (U+{error.character:04X})"),))
    except RecursionError:
        return _unreadable(None, "is nested too deeply to be a headrace.yaml")
    if root is None:
        return Document({}, {(): 1})
    reader = _Reader()
    values = reader.plain(root, ())
    if not isinstance(values, dict):
        return _unreadable(root.start_mark, "must hold `key: value` lines, beginning with `component: <name>`")
    return Document(values, reader.lines, tuple(reader.mistakes))


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


def _unreadable(mark: yaml.Mark | None, sentence: str) -> Document:
    return Document({}, {}, (Mistake((), mark.line + 1 if mark else 1, sentence),))


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if "'\\t'" in problem:
        return "is indented with a tab; YAML wants spaces"
    if "mapping values are not allowed" in problem:
        return "has a `:` inside a value, or is indented wrongly; put the value in quotes"
    if "expected a single document" in problem or "but found another document" in str(error):
        return "begins a second document (`---`); one file describes one component"
    return f"is no valid YAML: {problem}"


class _Reader:
    """One walk over a node tree."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.mistakes: list[Mistake] = []
        self._seen: set[int] = set()

    def plain(self, node: yaml.Node, path: Path) -> Json:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if not _fits(node):
            sentence = f"has the tag `{node.tag.replace(_TAG, '!!')}`, which does not fit what it stands before"
            self.mistakes.append(Mistake(path, line, f"{sentence}; leave it out"))
            return None
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._seen or len(path) > DEEPEST:
            # An alias to a section is one node met twice, perhaps inside itself.
            self.mistakes.append(
                Mistake(path, line, "is an alias (`*name`) or nested too deeply; write it out instead")
            )
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, (*path, number)) for number, child in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append(Mistake(path, line, "has a key that is no word"))
                continue
            name = _whole(key.value)
            if name in found:
                first = self.lines[(*path, name)]
                self.mistakes.append(Mistake((*path, name), line, f"is written twice (first on line {first})"))
                continue
            self.lines[(*path, name)] = line
            found[name] = self.plain(value, (*path, name))
        return found


def _whole(text: str) -> str:
    """Return a text as characters: JSON escapes those beyond U+FFFF as two halves, which YAML leaves apart."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _fits(node: yaml.Node) -> bool:
    """Tell whether a node is what its tag says, which somebody may have written there."""
    if not isinstance(node, yaml.ScalarNode):
        return node.tag == f"{_TAG}{'seq' if isinstance(node, yaml.SequenceNode) else 'map'}"
    if node.tag == f"{_TAG}float" and _FITTING[f"{_TAG}int"].fullmatch(node.value):
        return True
    pattern = _FITTING.get(node.tag)
    return node.tag == f"{_TAG}str" if pattern is None else pattern.fullmatch(node.value) is not None


def _scalar(node: yaml.ScalarNode) -> Json:
    text = _whole(node.value)
    match node.tag.removeprefix(_TAG):
        case "bool":
            return text.lower() == "true"
        case "null":
            return None
        case "int":
            return int(text)
        case "float":
            return float(text)
        case _:
            return text
