"""What an endpoint's own counters say about each version, read from its `/metrics`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from headrace.rollout.verdict import Observed

TIMEOUT_S = 5.0
LINE = re.compile(r"^headrace_(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Tally:
    """What a version has done since its endpoint started.

    Attributes:
        requests: answered ones and errors.
        errors: 5xx after the version was chosen.
        slow: answers that took longer than the bound.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0

    def since(self, before: "Tally") -> Observed:
        """Return what happened between two looks; an endpoint that started anew meanwhile counts from nothing."""
        if self.requests < before.requests or self.errors < before.errors or self.slow < before.slow:
            before = Tally()
        return Observed(self.requests - before.requests, self.errors - before.errors, self.slow - before.slow)


def tallies(url: str, *, slow_s: float) -> Mapping[int, Tally]:
    """Return the tallies by version; empty where the endpoint counts nothing or does not answer.

    Args:
        slow_s: what is slow; the next lower bound of the latency histogram stands for it.
    """
    try:
        answer = httpx.get(f"{url}/metrics", timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return {}
    return read(answer.text, slow_s=slow_s) if answer.is_success else {}


def read(page: str, *, slow_s: float) -> Mapping[int, Tally]:
    """Return the tallies that a page in Prometheus' text format holds."""
    answered: dict[int, int] = {}
    errors: dict[int, int] = {}
    quick: dict[int, dict[float, int]] = {}
    for name, text, value in LINE.findall(page):
        labels = dict(LABEL.findall(text))
        if not labels.get("version", "").isdigit():
            continue
        version = int(labels["version"])
        if name == "requests_total":
            answered[version] = int(float(value))
        elif name == "version_errors_total":
            errors[version] = int(float(value))
        elif name == "request_seconds_bucket" and labels["le"] != "+Inf" and float(labels["le"]) <= slow_s:
            quick.setdefault(version, {})[float(labels["le"])] = int(float(value))
    found = {}
    for version, number in answered.items():
        bounds = quick.get(version)
        slow = number - bounds[max(bounds)] if bounds else 0
        failed = errors.get(version, 0)
        found[version] = Tally(number + failed, failed, max(slow, 0))
    return found
