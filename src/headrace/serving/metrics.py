"""What a front counts, how several fronts' counts add up, and Prometheus' text."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

#: Upper bounds of the latency histogram, in seconds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class VersionCounts(msgspec.Struct):
    """One version's numbers in one front.

    Attributes:
        requests: answered ones.
        errors: those that got a 5xx after the version was chosen.
    """

    requests: int = 0
    errors: int = 0
    rows: int = 0
    seconds: float = 0.0
    latency: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    batches: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BATCH_BOUNDS) + 1))
    batch_rows: int = 0
    shadow_rows: int = 0
    queued_rows: int = 0

    def answered(self, starts: Sequence[float], rows: int, now: float) -> None:
        """Count requests of so many rows together, which came at `starts` (`time.monotonic`) and are answered now."""
        if not starts:
            return
        self.requests += len(starts)
        self.rows += rows
        self.seconds += len(starts) * now - sum(starts)
        least, most = bisect_left(BOUNDS, now - max(starts)), bisect_left(BOUNDS, now - min(starts))
        if least == most:  # As mostly in one batch.
            self.latency[most] += len(starts)
        else:
            for start in starts:
                self.latency[bisect_left(BOUNDS, now - start)] += 1

    def sent(self, rows: int) -> None:
        self.batches[bisect_left(BATCH_BOUNDS, rows)] += 1
        self.batch_rows += rows


class Counts(msgspec.Struct):
    """One front's numbers; several add up.

    Attributes:
        log_problem: why predictions cannot be kept just now; empty where they are.
    """

    versions: dict[int, VersionCounts] = {}
    errors: dict[str, int] = {}
    retries: int = 0
    cancelled: int = 0
    log_written: int = 0
    log_dropped: int = 0
    feedback: int = 0
    log_problem: str = ""

    def of(self, version: int) -> VersionCounts:
        found = self.versions.get(version)
        if found is None:
            found = self.versions[version] = VersionCounts()
        return found

    def failed(self, status: int, why: str = "") -> None:
        key = f"{status}:{why}"
        self.errors[key] = self.errors.get(key, 0) + 1


def total(counts: Iterable[Counts]) -> Counts:
    """Return the sum of several fronts' counts."""
    added = Counts()
    for one in counts:
        for version, numbers in one.versions.items():
            _add(added.of(version), numbers)
        for key, number in one.errors.items():
            added.errors[key] = added.errors.get(key, 0) + number
        for name in ("retries", "cancelled", "log_written", "log_dropped", "feedback"):
            setattr(added, name, getattr(added, name) + getattr(one, name))
        added.log_problem = added.log_problem or one.log_problem
    return added


def _add(into: VersionCounts, numbers: VersionCounts) -> None:
    for name in VersionCounts.__struct_fields__:
        mine, other = getattr(into, name), getattr(numbers, name)
        joined: Any = [a + b for a, b in zip(mine, other, strict=True)] if isinstance(mine, list) else mine + other
        setattr(into, name, joined)


class Gauges(msgspec.Struct):
    """What only the supervisor knows."""

    generation: int = 0
    fronts: int = 0
    shares: dict[int, float] = {}
    workers: dict[int, int] = {}
    restarts: int = 0
    front_restarts: int = 0


def prometheus(component: str, counts: Counts, gauges: Gauges) -> str:
    """Return the text exposition format, version 0.0.4."""
    page = _Page(component)
    for version, numbers in sorted(counts.versions.items()):
        label = f'version="{version}"'
        page.add("requests_total", "counter", numbers.requests, label)
        page.add("version_errors_total", "counter", numbers.errors, label)
        page.add("rows_total", "counter", numbers.rows, label)
        page.histogram("request_seconds", BOUNDS, numbers.latency, numbers.seconds, label)
        page.histogram("batch_rows", BATCH_BOUNDS, numbers.batches, numbers.batch_rows, label)
        page.add("shadow_rows_total", "counter", numbers.shadow_rows, label)
        page.add("queue_rows", "gauge", numbers.queued_rows, label)
    for key, number in sorted(counts.errors.items()):
        status, _, why = key.partition(":")
        page.add("errors_total", "counter", number, f'status="{status}",cause="{why}"')
    page.add("retries_total", "counter", counts.retries)
    page.add("cancelled_total", "counter", counts.cancelled)
    page.add("log_rows_total", "counter", counts.log_written)
    page.add("log_dropped_rows_total", "counter", counts.log_dropped)
    page.add("log_problem", "gauge", int(bool(counts.log_problem)))
    page.add("feedback_total", "counter", counts.feedback)
    for version, share in sorted(gauges.shares.items()):
        page.add("version_share", "gauge", share, f'version="{version}"')
    for version, workers in sorted(gauges.workers.items()):
        page.add("workers", "gauge", workers, f'version="{version}"')
    page.add("worker_restarts_total", "counter", gauges.restarts)
    page.add("front_restarts_total", "counter", gauges.front_restarts)
    page.add("fronts", "gauge", gauges.fronts)
    page.add("route_generation", "gauge", gauges.generation)
    return page.text()


class _Page:
    def __init__(self, component: str) -> None:
        self.component = f'component="{component}"'
        self.kinds: dict[str, str] = {}
        self.lines: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, value: float, labels: str = "", *, suffix: str = "") -> None:
        self.kinds.setdefault(name, kind)
        inside = f"{self.component},{labels}" if labels else self.component
        shown = f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        self.lines.setdefault(name, []).append(f"headrace_{name}{suffix}{{{inside}}} {shown}")

    def histogram(self, name: str, bounds: tuple[float, ...], numbers: list[int], sum_: float, labels: str) -> None:
        below = 0
        for bound, number in zip((*bounds, "+Inf"), numbers, strict=True):
            below += number
            self.add(name, "histogram", below, f'{labels},le="{bound}"', suffix="_bucket")
        self.add(name, "histogram", float(sum_), labels, suffix="_sum")
        self.add(name, "histogram", below, labels, suffix="_count")

    def text(self) -> str:
        found = []
        for name, lines in self.lines.items():
            found += [f"# TYPE headrace_{name} {self.kinds[name]}", *lines]
        return "\n".join(found) + "\n"
