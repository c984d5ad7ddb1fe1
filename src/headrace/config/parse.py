"""The door for headrace.yaml: from a folder to a `Component`, or to all that is wrong with the file at once.

What needs the MLproject (its entry points and their parameters) is checked where that is read.
"""

from pathlib import Path

from pydantic import ValidationError

from headrace.config.component import Component
from headrace.config.document import Document, Mistake, read_document
from headrace.config.mistakes import NOT_WRITTEN, from_pydantic, is_section, unknown_key
from headrace.errors import InvalidConfig
from headrace.types import Json

FILE = "headrace.yaml"
REFERENCE = "Every key is explained in docs/configuration.md."


def read_component(folder: Path) -> Component:
    """Return what the folder's headrace.yaml says.

    Raises:
        InvalidConfig: there is no such folder or file, it is no YAML, or keys or values are wrong; the message lists
            every mistake with its path and line.
    """
    path = folder / FILE
    text = _text(folder, path)
    return parse_component(text, path)


def parse_component(text: str, path: Path) -> Component:
    """Return what a headrace.yaml's text says; `path` is where it lies, for messages and for relative paths.

    Raises:
        InvalidConfig: as `read_component`.
    """
    document = read_document(text)
    mistakes = list(document.mistakes)
    if not document.lines:
        raise _refusal(path, mistakes)
    values = _with_empty_sections_left_out(document.values)
    for name in NOT_WRITTEN & values.keys():
        del values[name]
        mistakes.append(Mistake((name,), document.line((name,)), unknown_key((name,))))
    component = None
    try:
        component = Component.model_validate(values)
    except ValidationError as error:
        told = {mistake.path for mistake in mistakes}
        mistakes += [found for found in from_pydantic(error.errors(), document) if found.path not in told]
    if component is not None:
        component = component.model_copy(update={"folder": path.parent.absolute()})
        mistakes += _missing_project(component, document)
    if mistakes or component is None:
        raise _refusal(path, mistakes)
    return component


def _text(folder: Path, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as cause:
        if not folder.is_dir():
            raise InvalidConfig(
                f"There is no folder {folder}.", "Give the folder of a component: one with an MLproject."
            ) from cause
        misnamed = next(
            (other for name in ("headrace.yml", ".headrace.yaml") if (other := folder / name).exists()), None
        )
        if misnamed:
            raise InvalidConfig(f"There is no {path}, but a {misnamed.name}.", f"mv {misnamed} {path}") from cause
        raise InvalidConfig(f"There is no {path}.", f"Write one with `headrace init {folder}`.") from cause
    except NotADirectoryError as cause:
        raise InvalidConfig(f"{folder} is a file, not a folder.", f"Give its folder: {folder.parent}") from cause
    except UnicodeDecodeError as cause:
        line = cause.object.count(b"\n", 0, cause.start) + 1
        raise InvalidConfig(f"{path}, line {line}: is not UTF-8 text.", "Save the file as UTF-8.") from cause
    except OSError as cause:
        raise InvalidConfig(f"{path} cannot be read: {cause.strerror}.", "Make it a readable file.") from cause


def _with_empty_sections_left_out(values: dict[str, Json], at: tuple[str, ...] = ()) -> dict[str, Json]:
    """Drop sections whose lines are all commented out, which YAML reads as null."""
    kept: dict[str, Json] = {}
    for name, value in values.items():
        path = (*at, name)
        if value is None and is_section(path):
            continue
        kept[name] = _with_empty_sections_left_out(value, path) if isinstance(value, dict) else value
    return kept


def _missing_project(component: Component, document: Document) -> list[Mistake]:
    try:
        if component.project_folder.is_dir():
            return []
        sentence = f"there is no folder {component.project_folder}"
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        sentence = f"{component.project[:40]!r} cannot be a folder: {why}"
    return [Mistake(("project",), document.line(("project",)), sentence)]


def _refusal(path: Path, mistakes: list[Mistake]) -> InvalidConfig:
    lines = [str(mistake) for mistake in sorted(mistakes, key=lambda mistake: mistake.line)]
    if len(lines) == 1:
        return InvalidConfig(f"{path}: {lines[0]}.", REFERENCE)
    listing = "".join(f"\n  {line}" for line in lines)
    return InvalidConfig(f"{path} has {len(lines)} mistakes:{listing}", REFERENCE)
