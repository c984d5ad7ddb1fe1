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

ERRORS, LATENCY, STALENESS, THROUGHPUT = "service errors", "latency", "staleness", "throughput"


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoint's counters say about a window.

    Attributes:
        requests: answered or failed. `failures` those with a 5xx.
        usual_failure_rate: of the version before, or of the acceptance.
        p99_ms: the latency that one request in a hundred may exceed; None where nothing is promised.
        model_age_s: since the version was trained. None where not known.
        oldest_model_s: the age at which a model counts as stale; None where nothing is promised.
        label_age_s: from the newest prediction that has a label to the window's last. None where not known.
        oldest_label_s: the age at which labels count as stale; None where nothing is promised.
    """

    requests: int = 0
    failures: int = 0
    usual_requests: int = 0
    usual_failures: int = 0
    p99_ms: float | None = None
    model_age_s: float | None = None
    oldest_model_s: float | None = None
    label_age_s: float | None = None
    oldest_label_s: float | None = None


class ServiceHealth:
    """Judges counters and latencies against what is promised or usual."""

    name = ERRORS

    def __init__(self, service: Service, *, level: float) -> None:
        self._service = service
        self._level = level / 2

    def look(self, frame: Frame) -> Sequence[Signal]:
        """Return what the service did."""
        return [*self._errors(), *self._latency(frame), *self._throughput(frame), *self._staleness()]

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

    def _throughput(self, frame: Frame) -> list[Signal]:
        """Tell how much was asked; little or much traffic is no fault of the model's, so it never fires."""
        reach = float(np.ptp(frame.seconds)) if len(frame.seconds) > 1 else 0.0
        if reach <= 0:
            return []
        rate = (len(frame.seconds) - 1) / reach
        sentence = f"{len(frame)} predictions came within {_lasting(reach)}, {rate:.3g} a second"
        return [Signal(THROUGHPUT, False, sentence, effect=rate, unit="predictions a second")]

    def _staleness(self) -> list[Signal]:
        found, given = [], self._service
        if given.model_age_s is not None and given.oldest_model_s is not None:
            age, limit = given.model_age_s, given.oldest_model_s
            sentence = f"the model is {_lasting(age)} old; {_lasting(limit)} are allowed"
            found.append(Signal(STALENESS, age > limit, sentence, effect=age, unit="s", details={"of": "model"}))
        if given.label_age_s is not None and given.oldest_label_s is not None:
            age, limit = given.label_age_s, given.oldest_label_s
            sentence = f"no prediction of the last {_lasting(age)} has a label; {_lasting(limit)} are allowed"
            found.append(Signal(STALENESS, age > limit, sentence, effect=age, unit="s", details={"of": "labels"}))
        return found


def _lasting(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} seconds"


def _at_least(hits: int, rows: int, share: float) -> float:
    return float(bdtrc(hits - 1, rows, share)) if hits else 1.0
