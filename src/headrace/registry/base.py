"""The registry: runs, logged models, versions and aliases. The one door to MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class RunState(StrEnum):
    """How a run stands."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


@dataclass(frozen=True, slots=True)
class Run:
    """A tracked run."""

    id: str
    experiment: str
    state: RunState
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    models: Sequence[str] = ()  #: URIs of the models that the run logged, oldest first (`models:/m-…`)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version."""

    component: str
    number: int
    run_id: str
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Sequence[str] = ()


class Registry(Protocol):
    """What every registry does. Writes are durable when they return; a repeat with the same key changes nothing."""

    def start_run(self, experiment: str, *, key: str, tags: Mapping[str, str]) -> Run:
        """Return the run that was started under `key` (a tag), starting it if there is none."""
        ...

    def find_run(self, experiment: str, *, key: str) -> Run | None:
        """Return the run that was started under `key`, if there is one."""
        ...

    def run(self, run_id: str) -> Run:
        """Return a run. Raises NotFound."""
        ...

    def end_run(self, run_id: str, state: RunState) -> None:
        """Say how a run ended; a run that has ended keeps its state.

        One exception: FINISHED may become FAILED, as MLflow says the first before anybody has looked at the model.
        """
        ...

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add parameters, metrics and tags to a run."""
        ...

    def upload(self, run_id: str, path: Path, folder: str) -> None:
        """Keep a file or a folder among the run's artifacts, under `folder`."""
        ...

    def download(self, uri: str, to: Path) -> Path:
        """Copy the files behind `models:/…`, `runs:/…` or a path into `to` and return the folder that holds them."""
        ...

    def register(self, component: str, *, run_id: str, model: str, key: str, tags: Mapping[str, str]) -> Version:
        """Return the version that was registered under `key`, registering it if there is none."""
        ...

    def version(self, component: str, number: int) -> Version:
        """Return a version. Raises NotFound."""
        ...

    def versions(self, component: str) -> Sequence[Version]:
        """Return all versions, newest first."""
        ...

    def tag_version(self, component: str, number: int, tags: Mapping[str, str]) -> None:
        """Add tags to a version."""
        ...

    def set_alias(self, component: str, alias: str, number: int | None) -> None:
        """Point an alias at a version; None removes it."""
        ...

    def alias(self, component: str, alias: str) -> int | None:
        """Return the version that an alias points at, or None."""
        ...
