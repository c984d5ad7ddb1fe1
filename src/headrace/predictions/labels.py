"""How far labels have come in."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.predictions.ids import lowest, time_of
from headrace.predictions.query import connect
from headrace.predictions.snapshot import Snapshot

_COVERAGE = """
SELECT count(*), count(*) FILTER (labelled), max(id) FILTER (labelled), max(actual_received),
       quantile_cont(epoch(actual_received) - epoch(made_at), 0.9) FILTER (labelled)
FROM joined
"""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How labels stand.

    Attributes:
        predictions: rows old enough for their labels to be in; `labelled` those that have one.
        watermark: no window that ends after this moment should be judged by labels yet.
        delay_s: within which nine in ten labels came; 0 where none came.
    """

    predictions: int
    labelled: int
    watermark: datetime
    delay_s: float

    @property
    def share(self) -> float:
        """Return the share of mature rows that are labelled."""
        return self.labelled / self.predictions if self.predictions else 0.0


def coverage(seen: Snapshot, *, now: datetime, maturity_s: float, since: datetime | None = None) -> Coverage:
    """Return how far the labels of a component have come.

    Args:
        maturity_s: how long after its prediction a label is expected at the latest.
    """
    watermark = now - timedelta(seconds=maturity_s)
    with connect(seen, since=lowest(since) if since else "", until=lowest(watermark)) as connection:
        found = connection.execute(_COVERAGE).fetchone()
    assert found is not None
    return Coverage(int(found[0]), int(found[1]), watermark, float(found[4] or 0.0))


def is_mature(prediction_id: str, *, now: datetime, maturity_s: float) -> bool:
    """Tell whether a prediction is old enough for its label to be in."""
    return time_of(prediction_id) + timedelta(seconds=maturity_s) <= now
