"""The prediction log and the actuals: what was answered, and what turned out to be true.

The log may lose (bounded, counted) rather than block; an actual is durable before it is acknowledged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from headrace.types import Actual, Json, Prediction


@dataclass(frozen=True, slots=True)
class Joined:
    """A prediction with its actual, if that is in."""

    prediction: Prediction
    actual: Json | None
    is_labelled: bool


def is_truth(value: Json) -> bool:
    """Tell whether an answer can be compared with an actual."""
    return value is not None and not isinstance(value, list | dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """How the actuals found their predictions.

    Attributes:
        orphans: actuals whose id no prediction has (yet).
        duplicates: repeats of the first value for an id; `conflicts` say something else.
        early: truths that are dated before their prediction.
        mistyped: first values that are null, a list or an object, with which no answer can be compared.
        behind: predictions dated over a second before the moment in their id: the clock had stepped back.
    """

    predictions: int
    labelled: int
    orphans: int = 0
    duplicates: int = 0
    conflicts: int = 0
    early: int = 0
    mistyped: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Delays:
    """How long actuals took after their predictions.

    Attributes:
        labels: how many it was found from.
        within_s: within which 99 of 100 came.
    """

    labels: int = 0
    within_s: float = 0.0


class PredictionLog(Protocol):
    """What every log does."""

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Keep answered rows; durable when it returns."""
        ...

    def append_actuals(self, component: str, actuals: Sequence[Actual]) -> None:
        """Keep truths; durable when it returns. The first value for an id counts; later ones are conflicts."""
        ...

    def joined(
        self, component: str, *, after: str = "", limit: int | None = None, version: int | None = None
    ) -> Sequence[Joined]:
        """Return predictions with ids above `after`, oldest first, with their actuals; shadows left out."""
        ...

    def counts(self, component: str, *, since: datetime | None = None) -> Counts:
        """Return how many rows are in, labelled, and out of place."""
        ...

    def delays(self, component: str, *, since: datetime, now: datetime) -> Delays:
        """Return how long the actuals of predictions since a moment took; those of young predictions are left out."""
        ...
