"""What an interpreter has installed, asked of that interpreter."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import EnvironmentFailed

_LIST = """
import importlib.metadata, json, platform, re
named = [(d.metadata["Name"], d.version) for d in importlib.metadata.distributions() if d.metadata["Name"]]
found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in named}
print(json.dumps({"python": platform.python_version(), "packages": found}))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A Python's version, and its distributions by normalised name as they stand in a lock."""

    python: str
    packages: Mapping[str, str]


def installed(python: Path, variables: Mapping[str, str]) -> Installed:
    """Return what an interpreter has. Costs one start of it.

    Raises:
        EnvironmentFailed: it does not run; the remedy is left to the caller.
    """
    try:
        done = subprocess.run(
            [python, "-I", "-c", _LIST], env=dict(variables), capture_output=True, text=True, timeout=60, check=True
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EnvironmentFailed(f"The interpreter {python} does not run ({str(error).splitlines()[0]})") from error
    return Installed(found["python"], found["packages"])
