"""A canary step is judged by counts: worse is stopped, alike goes on, few requests decide nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from headrace.rollout.verdict import Observed, fisher_greater, judge_step
from headrace.types import Verdict

COUNTS = st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


@given(COUNTS, COUNTS)
def test_tail_is_scipys(one: tuple[int, int], other: tuple[int, int]) -> None:
    (hits, of), (other_hits, other_of) = one, other
    table = [[hits, of - hits], [other_hits, other_of - other_hits]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert fisher_greater(hits, of, other_hits, other_of) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("champion", "challenger", "verdict"),
    [
        (Observed(1000, 1, 10), Observed(100, 0, 1), Verdict.PASS),
        (Observed(1000, 1, 10), Observed(100, 8, 1), Verdict.FAIL),
        (Observed(1000, 0, 10), Observed(100, 0, 20), Verdict.FAIL),
        (Observed(1000, 0, 0), Observed(20, 0, 0), Verdict.NOT_ENOUGH_EVIDENCE),
        (Observed(1000, 0, 0), Observed(20, 10, 0), Verdict.FAIL),
        (Observed(0, 0, 0), Observed(0, 0, 0), Verdict.NOT_ENOUGH_EVIDENCE),
    ],
)
def test_step_is_judged(champion: Observed, challenger: Observed, verdict: Verdict) -> None:
    found = judge_step(champion, challenger)
    assert found.verdict is verdict
    assert found.sentences


def test_more_errors_never_turn_a_stop_into_a_go() -> None:
    champion = Observed(500, 5, 0)
    verdicts = [judge_step(champion, Observed(100, errors, 0)).verdict for errors in range(100)]
    assert verdicts == sorted(verdicts, key=lambda one: one is Verdict.FAIL)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 errors"):
        Observed(4, 5, 0)
