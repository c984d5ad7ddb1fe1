"""Which Python a project gets: one on this machine that matches what it asks for. None is downloaded."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from headrace.config.settings import Settings
from headrace.environment.uv_command import find_uv
from headrace.errors import EnvironmentFailed

OWN_VERSION = ".".join(map(str, sys.version_info[:3]))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on this machine."""

    path: Path
    version: str


def find_interpreter(asked: str, settings: Settings, *, wanted_by: str) -> Interpreter:
    """Return an interpreter with the asked major and minor version, the one that headrace runs on if it fits.

    Args:
        asked: such as `3.11` or `3.11.7`; empty takes headrace's own.

    Raises:
        EnvironmentFailed: none is there; the message says which are.
    """
    own = Interpreter(Path(sys._base_executable).resolve(), OWN_VERSION)  # type: ignore[attr-defined]
    if _minor(asked) in ("", _minor(OWN_VERSION)):
        return own
    search = find_uv(settings).run("python", "find", "--system", "--no-project", _minor(asked), cwd=Path("/"))
    root = Path(settings.variables.get("PYENV_ROOT") or Path(settings.variables.get("HOME", "/")) / ".pyenv")
    candidates = [Path(search.stdout.strip())] if search.returncode == 0 else []
    candidates += sorted(root.glob(f"versions/{_minor(asked)}.*/bin/python"), reverse=True)
    for path in candidates:
        version = _version(path)
        if version and _minor(version) == _minor(asked):
            return Interpreter(path, version)
    raise EnvironmentFailed(
        f"{wanted_by} asks for Python {asked}; this machine has {OWN_VERSION} ({own.path}), no {_minor(asked)}.",
        f'Install Python {_minor(asked)}, or write `python: "{_minor(OWN_VERSION)}"` in its python_env.yaml.',
    )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@functools.cache
def _version(path: Path) -> str:
    probe = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([path, "-I", "-c", probe], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == os.EX_OK else ""
