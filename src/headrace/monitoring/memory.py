"""What the judge remembers from window to window; small, and kept as JSON between runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.monitoring.statistics.sequential import EDetector
from headrace.types import Json


@dataclass(frozen=True, slots=True)
class Losses:
    """Labelled losses in short: how many, their mean and variance."""

    rows: int = 0
    mean: float = 0.0
    variance: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """The past of one component's watch.

    Attributes:
        version: whose windows these are; `windows` is how many of it were judged.
        before: the version whose windows came before these; 0 where there were none.
        streaks: signal to how many windows in a row it has fired; `since` to the first prediction of the first.
        detector: the sequential detector of the labelled losses.
        losses: of the last window of this version; `previous` those of the last window of the version before.
        said: the last alarm, by its consequence and signals; `repeats` how often it was said again.
        after: the last prediction that was judged.
        labelled_at: when the newest labelled prediction was made, or the first of all where none has a label yet;
            seconds since 1970, 0 before the first window.
    """

    version: int = 0
    windows: int = 0
    streaks: Mapping[str, int] = field(default_factory=dict)
    since: Mapping[str, str] = field(default_factory=dict)
    detector: EDetector | None = None
    losses: Losses = Losses()
    previous: Losses = Losses()
    said: str = ""
    repeats: int = 0
    after: str = ""
    labelled_at: float = 0.0
    before: int = 0

    def as_json(self) -> dict[str, Json]:
        """Return the memory as a JSON document."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Memory":
        """Return the memory in a JSON document."""
        detector = document.get("detector")
        return Memory(
            **{
                **document,
                "detector": EDetector(**{**detector, "logs": tuple(detector["logs"])}) if detector else None,
                "losses": Losses(**document["losses"]),
                "previous": Losses(**document["previous"]),
            }
        )
