"""The back ends that flows work with, and where each flow keeps its files. Made by `wiring`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from headrace.clock import Clock
from headrace.config.component import EnvironmentKind
from headrace.config.settings import Settings
from headrace.deploy.base import Target
from headrace.environment.base import Environments
from headrace.ledger.base import Ledger
from headrace.lifecycle.claims import UNCLAIMED, Claim
from headrace.lifecycle.events import Journal
from headrace.lifecycle.request import folder_name
from headrace.predictions.base import PredictionLog
from headrace.registry.base import Registry
from headrace.training.container import Containers, NoContainers

AGAIN = "again-"


def nothing_runs(_flow: str) -> bool:
    """Say of every flow that it does not run: there is no engine."""
    return False


@dataclass(frozen=True, slots=True)
class Rooms:
    """One installation's back ends.

    Attributes:
        containers: what trainings in containers are made of.
        claim: the right to act of the flow or phase that these were handed to.
        is_under_way: tells whether a flow waits or runs, here or on another node; the engine sets it.
    """

    settings: Settings
    clock: Clock
    registry: Registry
    ledger: Ledger
    target: Target
    environments: Callable[[EnvironmentKind], Environments]
    predictions: PredictionLog
    containers: Containers = field(default_factory=NoContainers)
    claim: Claim = UNCLAIMED
    is_under_way: Callable[[str], bool] = nothing_runs

    def folder(self, flow: str) -> Path:
        """Return the folder of a flow: its events, and what its phases leave."""
        return self.settings.flows / folder_name(flow)

    def place(self, flow: str) -> Path:
        """Return where this execution of a phase keeps checkout, work and results.

        Whoever takes a phase over has a place of its own: a late writer changes nothing of it.
        """
        return place_of(self.folder(flow), self.claim.epoch)

    def journal(self, flow: str) -> Journal:
        return Journal(self.folder(flow), self.clock, self.claim)


def place_of(folder: Path, epoch: int) -> Path:
    """Return the place of one epoch in a flow's folder."""
    return folder if epoch == 1 else folder / f"{AGAIN}{epoch}"
