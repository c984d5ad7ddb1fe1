"""Whether a challenger that answers a part of the traffic may get more of it: pure, from counts alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.types import Verdict

#: Chance of stopping a challenger that is as good as the champion, at one step and for one of the two questions.
FALSE_ALARM = 0.01
LEAST_REQUESTS = 50


@dataclass(frozen=True, slots=True)
class Observed:
    """What one version did during a step.

    Attributes:
        errors: answers of the server's own fault (5xx), out of `requests`.
        slow: answers slower than the bound that both versions are held to.
    """

    requests: int
    errors: int
    slow: int

    def __post_init__(self) -> None:
        if min(self.requests, self.errors, self.slow) < 0 or max(self.errors, self.slow) > self.requests:
            raise ValueError(f"{self.errors} errors and {self.slow} slow answers in {self.requests} requests")


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """The judgement on one step of a canary, with the evidence in plain sentences."""

    verdict: Verdict
    sentences: Sequence[str]


def judge_step(champion: Observed, challenger: Observed, *, least: int = LEAST_REQUESTS) -> StepVerdict:
    """Compare errors and slow answers of two versions that answered at the same time.

    Fails where the challenger has more than its share of either, by Fisher's exact test (one-sided, conditional on the
    sum, Fisher 1935); lacks evidence where a version answered fewer than `least` requests.
    """
    few = [
        f"The {name} answered {seen.requests} requests; {least} are needed."
        for name, seen in (("champion", champion), ("challenger", challenger))
        if seen.requests < least
    ]
    sentences = []
    verdict = Verdict.PASS
    for what, theirs, ours in (
        ("errors", champion.errors, challenger.errors),
        ("slow answers", champion.slow, challenger.slow),
    ):
        chance = fisher_greater(ours, challenger.requests, theirs, champion.requests)
        text = f"{ours} {what} in {challenger.requests} requests, champion {theirs} in {champion.requests}"
        text += f" (p = {chance:.3g})"
        if chance < FALSE_ALARM:
            verdict = Verdict.FAIL
            text = f"the challenger has too many {what}: {text}"
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    # Enough errors in few requests are evidence; no errors in few requests are not.
    if few and verdict is Verdict.PASS:
        return StepVerdict(Verdict.NOT_ENOUGH_EVIDENCE, [*few, *sentences])
    return StepVerdict(verdict, sentences)


def fisher_greater(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """Return the chance of at least `hits` in `of`, given all hits, if both groups were alike.

    The upper tail of the hypergeometric distribution, summed in logarithms.
    """
    total, marked = of + other_of, hits + other_hits
    if not of or not other_of or not marked:
        return 1.0
    whole = _log_choose(total, marked)
    top = min(of, marked)
    logs = [_log_choose(of, k) + _log_choose(other_of, marked - k) - whole for k in range(hits, top + 1)]
    return min(1.0, math.fsum(math.exp(one) for one in logs))


def _log_choose(n: int, k: int) -> float:
    if k < 0 or k > n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
