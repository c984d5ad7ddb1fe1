"""The back ends that flows work with, and where each flow keeps its files. Made by `wiring`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.clock import Clock
from headrace.config.component import EnvironmentKind
from headrace.config.settings import Settings
from headrace.deploy.base import Target
from headrace.environment.base import Environments
from headrace.ledger.base import Ledger
from headrace.lifecycle.events import Journal
from headrace.lifecycle.request import folder_name
from headrace.predictions.base import PredictionLog
from headrace.registry.base import Registry


@dataclass(frozen=True, slots=True)
class Rooms:
    """One installation's back ends."""

    settings: Settings
    clock: Clock
    registry: Registry
    ledger: Ledger
    target: Target
    environments: Callable[[EnvironmentKind], Environments]
    predictions: PredictionLog

    def folder(self, flow: str) -> Path:
        """Return the folder of a flow: checkout, logs, events."""
        return self.settings.flows / folder_name(flow)

    def journal(self, flow: str) -> Journal:
        return Journal(self.folder(flow), self.clock)
