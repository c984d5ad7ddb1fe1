"""The component's environment: one interpreter for training and serving, never headrace's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Download:
    """What will be fetched before an environment can be made."""

    packages: int
    bytes: int
    largest: Sequence[tuple[str, int]] = ()  #: name and bytes


@dataclass(frozen=True, slots=True)
class Lock:
    """An exact answer to what a project asks for.

    Attributes:
        digest: SHA-256 over `text` and the Python version; the name of the environment.
        text: requirements with versions and hashes.
        python: full version, such as `3.11.7`.
        sources: the files that it was made from.
    """

    digest: str
    text: str
    python: str
    sources: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """A built environment.

    Attributes:
        digest: the lock's.
        python: its interpreter.
    """

    digest: str
    python: Path
    lock: Lock


class Environments(Protocol):
    """What every kind of environment does."""

    def lock(self, project: Path, *, for_gpus: bool = False) -> Lock:
        """Resolve what the MLproject of a project, or a saved MLflow model itself, names.

        The same project with the same sources gives the same lock.

        Args:
            for_gpus: its torch must be one for GPUs, also where this machine has none.

        Raises:
            EnvironmentFailed: it cannot be solved; the message names the first conflict. Or torch is to be had for CPUs
                alone, and it must be one for GPUs.
            InvalidConfig: the project names nothing that can be used (conda packages that pip cannot give, by name).
        """
        ...

    def download(self, lock: Lock) -> Download:
        """Say what `build` would fetch; all zero where nothing would be."""
        ...

    def build(self, lock: Lock, *, progress: Callable[[str], None]) -> Environment:
        """Make the environment, or return at once if it is there. Safe to interrupt and repeat."""
        ...
