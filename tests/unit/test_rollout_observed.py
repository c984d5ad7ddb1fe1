"""What `/metrics` says is what a canary is judged by."""

import pytest

from headrace.errors import GateFailed
from headrace.lifecycle.production.promote import judged
from headrace.lifecycle.request import Cause, PromoteRequest, Trigger
from headrace.rollout.observed import Tally, read
from headrace.rollout.verdict import Observed, judge_step
from headrace.serving.metrics import Counts, Gauges, prometheus
from headrace.types import Verdict


def page(**errors: int) -> str:
    counts = Counts()
    for version, failed in ((1, errors["champion"]), (2, errors["challenger"])):
        for place in range(200):
            counts.of(version).answered([0.0], 1, 0.7 if place < 10 else 0.02)
        counts.of(version).errors = failed
    return prometheus("digits", counts, Gauges())


def test_our_own_page_is_read_back() -> None:
    found = read(page(champion=0, challenger=30), slow_s=0.5)
    assert found == {1: Tally(200, 0, 10), 2: Tally(230, 30, 10)}


def test_a_challenger_that_fails_more_is_stopped_by_what_the_page_says() -> None:
    found = read(page(champion=0, challenger=30), slow_s=0.5)
    assert judge_step(found[1].since(Tally()), found[2].since(Tally())).verdict is Verdict.FAIL
    found = read(page(champion=1, challenger=1), slow_s=0.5)
    assert judge_step(found[1].since(Tally()), found[2].since(Tally())).verdict is Verdict.PASS


def test_only_what_happened_in_the_step_counts() -> None:
    assert Tally(100, 5, 7).since(Tally(60, 5, 6)) == Observed(40, 0, 1)
    assert Tally(10, 1, 0).since(Tally(60, 5, 6)) == Observed(10, 1, 0), "the endpoint started anew"


def test_a_page_of_another_server_says_nothing() -> None:
    assert read("# HELP up\nup 1\n", slow_s=0.5) == {}


def test_a_canary_step_goes_on_or_is_stopped_with_the_counts_in_the_sentence() -> None:
    request = PromoteRequest("digits", 2, 1, Trigger(Cause.PERSON, "k", "person:ada", "better"))
    good = {1: Tally(200, 0, 0), 2: Tally(100, 0, 0)}
    assert "pass" in judged(request, {}, good)
    assert "not enough evidence" in judged(request, good, good), "nobody asked anything in this step"
    with pytest.raises(GateFailed, match=r"30 errors in 130 requests") as stopped:
        judged(request, good, {1: Tally(400, 0, 0), 2: Tally(230, 30, 0)})
    assert "v1 goes on serving" in stopped.value.remedy
