"""The values of the watch: signals look at a window, a judge makes one verdict of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from headrace.predictions.base import Joined
from headrace.types import Json

if TYPE_CHECKING:
    from headrace.monitoring.frame import Frame


class Consequence(StrEnum):
    """What an alarm leads to."""

    NONE = "none"
    WARN = "warn"
    RETRAIN = "retrain"
    ROLL_BACK = "roll back"
    REBUILD = "rebuild"  #: a person must look: the meaning of the data changed


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive predictions of one component in production, oldest first, shadows left out."""

    component: str
    version: int
    rows: Sequence[Joined]

    @property
    def first(self) -> str:
        return self.rows[0].prediction.id

    @property
    def last(self) -> str:
        return self.rows[-1].prediction.id


@dataclass(frozen=True, slots=True)
class Signal:
    """What one detector found in one window.

    Attributes:
        p_value: chance of something at least this odd if nothing had changed; None for checks without one.
        effect: how large the change is, in `unit`.
        fired: whether it is beyond its own threshold.
        sentence: the evidence in plain words, with numbers.
    """

    name: str
    fired: bool
    sentence: str
    p_value: float | None = None
    effect: float = 0.0
    unit: str = ""
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alarm:
    """The judge's verdict on one window. `consequence` is NONE where all is quiet.

    Attributes:
        since: the id of the first prediction of the first window in which any of it fired.
        repeats: how many windows in a row have said the same before; only the first is news.
    """

    consequence: Consequence
    sentence: str
    signals: Sequence[Signal]
    since: str = ""
    repeats: int = 0

    @property
    def severity(self) -> str:
        """Return `quiet`, `low` (somebody should know) or `high` (something must be done)."""
        return {Consequence.NONE: "quiet", Consequence.WARN: "low"}.get(self.consequence, "high")

    def as_json(self) -> dict[str, Json]:
        """Return the alarm as it goes into ledgers and reports."""
        return {
            "consequence": self.consequence.value,
            "severity": self.severity,
            "sentence": self.sentence,
            "since": self.since,
            "repeats": self.repeats,
            "signals": [
                {
                    "name": one.name,
                    "fired": one.fired,
                    "sentence": one.sentence,
                    "p_value": one.p_value,
                    "effect": one.effect,
                    "unit": one.unit,
                    "details": dict(one.details),
                }
                for one in self.signals
            ],
        }


class Detector(Protocol):
    """One kind of signal. It is made from a reference profile and looks at windows."""

    name: str

    def look(self, frame: "Frame") -> Sequence[Signal]:
        """Return what is odd about a window, given by columns, and what is not."""
        ...
