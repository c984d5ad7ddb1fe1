"""What a project says about its environment: MLproject, python_env.yaml, conda.yaml, uv.lock, requirements.txt."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from headrace.errors import InvalidConfig
from headrace.types import Json

#: Conda packages that PyPI has under the same or another name; what is not here is refused by name.
SAME_NAME = (
    "catboost", "cloudpickle", "dask", "fastapi", "joblib", "keras", "lightgbm", "lightning", "matplotlib",
    "mlflow", "mlflow-skinny", "numba", "numpy", "onnx", "onnxruntime", "pandas", "pillow", "polars", "prophet",
    "pyarrow", "pydantic", "pytest", "pytorch-lightning", "pyyaml", "requests", "scikit-learn", "scipy", "seaborn",
    "setuptools", "shap", "skops", "spacy", "sqlalchemy", "statsmodels", "tensorflow", "torchvision", "tqdm",
    "transformers", "wheel", "xgboost",
)  # fmt: skip
PYPI_NAMES = {name: name for name in SAME_NAME} | {"pytorch": "torch", "pytorch-cpu": "torch", "py-xgboost": "xgboost"}
IGNORED_CONDA = {"pip", "cpuonly", "defaults"}


@dataclass(frozen=True, slots=True)
class Sources:
    """What an environment is made from.

    Attributes:
        python: as asked for, such as `3.11` or `3.11.7`; empty where the project leaves it open.
        requirements: lines as pip reads them; paths in them are relative to the project.
        files: the files that were read, relative to the project, and the SHA-256 of each.
        uv_lock: True where `requirements` are to be exported from the project's own uv.lock.
    """

    python: str
    requirements: tuple[str, ...]
    files: Mapping[str, str]
    uv_lock: bool = False


def read_sources(project: Path) -> Sources:
    """Return what the project's MLproject names, or what a saved MLflow model's own files name.

    An environment that MLproject names comes first, then the files that MLflow takes by default (python_env.yaml,
    conda.yaml), then uv.lock, then requirements.txt.

    Raises:
        InvalidConfig: nothing is named, a named file is absent or unreadable, or conda packages are asked for that
            pip cannot give.
    """
    document = {} if (project / "MLmodel").is_file() else read_yaml(find_mlproject(project))
    for key, name, reader in (
        ("python_env", "python_env.yaml", _from_python_env),
        ("conda_env", "conda.yaml", _from_conda),
    ):
        path = project / str(document.get(key, name))
        if key in document and not path.is_file():
            raise InvalidConfig(
                f"The MLproject names `{key}: {document[key]}`; {path} does not exist.",
                "Create the file, or correct the name in MLproject.",
            )
        if path.is_file():
            return reader(project, path)
    if (project / "uv.lock").is_file() and (project / "pyproject.toml").is_file():
        files = _digests(project, [project / "uv.lock", project / "pyproject.toml"])
        return Sources(python="", requirements=(), files=files, uv_lock=True)
    if (project / "requirements.txt").is_file():
        read: list[Path] = []
        lines = _requirement_lines(project / "requirements.txt", read)
        return Sources(python="", requirements=lines, files=_digests(project, read))
    if "docker_env" in document:
        raise InvalidConfig(
            f"The MLproject in {project} names a Docker image to train in (`docker_env`), and nothing says what its "
            "model needs to be served.",
            "Write a requirements.txt beside it (it must hold mlflow), or replace `docker_env` by `python_env`.",
        )
    raise InvalidConfig(
        f"The project {project} says nowhere what it needs: no python_env.yaml, conda.yaml, uv.lock, requirements.txt.",
        "Write a requirements.txt (it must hold mlflow), or set `environment: inherit` in headrace.yaml for dev.",
    )


def find_mlproject(project: Path) -> Path:
    """Return the project's MLproject file, whatever its case. Raises InvalidConfig."""
    if project.is_dir():
        for path in sorted(project.iterdir()):
            if path.name.lower() == "mlproject" and path.is_file():
                return path
    raise InvalidConfig(
        f"No MLproject file in {project}.",
        "Name the folder that holds it as `project:` in headrace.yaml, or write one (see https://mlflow.org/docs).",
    )


def read_yaml(path: Path) -> dict[str, Json]:
    """Return a YAML file's mapping. Raises InvalidConfig naming the line."""
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidConfig(f"{path}, line {line}: {error.problem}.", "Correct the YAML there.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read: {error}.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidConfig(f"{path} holds a {type(document).__name__}, not a mapping of keys to values.")
    return document


def _from_python_env(project: Path, path: Path) -> Sources:
    document = read_yaml(path)
    read = [path]
    lines = [line for item in _items(document, "dependencies", path) for line in _expanded(str(item), path, read)]
    if not lines:
        raise InvalidConfig(f"{path} lists no dependencies.", "List what training needs, mlflow included.")
    python = str(document.get("python") or "")
    return Sources(python=_python(python, path), requirements=tuple(lines), files=_digests(project, read))


def _from_conda(project: Path, path: Path) -> Sources:
    document = read_yaml(path)
    read, lines, refused, python = [path], list[str](), list[str](), ""
    for item in _items(document, "dependencies", path):
        if isinstance(item, dict):
            asked = item.get("pip")
            for line in asked if isinstance(asked, list) else []:
                lines += _expanded(str(line), path, read)
            continue
        name, version = _conda_requirement(str(item))
        if name == "python":
            python = version.lstrip("=").removesuffix(".*")
        elif name in PYPI_NAMES:
            lines.append(PYPI_NAMES[name] + version)
        elif name not in IGNORED_CONDA:
            refused.append(name)
    if refused:
        raise InvalidConfig(
            f"{path} asks conda for {', '.join(f'`{name}`' for name in refused)}, which pip cannot give.",
            "Move what PyPI has under `- pip:`; install the rest on the machine, or use `environment: docker`.",
        )
    return Sources(python=_python(python, path), requirements=tuple(lines), files=_digests(project, read))


def _items(document: dict[str, Json], key: str, path: Path) -> list[Json]:
    items = document.get(key) or []
    if not isinstance(items, list):
        raise InvalidConfig(f"{path}: `{key}` is a {type(items).__name__}, not a list.", "Write one `- name` per line.")
    return items


def _conda_requirement(item: str) -> tuple[str, str]:
    """Return a conda match specification's name and its version as pip writes it; the build string is dropped."""
    bare = item.rpartition("::")[2].strip()
    found = re.match(r"^([A-Za-z0-9_.-]+?)\s*(==|=|>=|<=|>|<|!=|~=|$|\s)\s*(.*)$", bare)
    if found is None:
        return bare.lower(), ""
    name, operator, version = found[1].lower(), found[2].strip(), found[3].strip()
    if not version:
        return name, ""
    if operator in ("=", ""):  # `numpy=1.26` means any 1.26; `numpy=1.26.4=build` means just that.
        number = version.partition("=")[0]
        return name, f"=={number}" if number.count(".") >= 2 or "*" in number else f"=={number}.*"
    return name, operator + version


def _python(asked: str, path: Path) -> str:
    found = re.fullmatch(r"(\d+\.\d+(?:\.\d+)?)?", asked.strip())
    if found is None:
        raise InvalidConfig(f"{path} asks for Python `{asked}`.", 'Write a version such as `python: "3.11"`.')
    return found[0]


def _expanded(line: str, path: Path, read: list[Path]) -> tuple[str, ...]:
    found = re.match(r"^(?:-r|--requirement)[= ]?\s*(\S+)$", line.strip())
    return _requirement_lines(path.parent / found[1], read) if found else (line.strip(),)


def _requirement_lines(path: Path, read: list[Path]) -> tuple[str, ...]:
    """Return a requirements file's lines, with the files that it includes in their place."""
    if path in read:
        return ()
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}.", "Create it, or correct the name.") from error
    read.append(path)
    lines: list[str] = []
    for raw in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if line:
            lines += _expanded(line, path, read)
    return tuple(lines)


def _digests(project: Path, files: list[Path]) -> dict[str, str]:
    return {
        str(path.relative_to(project)) if path.is_relative_to(project) else str(path): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in files
    }
