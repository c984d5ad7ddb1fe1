"""The prediction log in memory, for tests and trials."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from headrace.predictions.base import Counts, Delays, Joined, is_truth
from headrace.predictions.ids import lowest, time_of
from headrace.predictions.labels import delays_of
from headrace.types import Actual, Prediction


class MemoryLog:
    """`PredictionLog` that forgets with the process."""

    def __init__(self) -> None:
        self._predictions: dict[str, list[Prediction]] = {}
        self._actuals: dict[str, list[Actual]] = {}

    def append(self, predictions: Sequence[Prediction]) -> None:
        for one in predictions:
            self._predictions.setdefault(one.component, []).append(one)

    def append_actuals(self, component: str, actuals: Sequence[Actual]) -> None:
        self._actuals.setdefault(component, []).extend(actuals)

    def joined(
        self, component: str, *, after: str = "", limit: int | None = None, version: int | None = None
    ) -> Sequence[Joined]:
        first = self._first(component, "")
        wanted = [
            one
            for one in self._predictions.get(component, [])
            if one.id > after and not one.shadow and version in (None, one.version)
        ]
        wanted.sort(key=lambda one: one.id)
        return [
            Joined(one, first[one.id].value if one.id in first else None, one.id in first) for one in wanted[:limit]
        ]

    def counts(self, component: str, *, since: datetime | None = None) -> Counts:
        floor = lowest(since) if since else ""
        asked = {one.id: one for one in self._predictions.get(component, []) if one.id >= floor}
        answered = {one.id for one in self._predictions.get(component, []) if one.id >= floor and not one.shadow}
        first = self._first(component, floor)
        arrived = [one for one in self._actuals.get(component, []) if one.prediction_id in first]
        later = [one for one in arrived if one is not first[one.prediction_id]]
        duplicates = sum(one.value == first[one.prediction_id].value for one in later)
        return Counts(
            predictions=len(answered),
            labelled=len(answered & set(first)),
            orphans=len(set(first) - set(asked)),
            duplicates=duplicates,
            conflicts=len(later) - duplicates,
            early=sum(identity in asked and asked[identity].at > one.at for identity, one in first.items()),
            mistyped=sum(not is_truth(one.value) for one in first.values()),
            behind=sum(time_of(one.id) - one.at > timedelta(seconds=1) for one in asked.values()),
        )

    def delays(self, component: str, *, since: datetime, now: datetime) -> Delays:
        """Return how long actuals took; what is in memory is dated by itself."""
        asked = {one.prediction_id: one.at.timestamp() for one in self._first(component, lowest(since)).values()}
        moments = np.array([time_of(one).timestamp() for one in asked])
        return delays_of(np.array(list(asked.values())) - moments, moments, now=now)

    def _first(self, component: str, floor: str) -> dict[str, Actual]:
        found: dict[str, Actual] = {}
        for one in self._actuals.get(component, []):
            if one.prediction_id >= floor:
                found.setdefault(one.prediction_id, one)
        return found
