"""Metrics are the known ones, comparisons keep their promises, and the gate says why."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from sklearn import metrics as known

from headrace.config.component import AgainstChampion, Bound, Gate
from headrace.errors import InvalidConfig
from headrace.evaluation.base import Rows
from headrace.evaluation.gate import judge
from headrace.evaluation.metrics import measure_all, metric, recalls
from headrace.evaluation.paired import compare, differing, pair, take, tango_bound
from headrace.types import Task, Verdict

C, R = Task.CLASSIFICATION, Task.REGRESSION


def rows(truth: object, answer: object, **more: object) -> Rows:
    first = np.asarray(truth)
    return Rows(np.arange(len(first)), first, np.asarray(answer), **more)  # type: ignore[arg-type]


def labelled(seed: int, *, count: int = 200, right: float = 0.8, classes: int = 4) -> Rows:
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, classes, count)
    scores = chance.dirichlet(np.ones(classes), count)
    keep = chance.random(count) < right
    scores[np.arange(count), truth] += keep
    scores /= scores.sum(axis=1, keepdims=True)
    return rows(truth, scores.argmax(axis=1), scores=scores)


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=12, deadline=None)
def test_classification_metrics_agree_with_scikit_learn(seed: int, classes: int) -> None:
    sample = labelled(seed, classes=classes)
    found = measure_all(sample, C)
    truth, answer, scores = sample.truth, sample.answer, sample.scores
    assert found["accuracy"] == pytest.approx(known.accuracy_score(truth, answer))
    assert found["macro_f1"] == pytest.approx(known.f1_score(truth, answer, average="macro"))
    assert found["macro_precision"] == pytest.approx(
        known.precision_score(truth, answer, average="macro", zero_division=0)
    )
    assert found["balanced_accuracy"] == pytest.approx(known.balanced_accuracy_score(truth, answer))
    assert found["log_loss"] == pytest.approx(known.log_loss(truth, scores, labels=range(classes)))
    assert found["worst_class"] == pytest.approx(known.recall_score(truth, answer, average=None).min())
    assert scores is not None
    areas = known.roc_auc_score(truth, scores[:, 1] if classes == 2 else scores, multi_class="ovr")
    assert found["roc_auc"] == pytest.approx(areas)


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_regression_metrics_agree_with_scikit_learn(seed: int) -> None:
    chance = np.random.default_rng(seed)
    truth = chance.normal(10, 1, 50)
    answer = truth + chance.normal(0, 0.5, 50)
    found = measure_all(rows(truth, answer), R)
    assert found["mae"] == pytest.approx(known.mean_absolute_error(truth, answer))
    assert found["rmse"] == pytest.approx(known.root_mean_squared_error(truth, answer))
    assert found["r2"] == pytest.approx(known.r2_score(truth, answer))
    assert found["mape"] == pytest.approx(known.mean_absolute_percentage_error(truth, answer))
    assert found["median_ae"] == pytest.approx(known.median_absolute_error(truth, answer))


@pytest.mark.parametrize(
    ("truth", "answer"),
    [(["3", "1"], [3, 1]), ([3.0, 1.0], ["3", "1"]), ([3, 1], [3.0, 1.0]), (["a", "b"], np.array(["a", "b"], object))],
)
def test_a_label_is_itself_in_every_dtype(truth: object, answer: object) -> None:
    assert measure_all(rows(truth, answer), C)["accuracy"] == 1.0


def test_scores_follow_the_named_classes() -> None:
    sample = rows(["b", "a"], ["b", "a"], scores=np.array([[0.9, 0.1], [0.2, 0.8]]), classes=np.array(["b", "a"]))
    assert measure_all(sample, C)["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)


def test_a_truth_that_no_score_stands_for_costs_the_most() -> None:
    sample = rows(["c"], ["a"], scores=np.array([[0.9, 0.1]]), classes=np.array(["a", "b"]))
    assert measure_all(sample, C)["log_loss"] == pytest.approx(-math.log(1e-15))


def test_percentages_gain_nothing_over_certainty() -> None:
    percent = rows([0, 1], [0, 1], scores=np.array([[5.0, 95.0], [95.0, 5.0]]))
    assert measure_all(percent, C)["log_loss"] == 0


def test_recall_is_given_for_each_class_of_the_truth() -> None:
    assert recalls(rows([0, 0, 1], [0, 1, 2])) == {"0": 0.5, "1": 0.0}


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidConfig) as refused:
        metric("macro-F1", C)
    assert "Did you mean `macro_f1`?" in refused.value.remedy
    with pytest.raises(InvalidConfig):
        judge(Gate(metrics={"acuracy": Bound(min=0.5)}), labelled(0), None, task=C)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 500), st.sampled_from([0.9, 0.95, 0.99]))
def test_tango_bounds_contain_the_difference_and_mirror(better: int, worse: int, count: int, level: float) -> None:
    z = float(norm.ppf(level))
    low, high = tango_bound(better, worse, count, z), tango_bound(better, worse, count, -z)
    assert -1 <= low <= (better - worse) / count <= high <= 1
    assert low < high
    assert tango_bound(worse, better, count, z) == pytest.approx(-high, abs=1e-6)


def test_at_the_tango_bound_the_score_statistic_is_z() -> None:
    # The constrained likelihood is maximised by search here, where the code uses the closed form.
    better, worse, count, z = 12, 2, 50, float(norm.ppf(0.975))
    for sign in (1, -1):
        delta = tango_bound(better, worse, count, sign * z)

        def against(q: float, delta: float = delta) -> float:
            rest = 1 - 2 * q - delta
            return -float(better * np.log(q + delta) + worse * np.log(q) + (count - better - worse) * np.log(rest))

        q = minimize_scalar(against, bounds=(1e-9, (1 - delta) / 2 - 1e-9), method="bounded").x
        statistic = (better - worse - count * delta) / math.sqrt(count * (2 * q + delta * (1 - delta)))
        assert statistic == pytest.approx(sign * z, abs=1e-3)


def test_non_inferiority_is_rarely_granted_at_the_margin() -> None:
    # The candidate is worse by exactly the margin: at 95 % it may pass in about 5 % of trials.
    chance = np.random.default_rng(1)
    kind, passes, trials = metric("accuracy", C), 0, 600
    for _ in range(trials):
        draw = chance.random(400)
        champion = (draw < 0.90).astype(int)
        candidate = np.where(draw < 0.05, 0, np.where((draw >= 0.90) & (draw < 0.93), 1, champion))
        ones = np.ones(400, int)
        found = compare(kind, rows(ones, candidate), rows(ones, champion), margin=0.02, confidence=0.95)
        passes += found.verdict(0.02) is Verdict.PASS
    assert passes / trials < 0.085


@given(st.integers(0, 1000), st.sampled_from(["accuracy", "log_loss", "macro_f1"]))
@settings(max_examples=4, deadline=None)
def test_a_comparison_turned_round_changes_sign(seed: int, name: str) -> None:
    ours, theirs = labelled(seed, right=0.7), labelled(seed, right=0.9)
    kind = metric(name, C)
    there = compare(kind, ours, theirs, margin=0.02, confidence=0.95)
    back = compare(kind, theirs, ours, margin=0.02, confidence=0.95)
    assert there.difference == pytest.approx(-back.difference)
    assert there.low == pytest.approx(-back.high, abs=1e-6)


def test_a_clearly_worse_candidate_fails_in_every_kind_of_metric() -> None:
    good, bad = labelled(3, count=600, right=1.0), labelled(3, count=600, right=0.3)
    for name in ("accuracy", "log_loss", "macro_f1", "worst_class"):
        assert compare(metric(name, C), bad, good, margin=0.02, confidence=0.95).verdict(0.02) is Verdict.FAIL


def test_pairing_keeps_shared_rows_in_one_order() -> None:
    one = Rows(np.array(["c", "a", "b"]), np.array([3, 1, 2]), np.array([3, 1, 2]))
    other = Rows(np.array(["a", "c", "d"]), np.array([1, 3, 4]), np.array([1, 3, 4]))
    ours, theirs = pair(one, other)
    assert list(ours.ids) == list(theirs.ids) == ["a", "c"]
    assert list(ours.truth) == list(theirs.truth) == [1, 3]


def test_the_gate_passes_an_equal_candidate_on_enough_rows() -> None:
    sample = labelled(1, count=1000)
    found = judge(Gate(metrics={"accuracy": Bound(min=0.5)}), sample, sample, task=C)
    assert found.verdict is Verdict.PASS
    assert found.metrics["accuracy"] > 0.5
    assert all(finding.sentence.endswith(".") for finding in found.findings)


def test_few_rows_are_not_enough_evidence_and_the_gate_says_how_many_would_be() -> None:
    ours = labelled(1, count=60, right=0.4)
    theirs = rows(ours.truth, np.where(np.arange(60) % 5 == 0, (ours.answer + 1) % 4, ours.answer))
    found = judge(Gate(), ours, theirs, task=C)
    finding = next(one for one in found.findings if one.check == "champion")
    assert found.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert finding.numbers["rows_needed"] > 60
    assert f"About {finding.numbers['rows_needed']:.0f} rows would tell." in finding.sentence


def test_the_rows_that_are_said_to_be_needed_do_tell() -> None:
    chance = np.random.default_rng(5)
    kind = metric("accuracy", C)

    def trial(count: int) -> tuple[Rows, Rows]:
        ones = np.ones(count, int)
        draw = chance.random(count)
        ours, theirs = (draw > 0.05).astype(int), ((draw > 0.10) | (draw < 0.05)).astype(int)
        return rows(ones, ours), rows(ones, theirs)

    needed = compare(kind, *trial(5000), margin=0.03, confidence=0.95).rows_needed
    granted = sum(
        compare(kind, *trial(needed), margin=0.03, confidence=0.95).verdict(0.03) is Verdict.PASS for _ in range(300)
    )
    assert 0.7 < granted / 300 < 0.9


def test_a_bound_that_does_not_hold_fails_whatever_the_champion() -> None:
    sample = labelled(1, count=1000)
    found = judge(Gate(metrics={"accuracy": Bound(min=0.999)}), sample, sample, task=C)
    assert found.verdict is Verdict.FAIL
    assert "at least 0.999" in found.findings[1].sentence


def test_a_slice_that_got_worse_fails_the_candidate() -> None:
    count = 800
    truth, side = np.ones(count, int), np.where(np.arange(count) % 8 == 0, "north", "south")
    champion = rows(truth, truth, slices={"side": side})
    candidate = rows(truth, np.where(np.arange(count) % 16 == 0, 0, 1), slices={"side": side})
    gate = Gate(slices=("side",), against_champion=AgainstChampion(no_worse_than=0.1))
    found = judge(gate, candidate, champion, task=C)
    assert found.verdict is Verdict.FAIL
    assert [one.check for one in found.findings if one.verdict is Verdict.FAIL] == ["slice side"]
    assert "`side` = north" in next(one.sentence for one in found.findings if one.check == "slice side")


def test_an_unknown_slice_is_refused_with_the_nearest() -> None:
    sample = rows([1], [1], slices={"category": np.array(["a"])})
    with pytest.raises(InvalidConfig) as refused:
        judge(Gate(slices=("categroy",)), sample, None, task=C)
    assert "`category`" in refused.value.remedy


def test_a_candidate_that_is_worse_on_recent_rows_fails() -> None:
    holdout = labelled(1, count=1000)
    better, worse = labelled(2, count=400, right=1.0), labelled(2, count=400, right=0.2)
    found = judge(Gate(), holdout, holdout, task=C, recent=(worse, better))
    assert found.verdict is Verdict.FAIL
    assert "recent labelled production rows" in found.findings[-1].sentence


def test_a_first_candidate_is_judged_by_bounds_alone() -> None:
    found = judge(Gate(metrics={"accuracy": Bound(min=0.5)}), labelled(1), None, task=C)
    assert found.verdict is Verdict.PASS


def test_a_regressor_is_compared_on_r2_unless_told_otherwise() -> None:
    chance = np.random.default_rng(0)
    truth = chance.normal(size=300)
    good, bad = rows(truth, truth + chance.normal(0, 0.1, 300)), rows(truth, truth + chance.normal(0, 1, 300))
    assert judge(Gate(), good, good, task=R).verdict is Verdict.PASS
    assert judge(Gate(), bad, good, task=R).verdict is Verdict.FAIL


def test_a_metric_of_probabilities_needs_probabilities() -> None:
    with pytest.raises(InvalidConfig, match="classes only"):
        judge(Gate(metrics={"log_loss": Bound(max=1)}), rows([1, 2], [1, 2]), None, task=C)


def regressed(count: int = 500, *, noise: float = 0.1) -> Rows:
    chance = np.random.default_rng(0)
    truth = chance.normal(size=count)
    return rows(truth, truth + chance.normal(0, noise, count))


def with_answers(sample: Rows, *values: float) -> Rows:
    """Return rows whose first answers are other ones."""
    answer = sample.answer.astype(float)
    answer[: len(values)] = values
    return replace(sample, answer=answer)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [1, 500])
def test_an_answer_that_is_no_finite_number_fails_a_first_version(bad: float, count: int) -> None:
    found = judge(Gate(), with_answers(regressed(), *[bad] * count), None, task=R)
    assert found.verdict is Verdict.FAIL
    finding = next(one for one in found.findings if one.check == "answers")
    assert finding.sentence == f"{count} of 500 holdout rows were answered with NaN or infinity."


def test_scores_that_are_no_finite_numbers_fail_whatever_the_champion() -> None:
    sample = labelled(1, count=1000)
    assert sample.scores is not None
    scores = sample.scores.copy()
    scores[3, 0] = np.nan
    found = judge(Gate(), replace(sample, scores=scores), sample, task=C)
    assert [one.check for one in found.findings if one.verdict is Verdict.FAIL] == ["answers"]
    of_recent = judge(Gate(), sample, sample, task=C, recent=(replace(sample, scores=scores), sample))
    assert "1 of 1000 recent rows" in next(one.sentence for one in of_recent.findings if one.check == "answers")


@pytest.mark.parametrize("name", ["r2", "rmse", "mse", "mae", "bias", "max_error", "mape"])
@pytest.mark.parametrize("bad", [(math.nan,), (math.nan,) * 5, (math.inf,), (1e200,), (-1e308, 1e308)])
def test_answers_beyond_sense_never_pass_the_comparison(name: str, bad: tuple[float, ...]) -> None:
    good = regressed()
    found = compare(metric(name, R), with_answers(good, *bad), good, margin=0.02, confidence=0.95)
    assert found.verdict(0.02) is not Verdict.PASS
    gate = Gate(against_champion=AgainstChampion(metric=name))
    judged = judge(gate, with_answers(good, *bad), good, task=R)
    told = next(one for one in judged.findings if one.check == "champion")
    assert told.verdict is not Verdict.PASS
    assert "inf, and" not in told.sentence
    assert "better" not in told.sentence


def test_a_champion_that_answers_nonsense_can_be_replaced() -> None:
    good = regressed()
    assert judge(Gate(), good, with_answers(good, *[math.nan] * 500), task=R).verdict is Verdict.PASS
    assert judge(Gate(), good, with_answers(good, math.nan, math.inf), task=R).verdict is Verdict.PASS
    worse = regressed(noise=1)
    assert judge(Gate(), worse, with_answers(good, math.nan, math.inf), task=R).verdict is Verdict.FAIL


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_finite_numbers_have_no_calibration(bad: float) -> None:
    scores = np.array([[0.1, 0.9], [bad, 0.5]])
    assert "calibration_error" not in measure_all(rows([1, 0], [1, 1], scores=scores), C)


def test_scores_beyond_one_and_below_zero_are_calibrated_in_the_outer_bins() -> None:
    sample = rows([1, 0], [1, 0], scores=np.array([[-3.0, -0.5], [1e300, 0.0]]))
    assert metric("calibration_error", C).measure(sample) == pytest.approx(0.5e300)


def test_a_few_shared_rows_are_not_enough_evidence() -> None:
    good, bad = regressed(), regressed(noise=3)
    for count in (2, 29):
        shared = take(good, np.arange(count))
        found = judge(Gate(), bad, shared, task=R)
        finding = next(one for one in found.findings if one.check == "champion")
        assert finding.verdict is Verdict.NOT_ENOUGH_EVIDENCE
        assert f"share {count} rows of the holdout, and 30 are needed" in finding.sentence
        of_recent = judge(Gate(), good, good, task=R, recent=(take(bad, np.arange(count)), shared))
        assert of_recent.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert judge(Gate(min_rows=20), good, take(good, np.arange(25)), task=R).verdict is Verdict.PASS


def test_rows_whose_truths_differ_are_not_compared() -> None:
    sample = labelled(1, count=1000)
    other = sample.truth.copy()
    other[:7] += 1
    found = judge(Gate(), sample, replace(sample, truth=other), task=C)
    assert found.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert "different truths for 7 of 1000 rows" in found.findings[-1].sentence


@pytest.mark.parametrize("kind", [np.float32, float, str, object])
def test_the_same_truth_written_otherwise_is_the_same(kind: type) -> None:
    sample, labels = regressed(), labelled(1, count=1000)
    assert differing(labels, replace(labels, truth=labels.truth.astype(kind))) == 0
    assert differing(sample, replace(sample, truth=sample.truth.astype(np.float32))) == 0
    assert differing(sample, replace(sample, truth=sample.truth + 1e-3)) == 500
