"""Two trainings are as alike as their metrics, and a metric that is no number is like no other."""

import math

import pytest

from headrace.lifecycle.candidates.reproduce import _metric_gaps


@pytest.mark.parametrize(
    ("before", "after"),
    [(0.9, 0.905), (math.nan, math.nan), (math.inf, math.inf), (-math.inf, -math.inf), (1000.0, 1009.0)],
)
def test_alike_metrics_are_no_gap(before: float, after: float) -> None:
    assert _metric_gaps({"acc": before}, {"acc": after, "new": 1.0}) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(0.9, math.nan), (math.nan, 0.9), (0.9, math.inf), (math.inf, 0.9), (math.inf, -math.inf), (0.9, 0.85)],
)
def test_metrics_that_differ_are_named(before: float, after: float) -> None:
    assert _metric_gaps({"acc": before}, {"acc": after}) == [f"metric acc: {after:.4g} now, {before:.4g} at training"]


def test_a_metric_that_is_gone_is_named() -> None:
    assert _metric_gaps({"acc": 0.9, "loss": 0.1}, {"loss": 0.1}) == ["metric acc: missing now, 0.9 at training"]
