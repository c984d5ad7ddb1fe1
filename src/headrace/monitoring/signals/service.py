"""Service: latency, errors, throughput, and how old data and model are.

Why: a model that answers late or not at all is worse than one that is a little wrong, and right after a change of
version the change is the likeliest cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

from headrace.monitoring.base import Signal
from headrace.monitoring.frame import Frame
from headrace.monitoring.statistics.shares import rose_p

ERRORS, LATENCY, STALENESS = "service errors", "latency", "staleness"


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoint's counters say about a window.

    Attributes:
        requests: answered or failed. `failures` those with a 5xx.
        usual_failure_rate: of the version before, or of the acceptance.
        p99_ms: the latency that one request in a hundred may exceed; None where nothing is promised.
        model_age_s: since the version was trained; `label_age_s` since the newest label. None where not known.
        oldest_model_s: the age at which a model counts as stale; None where nothing is promised.
    """

    requests: int = 0
    failures: int = 0
    usual_requests: int = 0
    usual_failures: int = 0
    p99_ms: float | None = None
    model_age_s: float | None = None
    oldest_model_s: float | None = None


class ServiceHealth:
    """Judges counters and latencies against what is promised or usual."""

    name = ERRORS

    def __init__(self, service: Service, *, level: float) -> None:
        self._service = service
        self._level = level / 2

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return what the service did."""
        return [*self._errors(), *self._latency(frame), *self._staleness()]

    def _errors(self) -> list[Signal]:
        found = self._service
        if not found.requests:
            return []
        p_value = rose_p(found.usual_failures, found.usual_requests, found.failures, found.requests)
        if not found.usual_requests:
            p_value = _at_least(found.failures, found.requests, 0.001)
        share = found.failures / found.requests
        sentence = f"{found.failures} of {found.requests} requests failed ({share:.2%}, p = {p_value:.2g})"
        fired = p_value <= self._level and share >= 0.005
        return [Signal(ERRORS, fired, sentence, p_value, share, "share of failed requests")]

    def _latency(self, frame: Frame) -> list[Signal]:
        promised = self._service.p99_ms
        if promised is None or not len(frame.latency_ms):
            return []
        rows, late = len(frame.latency_ms), int(np.sum(frame.latency_ms > promised))
        p_value = _at_least(late, rows, 0.01)
        now = float(np.quantile(frame.latency_ms, 0.99))
        sentence = f"{late} of {rows} answers took longer than {promised:g} ms (99 % within {now:.3g} ms)"
        return [Signal(LATENCY, p_value <= self._level and late / rows >= 0.02, sentence, p_value, now, "ms")]

    def _staleness(self) -> list[Signal]:
        age, limit = self._service.model_age_s, self._service.oldest_model_s
        if age is None or limit is None:
            return []
        sentence = f"the model is {age / 86400:.1f} days old; {limit / 86400:.1f} are allowed"
        return [Signal(STALENESS, age > limit, sentence, effect=age, unit="s")]


def _at_least(hits: int, rows: int, share: float) -> float:
    return float(bdtrc(hits - 1, rows, share)) if hits else 1.0
