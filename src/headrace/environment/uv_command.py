"""The `uv` program that headrace brings along, and what its complaints mean."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.config.settings import Settings
from headrace.environment.packages import read_package_sources
from headrace.errors import EnvironmentFailed


@dataclass(frozen=True, slots=True)
class Uv:
    """One uv, its cache and its variables."""

    program: str
    variables: Mapping[str, str]

    def run(
        self, *arguments: str | Path, cwd: Path, keep_open: Sequence[int] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """Run uv to its end; on Ctrl-C it is ended too.

        Args:
            keep_open: file descriptors that uv inherits, so that a lock outlives a headrace that is killed.
        """
        return subprocess.run(
            [self.program, *map(str, arguments)],
            env=dict(self.variables),
            cwd=cwd,
            pass_fds=keep_open,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def find_uv(settings: Settings) -> Uv:
    """Return headrace's own uv. Raises EnvironmentFailed where it is not installed."""
    import uv

    try:
        program = os.fsdecode(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise EnvironmentFailed(f"headrace's own `uv` is missing: {error}.", "Run `make setup`.") from error
    own = {name: value for name, value in settings.variables.items() if name.startswith("UV_")}
    own |= {
        "UV_CACHE_DIR": str(settings.uv_cache),
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    certificates = read_package_sources(settings.variables).certificates
    if certificates and "SSL_CERT_FILE" not in settings.variables:
        own["SSL_CERT_FILE"] = certificates
    return Uv(program, settings.child_environment(own))


def first_conflict(stderr: str) -> str:
    """Return the first cause that uv names, as one sentence without its end."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", stderr)
    because = re.findall(r"\b[Bb]ecause (.*?), we can conclude", _joined(text), re.DOTALL)
    if because:
        return ", and ".join(part.strip() for part in because[:3])
    causes = re.findall(r"^\s*(?:cause|Caused by):\s*(.+)$", text, re.MULTILINE)
    errors = re.findall(r"^\s*(?:error:|×)\s*(.+)$", text, re.MULTILINE)
    named = [*errors[:1], *causes[-1:]]
    return (
        ": ".join(part.strip().rstrip(".") for part in named) or text.strip().rpartition("\n")[2] or "uv gave no reason"
    )


def _joined(text: str) -> str:
    return re.sub(r"\s*\n\s+", " ", text)
