"""How far labels have come in, and how long they take."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import numpy as np

from headrace.predictions.base import Delays
from headrace.predictions.ids import lowest, time_of
from headrace.predictions.query import connect
from headrace.predictions.snapshot import Snapshot

Array: TypeAlias = np.ndarray[Any, Any]
_COVERAGE = """
SELECT count(*), count(*) FILTER (labelled), max(id) FILTER (labelled), max(actual_received),
       quantile_cont(epoch(actual_received) - epoch(made_at), 0.9) FILTER (labelled)
FROM joined
"""
#: When each labelled prediction was asked, by its id, and how much later its actual was here; other ids are nobody's.
_DELAYS = """
SELECT epoch_ms(received) / 1000.0 - asked_s AS delay_s, asked_s FROM (
    SELECT received, ('0x' || left(replace(id::VARCHAR, '-', ''), 12))::BIGINT / 1000.0 AS asked_s
    FROM first_actuals WHERE substr(id::VARCHAR, 15, 1) = '7'
)
"""
#: The share of labels that is waited for; the last one in a hundred may take for ever.
SHARE = 0.99
#: Labels that are few for saying anything of the slowest.
FEWEST = 50


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


def delays_in(seen: Snapshot, *, since: datetime, now: datetime) -> Delays:
    """Return how long the actuals of predictions since a moment took. Reads actuals alone."""
    with connect(seen, since=lowest(since)) as connection:
        found = connection.execute(_DELAYS).fetchnumpy()
    return delays_of(found["delay_s"], found["asked_s"], now=now)


def delays_of(delay_s: Array, asked_s: Array, *, now: datetime) -> Delays:
    """Return within which time 99 of 100 labels came.

    A prediction of a minute ago can only have a label that took less than a minute, so those that are younger than the
    slow labels are left out, as long as enough others are there.

    Args:
        delay_s: shape (labels,). `asked_s`: shape (labels,), when their predictions were asked, since 1970.
    """
    known = np.maximum(np.asarray(delay_s, float), 0.0)
    if not len(known):
        return Delays()
    within = float(np.quantile(known, SHARE))
    old = known[np.asarray(asked_s, float) <= now.timestamp() - within]
    if len(old) >= FEWEST:
        return Delays(len(old), float(np.quantile(old, SHARE)))
    return Delays(len(known), within)
