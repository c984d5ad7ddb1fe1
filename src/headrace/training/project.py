"""An MLproject's entry points and their parameters, read without importing mlflow."""

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.environment.sources import find_mlproject, read_yaml
from headrace.errors import InvalidConfig
from headrace.types import Json

KINDS = ("string", "float", "path", "uri")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an entry point.

    Attributes:
        kind: MLproject's type: `string`, `float`, `path` or `uri`.
        default: None where the caller must give one.
    """

    name: str
    kind: str
    default: str | None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One command of a project."""

    name: str
    command: str
    parameters: Mapping[str, Parameter]

    def complete(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return all parameters: the given ones and the defaults of the others.

        What the entry point does not name is passed on, as MLflow does (`--name value` at the command's end).

        Raises:
            InvalidConfig: one without a default is not given.
        """
        missing = [name for name, one in self.parameters.items() if name not in given and one.default is None]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise InvalidConfig(
                f"The entry point `{self.name}` needs {names}, which has no default and is not given.",
                "Add it under `parameters:` in headrace.yaml, or name it as a data input's `parameter:`.",
            )
        defaults = {name: one.default for name, one in self.parameters.items() if one.default is not None}
        return defaults | dict(given)

    def render(self, values: Mapping[str, str]) -> str:
        """Return the shell command with the values in their places, quoted, as MLflow does it."""
        quoted = {name: shlex.quote(value) for name, value in values.items()}
        extra = [f"--{shlex.quote(name)} {value}" for name, value in quoted.items() if name not in self.parameters]
        try:
            return " ".join([self.command.format(**quoted), *extra])
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise InvalidConfig(
                f"The command of entry point `{self.name}` names {error}, which is no parameter of it: {self.command}",
                "Add it under the entry point's `parameters:` in MLproject.",
            ) from error


@dataclass(frozen=True, slots=True)
class DockerEnv:
    """The image that a project brings along (`docker_env`).

    Attributes:
        volumes: `/on/the/host:/in/the/container[:ro]`.
        variables: name to value; None takes the value that the caller has.
    """

    image: str
    volumes: tuple[str, ...] = ()
    variables: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Project:
    """One MLflow Project."""

    folder: Path
    name: str
    entry_points: Mapping[str, EntryPoint]
    docker: DockerEnv | None = None

    def entry_point(self, name: str) -> EntryPoint:
        """Return an entry point; as in MLflow, a script's name will do too. Raises InvalidConfig."""
        if name in self.entry_points:
            return self.entry_points[name]
        if Path(name).suffix == ".py" and (self.folder / name).is_file():
            return EntryPoint(name, f"python {shlex.quote(name)}", {})
        near = difflib.get_close_matches(name, self.entry_points, n=1)
        has = ", ".join(f"`{one}`" for one in self.entry_points) or "none"
        raise InvalidConfig(
            f"The MLproject in {self.folder} has no entry point `{name}` (it has: {has}).",
            f"Did you mean `{near[0]}`?" if near else "Add it to MLproject, or name another in headrace.yaml.",
        )


def read_project(folder: Path) -> Project:
    """Return what the MLproject of a folder says. Raises InvalidConfig naming the file and the key."""
    path = find_mlproject(folder)
    document = read_yaml(path)
    section = document.get("entry_points") or {}
    if not isinstance(section, dict):
        raise InvalidConfig(f"{path}: `entry_points` is a {type(section).__name__}, not a mapping of names.")
    points = {str(name): _entry_point(str(name), written, path) for name, written in section.items()}
    return Project(folder, str(document.get("name") or folder.name), points, _docker_env(document, path))


def _docker_env(document: Mapping[str, Json], path: Path) -> DockerEnv | None:
    if "docker_env" not in document:
        return None
    match document["docker_env"]:
        case {"image": str(image), **rest}:
            volumes, variables = rest.get("volumes") or [], rest.get("environment") or []
            if isinstance(volumes, list) and isinstance(variables, list):
                return DockerEnv(image, tuple(map(str, volumes)), dict(_variable(one, path) for one in variables))
    raise InvalidConfig(
        f"{path}: `docker_env` is no section with an `image` and lists of `volumes` and `environment`.",
        "Write for example `docker_env: {image: my-image}`.",
    )


def _variable(written: Json, path: Path) -> tuple[str, str | None]:
    match written:
        case str(name):
            return name, None
        case [str(name), str() | int() | float() as value]:
            return name, str(value)
    raise InvalidConfig(f"{path}: `docker_env.environment` holds neither a name nor a pair of name and value.")


def _entry_point(name: str, written: Json, path: Path) -> EntryPoint:
    if not isinstance(written, dict) or not isinstance(written.get("command"), str):
        raise InvalidConfig(
            f"{path}: the entry point `{name}` has no `command`.", f'Write `{name}: {{command: "python train.py"}}`.'
        )
    section = written.get("parameters") or {}
    if not isinstance(section, dict):
        raise InvalidConfig(f"{path}: `parameters` of `{name}` is a {type(section).__name__}, not a mapping of names.")
    return EntryPoint(
        name, str(written["command"]), {str(one): _parameter(str(one), says) for one, says in section.items()}
    )


def _parameter(name: str, says: Json) -> Parameter:
    if isinstance(says, dict):
        default = says.get("default")
        return Parameter(name, str(says.get("type", "string")), None if default is None else str(default))
    return Parameter(name, str(says), None)
