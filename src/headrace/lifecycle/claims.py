"""May what runs here still act? A flow is claimed by one execution at a time; who lost it changes nothing more.

The claim is DBOS's own: every hand-over of a flow to a worker gives it a new owner token, and a step is recorded only
under the token that the database holds. Here the same token guards what DBOS does not know: the ledger (checked in the
transaction of each entry), the registry (before each write), the journal and the training child.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.errors import HeadraceError
from headrace.registry.base import Registry, Run, RunState, Version


class Superseded(HeadraceError):
    """Another worker has taken this flow over; whatever this one still does is refused."""

    exit_code = 4
    http_status = 409


class Claim(Protocol):
    """The right of one execution to act for a flow."""

    @property
    def epoch(self) -> int:
        """Rises by one whenever the flow moves to another node; a restart on the same node keeps it."""
        ...

    def check(self) -> None:
        """Raise Superseded where another execution has the flow by now; asks the database."""
        ...

    def is_lost(self) -> bool:
        """Tell the same, cheaply and often: the database is asked only where this node's heartbeat is late."""
        ...


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """The claim of what cannot be taken over: one process plays all roles, and a lock holds its home."""

    epoch: int = 1

    def check(self) -> None:
        """Say nothing: nobody else can have it."""

    def is_lost(self) -> bool:
        return False


UNCLAIMED = Unclaimed()


@dataclass(frozen=True, slots=True)
class ClaimedRegistry:
    """A registry that is written to only while the claim holds."""

    inner: Registry
    claim: Claim

    def start_run(self, experiment: str, *, key: str, tags: Mapping[str, str]) -> Run:
        self.claim.check()
        return self.inner.start_run(experiment, key=key, tags=tags)

    def find_run(self, experiment: str, *, key: str) -> Run | None:
        return self.inner.find_run(experiment, key=key)

    def run(self, run_id: str) -> Run:
        return self.inner.run(run_id)

    def end_run(self, run_id: str, state: RunState) -> None:
        self.claim.check()
        self.inner.end_run(run_id, state)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.claim.check()
        self.inner.log(run_id, parameters=parameters, metrics=metrics, tags=tags)

    def upload(self, run_id: str, path: Path, folder: str) -> None:
        self.claim.check()
        self.inner.upload(run_id, path, folder)

    def download(self, uri: str, to: Path) -> Path:
        return self.inner.download(uri, to)

    def register(self, component: str, *, run_id: str, model: str, key: str, tags: Mapping[str, str]) -> Version:
        self.claim.check()
        return self.inner.register(component, run_id=run_id, model=model, key=key, tags=tags)

    def version(self, component: str, number: int) -> Version:
        return self.inner.version(component, number)

    def versions(self, component: str) -> list[Version]:
        return list(self.inner.versions(component))

    def tag_version(self, component: str, number: int, tags: Mapping[str, str]) -> None:
        self.claim.check()
        self.inner.tag_version(component, number, tags)

    def set_alias(self, component: str, alias: str, number: int | None) -> None:
        self.claim.check()
        self.inner.set_alias(component, alias, number)

    def alias(self, component: str, alias: str) -> int | None:
        return self.inner.alias(component, alias)
