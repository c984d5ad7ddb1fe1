"""The judge is quiet where nothing changed and says plainly what did."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from headrace.config.component import Monitor
from headrace.errors import InvalidInput, NotFound
from headrace.evaluation.answers import probabilities, read_outputs, read_values, task_of
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Alarm, Consequence, Window
from headrace.monitoring.judge import LABELLED, judge, look_early, watch
from headrace.monitoring.memory import Memory
from headrace.monitoring.reference import Reference, build, load, save
from headrace.monitoring.seasons import Seasons
from headrace.predictions.base import Joined
from headrace.predictions.ids import Ids, time_of
from headrace.types import Json, Prediction, Task

CLASSES = 4
C, R = Task.CLASSIFICATION, Task.REGRESSION
BUDGET = Monitor(window=300, false_alarms=0.001)


def answered(seed: int, rows: int, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Truths and calibrated-looking probabilities; noise makes both less sure and more often wrong."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, CLASSES, rows)
    logits = chance.normal(0, 1, (rows, CLASSES))
    sure = np.where(chance.random(rows) < noise, 0.3, 4.5)
    logits[np.arange(rows), truth] += sure
    return truth, probabilities(logits)


def reference(rows: int = 360) -> Reference:
    truth, scores = answered(0, rows)
    return build(Rows(np.arange(rows), truth, scores.argmax(axis=1), scores), task=C)


def window(truth: np.ndarray, outputs: list[object], *, labelled: float = 1.0) -> Window:
    ids, at = Ids().batch(len(truth)), datetime(2026, 1, 1, tzinfo=UTC)
    chance = np.random.default_rng(9)
    rows = []
    for identity, actual, output in zip(ids, truth.tolist(), outputs, strict=True):
        has = bool(chance.random() < labelled)
        made = Prediction(identity, "digits", 1, at, {}, output, 1.0)  # type: ignore[arg-type]
        rows.append(Joined(made, actual if has else None, has))
    return Window("digits", 1, rows)


def verdict(seed: int, *, rows: int = 300, noise: float = 0.0, labelled: float = 1.0) -> Alarm:
    truth, scores = answered(seed, rows, noise=noise)
    return judge(window(truth, list(scores.tolist()), labelled=labelled), Seasons(reference()), BUDGET)


@pytest.mark.parametrize("rows", [100, 300])
def test_windows_without_drift_are_quiet(rows: int) -> None:
    assert {verdict(seed, rows=rows).consequence for seed in range(1, 16)} == {Consequence.NONE}


def test_a_harmful_change_retrains_with_its_evidence_in_one_sentence() -> None:
    found = verdict(1, noise=0.33)
    assert found.consequence is Consequence.RETRAIN
    assert found.sentence.startswith("Accuracy fell from 1.00 to 0.79")
    assert "over the last 300 labelled predictions" in found.sentence
    assert "the answers' confidence changed" in found.sentence
    assert found.sentence.endswith(").")


def test_an_early_look_fires_on_what_the_verdict_fires_on_and_on_nothing_else() -> None:
    often = Monitor(window=200, false_alarms=0.9)
    seen = set()
    for seed in range(40):
        truth, scores = answered(seed, 200)
        rows, known = window(truth, list(scores.tolist()), labelled=0.5), Seasons(reference())
        early = {one.name for one in look_early(rows, known, often, Memory()).alarm.signals if one.fired}
        assert early == {one.name for one in judge(rows, known, often).signals if one.fired} - LABELLED
        seen |= early
    assert seen  # Chance alone fires at such a budget, at both looks or at none.


def test_drift_without_labels_warns_only() -> None:
    found = verdict(1, noise=0.33, labelled=0.0)
    assert found.consequence is Consequence.WARN
    assert "quality was not judged" in found.sentence


def test_swapped_truths_are_seen_by_labels_alone() -> None:
    truth, scores = answered(1, 300)
    swapped = np.where(truth == 0, 1, np.where(truth == 1, 0, truth))
    found = judge(window(swapped, list(scores.tolist())), Seasons(reference()), BUDGET)
    fired = {signal.name for signal in found.signals if signal.fired}
    assert found.consequence is Consequence.RETRAIN
    assert fired == {"labelled quality", "sequential quality"}


def test_a_new_class_mix_is_output_drift() -> None:
    truth, scores = answered(1, 1200)
    chosen = np.flatnonzero((truth == 0) | (np.arange(1200) % 5 == 0))[:300]
    found = judge(window(truth[chosen], list(scores[chosen].tolist())), Seasons(reference()), BUDGET)
    assert found.consequence is Consequence.WARN
    assert "`0`" in found.sentence


def test_labels_alone_as_outputs_are_watched_too() -> None:
    truth, scores = answered(0, 360)
    names = np.array(["ant", "bee", "cat", "dog"])
    profile = build(Rows(np.arange(360), names[truth], names[scores.argmax(axis=1)]), task=C)
    later, other = answered(3, 300)
    quiet = judge(window(names[later], list(names[other.argmax(axis=1)].tolist())), Seasons(profile), BUDGET)
    assert quiet.consequence is Consequence.NONE
    wrong = judge(window(names[later], ["ant"] * 300), Seasons(profile), BUDGET)
    assert wrong.consequence is Consequence.RETRAIN


def test_a_regressors_errors_are_judged() -> None:
    chance = np.random.default_rng(0)
    truth = chance.normal(10, 2, 400)
    profile = build(Rows(np.arange(400), truth, truth + chance.normal(0, 0.5, 400)), task=R)

    def look(error: float) -> Alarm:
        later = chance.normal(10, 2, 300)
        return judge(window(later, list((later + chance.normal(0, error, 300)).tolist())), Seasons(profile), BUDGET)

    assert look(0.5).consequence is Consequence.NONE
    found = look(1.5)
    assert found.consequence is Consequence.RETRAIN
    assert "mean absolute error rose" in found.sentence


@pytest.mark.parametrize("make", [reference, lambda: build(Rows(*([np.arange(50.0)] * 3)), task=R)])
def test_a_profile_comes_back_as_it_was_saved(tmp_path: Path, make: Callable[[], Reference]) -> None:
    made = make()
    save(made, tmp_path)
    found = load(tmp_path)
    truth, scores = answered(4, 300, noise=0.2)
    outputs = list(scores.tolist()) if made.task is C else truth.astype(float).tolist()
    seen = window(truth, outputs)
    assert judge(seen, Seasons(found), BUDGET) == judge(seen, Seasons(made), BUDGET)
    assert found.metrics == made.metrics
    np.testing.assert_array_equal(found.losses, made.losses)


def test_a_missing_profile_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no reference profile"):
        load(tmp_path)


def test_outputs_are_told_by_name_and_shape() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 3.0]])
    found = read_outputs({"logits": logits, "label": np.array(["a", "b"])}, C, classes=np.array(["a", "b"]))
    assert found.answer.tolist() == ["a", "b"]
    assert found.scores is not None
    assert found.scores.sum(axis=1) == pytest.approx([1, 1])
    rows = read_values([{"label": "a", "probabilities": [0.9, 0.1]}, {"label": "b", "probabilities": [0.2, 0.8]}], C)
    assert rows.answer.tolist() == ["a", "b"]
    assert read_values([0.5, 1.5], R).answer.tolist() == [0.5, 1.5]
    with pytest.raises(InvalidInput, match="No answer"):
        read_outputs({"a": np.zeros(2), "b": np.zeros(2)}, C)


def test_one_score_is_the_second_class() -> None:
    assert probabilities(np.array([0.25, 0.75])).tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert probabilities(np.array([[-3.0], [3.0]])).argmax(axis=1).tolist() == [0, 1]


def test_the_task_is_told_by_the_truth() -> None:
    assert task_of(np.array(["a", "b"])) is C
    assert task_of(np.array([0, 1, 2] * 20)) is C
    assert task_of(np.array([0.5, 1.0])) is R
    assert task_of(np.arange(1000)) is R


def test_actuals_that_are_no_truths_are_left_out_and_told() -> None:
    truth, scores = answered(7, 300)
    values: list[Json] = [*truth.tolist()]
    for at in range(0, 300, 3):  # A third of wrong answers would be a loss.
        values[at] = [None, [1], {"label": 1}][at // 3 % 3]
    found = judge(mixed_window(values, scores.tolist()), Seasons(reference()), BUDGET)
    assert found.consequence is Consequence.NONE
    quality = next(one for one in found.signals if one.name == "labelled quality")
    assert "100 actuals are no truths" in quality.sentence
    assert quality.details["useless"] == 100


def test_a_regressors_texts_are_left_out_and_told() -> None:
    chance = np.random.default_rng(0)
    truth = chance.normal(10, 2, 500)
    profile = build(Rows(np.arange(500), truth, truth + chance.normal(0, 1, 500)), task=Task.REGRESSION)
    values: list[Json] = [*truth[:300].tolist()]
    values[:30] = ["ten"] * 30
    answers = (truth[:300] + chance.normal(0, 1, 300)).tolist()
    found = judge(mixed_window(values, answers), Seasons(profile), BUDGET)
    assert found.consequence is Consequence.NONE
    assert any("30 actuals are no truths" in one.sentence for one in found.signals)


def mixed_window(actuals: list[Json], outputs: list[Json]) -> Window:
    ids, at = Ids().batch(len(actuals)), datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        Joined(Prediction(identity, "c", 1, at, {}, output, 1.0), actual, is_labelled=True)
        for identity, actual, output in zip(ids, actuals, outputs, strict=True)
    ]
    return Window("c", 1, rows)


def test_what_is_said_again_tells_since_when() -> None:
    known, memory, sentences = Seasons(reference()), Memory(), []
    for _ in range(3):
        truth, scores = answered(1, 300, noise=0.33)
        seen = watch(window(truth, list(scores.tolist())), known, BUDGET, memory)
        memory = seen.memory
        sentences.append(seen.alarm.sentence)
    began = f"{time_of(memory.since['labelled quality']):%F %T} UTC"
    assert "This began" not in sentences[0]
    assert sentences[1].endswith(f"This began at {began}; the window before said the same.")
    assert sentences[2].endswith(f"This began at {began}; 2 windows before said the same.")
