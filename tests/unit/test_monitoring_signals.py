"""Each signal sees its kind of change, names it, and is quiet otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from headrace.config.component import Label, Monitor
from headrace.evaluation.answers import Answers, probabilities
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Consequence
from headrace.monitoring.columns import expand
from headrace.monitoring.frame import Frame
from headrace.monitoring.judge import Watched, detectors, watch_frame
from headrace.monitoring.memory import Memory
from headrace.monitoring.profiles import categories
from headrace.monitoring.reference import Reference, build, load, save
from headrace.monitoring.signals.inputs import InputDrift
from headrace.monitoring.signals.quality import LabelledQuality, fall_p
from headrace.monitoring.signals.schema import Schema
from headrace.monitoring.signals.service import Service
from headrace.monitoring.signals.sliced import SlicedQuality
from headrace.monitoring.statistics.dependence import correlation_time, joint_time
from headrace.monitoring.statistics.sequential import EDetector
from headrace.types import Task

C, R = Task.CLASSIFICATION, Task.REGRESSION
BUDGET = Monitor(window=500, false_alarms=0.001)


def inputs(seed: int, rows: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    city = np.array(["rome", "oslo", "bern"], object)[chance.integers(0, 3, rows)]
    age = chance.normal(40, 10, rows)
    age[chance.random(rows) < 0.02] = np.nan
    words = np.array([*(f"word{number}" for number in range(15)), *(f"Name{number}" for number in range(400))])
    odds = np.where(np.arange(415) < 15, 0.06, 0.1 / 400)
    text = np.array([" ".join(chance.choice(words, 9, p=odds)) for _ in range(rows)], object)
    return {
        "age": age,
        "income": chance.lognormal(8, 1, rows),
        "city": city,
        "flat": np.zeros(rows),
        "note": text,
        "image": chance.normal(size=(rows, 16)).astype(np.float32),
    }


def answers(seed: int, rows: int, *, sure: float = 3.0) -> tuple[np.ndarray, Answers]:
    chance = np.random.default_rng(seed + 1000)
    truth = chance.integers(0, 3, rows)
    logits = chance.normal(0, 1, (rows, 3))
    logits[np.arange(rows), truth] += sure
    scores = probabilities(logits)
    return truth, Answers(scores.argmax(axis=1), scores, np.arange(3))


def frame(seed: int, rows: int = 500, *, labelled: bool = True, sure: float = 3.0, **changed: np.ndarray) -> Frame:
    truth, given_answers = answers(seed, rows, sure=sure)
    ids = [f"{seed:04d}-{row:06d}" for row in range(rows)]
    return Frame({**inputs(seed, rows), **changed}, given_answers, truth, np.full(rows, labelled), ids=ids)


@pytest.fixture(scope="module")
def reference() -> Reference:
    truth, given_answers = answers(0, 2000)
    rows = Rows(np.arange(2000), truth, given_answers.answer, given_answers.scores, {}, given_answers.classes)
    return build(rows, task=C, inputs=inputs(0, 2000))


def schema(reference: Reference, given_frame: Frame) -> list[str]:
    seen = replace(given_frame, watched=expand(given_frame.inputs, reference.fields))
    return [signal.sentence for signal in Schema(reference, level=1e-4).look(seen) if signal.fired]


def drifted(reference: Reference, given_frame: Frame) -> set[str]:
    seen = replace(given_frame, watched=expand(given_frame.inputs, reference.fields))
    return {name for signal in InputDrift(reference, level=1e-3).look(seen) if signal.fired for name in signal.details}


def test_many_windows_without_drift_are_quiet(reference: Reference) -> None:
    found = [watch_frame(frame(seed), reference, BUDGET, Memory()).alarm for seed in range(1, 16)]
    assert {one.consequence for one in found} == {Consequence.NONE}


def test_a_column_that_is_gone_or_new_is_named(reference: Reference) -> None:
    gone = frame(1)
    gone = replace(gone, inputs={name: values for name, values in gone.inputs.items() if name != "age"})
    assert schema(reference, gone) == ["the input `age` is gone"]
    assert schema(reference, frame(1, colour=np.zeros(500))) == ["there is a new input `colour`"]


def test_another_kind_and_missing_values_are_named(reference: Reference) -> None:
    texts = np.array(["forty"] * 500, object)
    assert schema(reference, frame(1, age=texts)) == ["the input `age` was a number and is text now"]
    age = inputs(1, 500)["age"]
    age[::4] = np.nan
    (sentence,) = schema(reference, frame(1, age=age))
    assert sentence.startswith("the input `age` is missing in 2")


def test_another_unit_is_named_with_its_factor(reference: Reference) -> None:
    assert "about 1000 times as large" in schema(reference, frame(1, income=inputs(1, 500)["income"] * 1000))[0]
    assert "about 0.01 times as large" in schema(reference, frame(1, age=inputs(1, 500)["age"] / 100))[0]


def test_a_constant_that_starts_to_move_is_named(reference: Reference) -> None:
    (sentence,) = schema(reference, frame(1, flat=np.linspace(0, 1, 500)))
    assert sentence.startswith("`flat` was always 0 and now moves")


def test_new_values_of_a_name_are_listed(reference: Reference) -> None:
    city = inputs(1, 500)["city"]
    city[:50] = "lima"
    (sentence,) = schema(reference, frame(1, city=city))
    assert sentence == "`city` has new values (`lima`) in 10% of the rows"


def test_a_new_class_among_the_truths_is_named(reference: Reference) -> None:
    seen = frame(1)
    seen.truth[:25] = 7
    assert schema(reference, seen) == ["5% of the truths are of a class that the model does not know (`7`)"]


@pytest.mark.parametrize(
    ("column", "changed"),
    [
        ("age", {"age": inputs(1, 500)["age"] + 5}),
        ("income", {"income": inputs(1, 500)["income"] ** 1.2}),
        ("city", {"city": np.where(np.arange(500) % 4 == 0, "rome", inputs(1, 500)["city"])}),
        ("unknown words in note", {"note": np.array([f"{text} zyx" for text in inputs(1, 500)["note"]], object)}),
        ("capitals in note", {"note": np.array([str(text).title() for text in inputs(1, 500)["note"]], object)}),
        ("mean of image", {"image": inputs(1, 500)["image"] + 0.2}),
    ],
)
def test_the_drifted_column_is_found(reference: Reference, column: str, changed: dict[str, np.ndarray]) -> None:
    assert column in drifted(reference, frame(1, **changed))
    assert drifted(reference, frame(1)) == set()


def test_input_drift_alone_warns(reference: Reference) -> None:
    found = watch_frame(frame(1, age=inputs(1, 500)["age"] + 5), reference, BUDGET, Memory()).alarm
    assert found.consequence is Consequence.WARN
    assert "`age` went from" in found.sentence or "`age` went from" in found.sentence.lower()
    assert "Accuracy is" in found.sentence


def run(reference: Reference, frames: list[Frame], *, version: int = 1) -> list[Watched]:
    memory, found = Memory(version=version), []
    for one in frames:
        found.append(watch_frame(one, reference, BUDGET, memory, version=version))
        memory = Memory.from_json(json.loads(json.dumps(found[-1].memory.as_json())))
    return found


def test_an_estimated_loss_retrains_only_in_consecutive_windows(reference: Reference) -> None:
    found = run(reference, [frame(seed, labelled=False, sure=1.0) for seed in (1, 2)])
    assert [one.alarm.consequence for one in found] == [Consequence.WARN, Consequence.RETRAIN]
    assert "accuracy is estimated at" in found[1].alarm.sentence.lower()
    assert found[1].alarm.since.startswith("0001")


@pytest.mark.parametrize("unsure", [0.2, 0.5, 0.8])
def test_an_estimate_is_close_to_what_labels_show(reference: Reference, unsure: float) -> None:
    seen = frame(5, rows=6000)
    assert reference.estimator is not None
    assert seen.answers.scores is not None
    is_unsure = seen.answers.scores.max(axis=1) < 0.8
    keep = np.random.default_rng(0).random(6000) < np.where(is_unsure, unsure, 0.2 * (1 - unsure))
    kept = Answers(seen.answers.answer[keep], seen.answers.scores[keep], seen.answers.classes)
    shown = float((kept.answer == seen.truth[keep]).mean())
    assert 1 - float(reference.estimator.losses(kept, seen.watched).mean()) == pytest.approx(shown, abs=0.04)


def test_a_lasting_change_of_unit_asks_for_a_rebuild(reference: Reference) -> None:
    found = run(reference, [frame(seed, income=inputs(seed, 500)["income"] * 1000) for seed in (1, 2, 3)])
    assert [one.alarm.consequence for one in found] == [Consequence.WARN, Consequence.REBUILD, Consequence.REBUILD]
    assert [one.alarm.repeats for one in found] == [0, 0, 1]


def test_new_classes_are_never_retrained_on_by_themselves(reference: Reference) -> None:
    frames = [frame(seed) for seed in (1, 2)]
    unknown = [replace(one, truth=np.where(np.arange(500) % 3 == 0, 9, one.truth)) for one in frames]
    found = run(reference, unknown)
    assert [one.alarm.consequence for one in found] == [Consequence.WARN, Consequence.REBUILD]
    assert all("Accuracy fell" in one.alarm.sentence for one in found)


def test_a_new_version_that_is_worse_than_the_old_one_rolls_back(reference: Reference) -> None:
    good = watch_frame(frame(1), reference, BUDGET, Memory(version=1), version=1)
    bad = watch_frame(frame(2, sure=0.5), reference, BUDGET, good.memory, version=2)
    assert bad.alarm.consequence is Consequence.ROLL_BACK


def test_a_new_version_that_is_no_worse_than_the_old_one_is_not_rolled_back(reference: Reference) -> None:
    poor = watch_frame(frame(1, sure=0.5), reference, BUDGET, Memory(version=1), version=1)
    next_one = watch_frame(frame(2, sure=1.0), reference, BUDGET, poor.memory, version=2)
    assert next_one.alarm.consequence is Consequence.RETRAIN


def test_errors_right_after_a_change_of_version_roll_back(reference: Reference) -> None:
    good = watch_frame(frame(1), reference, BUDGET, Memory(version=1), version=1)
    facts = Service(requests=500, failures=30, usual_requests=5000, usual_failures=5)
    bad = watch_frame(frame(2), reference, BUDGET, good.memory, version=2, facts=facts)
    assert bad.alarm.consequence is Consequence.ROLL_BACK
    assert "30 of 500 requests failed" in bad.alarm.sentence
    late = watch_frame(frame(2), reference, BUDGET, Memory(version=2, windows=9), version=2, facts=facts)
    assert late.alarm.consequence is Consequence.WARN


def test_slow_answers_and_old_models_warn(reference: Reference) -> None:
    slow = replace(frame(1), latency_ms=np.full(500, 80.0))
    facts = Service(p99_ms=50, model_age_s=40 * 86400, oldest_model_s=30 * 86400)
    found = watch_frame(slow, reference, BUDGET, Memory(), facts=facts).alarm
    assert {signal.name for signal in found.signals if signal.fired} == {"latency", "staleness"}


def test_the_age_of_the_labels_and_the_traffic_are_told(reference: Reference) -> None:
    budget = BUDGET.model_copy(update={"label": Label(stale_after=3600.0)})
    memory, told = Memory(), []
    for number, labelled in enumerate([True, False, False]):
        seen = replace(frame(number + 1, labelled=labelled), seconds=1000.0 * number + np.linspace(0, 1000, 500))
        watched = watch_frame(seen, reference, budget, memory)
        memory = watched.memory
        told.append({signal.name: signal for signal in watched.alarm.signals})
    assert [one["staleness"].effect for one in told] == [0.0, 1000.0, 2000.0]
    assert told[1]["throughput"].sentence == "500 predictions came within 16.7 minutes, 0.499 a second"
    assert not any(signal.fired for one in told for signal in one.values())
    late = replace(frame(9, labelled=False), seconds=np.linspace(9000, 10_000, 500))
    found = watch_frame(late, reference, budget, memory).alarm
    assert found.consequence is Consequence.WARN
    assert "no prediction of the last 2.5 hours has a label; 60.0 minutes are allowed" in found.sentence.lower()


def sliced(rows: int, seed: int, *, wrong: float, task: Task = C) -> tuple[Rows, dict[str, np.ndarray]]:
    """Rows of five regions, of which `south` (a tenth of all) is answered wrong with another share."""
    chance = np.random.default_rng(seed)
    regions = np.array(["north", "east", "west", "south"], object)
    region = regions[chance.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])]
    error = np.where(region == "south", wrong, 0.1)
    truth = chance.integers(0, 2, rows)
    if task is C:
        answer: np.ndarray = np.where(chance.random(rows) < error, 1 - truth, truth)
    else:
        answer = truth + chance.normal(0, 1, rows) * error
    return Rows(np.arange(rows), truth, answer, None, {"region": region, "shelf": region}), {"region": region}


def watched_slices(profile: Reference, seed: int, wrong: float) -> Watched:
    rows, given_inputs = sliced(1000, seed, wrong=wrong, task=profile.task)
    seen = Frame(given_inputs, Answers(rows.answer), rows.truth, np.ones(1000, bool))
    return watch_frame(seen, profile, BUDGET, Memory())


@pytest.mark.parametrize(("task", "worse"), [(C, 0.4), (R, 0.3)])
def test_a_group_that_is_answered_worse_is_named(task: Task, worse: float, tmp_path: Path) -> None:
    rows, given_inputs = sliced(3000, 0, wrong=0.1, task=task)
    save(build(rows, task=task, inputs=given_inputs), tmp_path)
    profile = load(tmp_path)
    assert set(profile.slices) == {"region"}  # The shelf is no input, so production does not know it.
    found = watched_slices(profile, 1, worse).alarm
    told = {signal.name: signal for signal in found.signals}
    assert told["quality by slice"].fired
    assert list(told["quality by slice"].details) == ["region = south"]
    assert found.consequence is Consequence.RETRAIN
    assert "`region` = south" in found.sentence
    quiet = [watched_slices(profile, seed, 0.1).alarm.consequence for seed in range(2, 12)]
    assert set(quiet) == {Consequence.NONE}


def test_a_slice_has_its_share_of_the_budget_only_where_there_are_slices(reference: Reference) -> None:
    def levels(profile: Reference) -> list[float]:
        kinds = LabelledQuality | SlicedQuality
        return [one._level for one in detectors(profile, BUDGET) if isinstance(one, kinds)]

    rows, given_inputs = sliced(300, 0, wrong=0.1)
    assert levels(reference) == pytest.approx([0.25e-3, 0.0])
    assert sum(levels(build(rows, task=C, inputs=given_inputs))) == pytest.approx(0.25e-3)


def test_a_small_lasting_loss_adds_up(reference: Reference) -> None:
    found = run(reference, [frame(seed, sure=2.4) for seed in range(1, 12)])
    fired = [{s.name for s in one.alarm.signals if s.fired} for one in found]
    assert any("sequential quality" in names for names in fired)
    assert not any("sequential quality" in {s.name for s in one.alarm.signals if s.fired}
                   for one in run(reference, [frame(seed) for seed in range(1, 12)]))  # fmt: skip


@given(st.lists(st.lists(st.booleans(), max_size=30), min_size=1, max_size=6), st.floats(0.05, 0.5))
@settings(max_examples=40, deadline=None)
def test_an_e_detector_does_not_care_how_losses_are_cut(parts: list[list[bool]], bound: float) -> None:
    whole = EDetector(bound, 1e-3).watch(np.array([loss for part in parts for loss in part], float))
    cut = EDetector(bound, 1e-3)
    for part in parts:
        cut = cut.watch(np.array(part, float))
    assert cut.logs == pytest.approx(whole.logs, rel=1e-9)
    assert (cut.rows, cut.fired_at) == (whole.rows, whole.fired_at)


def test_an_e_detector_is_the_plain_recurrence() -> None:
    losses = (np.random.default_rng(0).random(50) < 0.3).astype(float)
    found = EDetector(0.1, 1e-6).watch(losses)
    from headrace.monitoring.statistics.sequential import _bets

    plain = np.zeros(6)
    for loss in losses:
        plain = (plain + 1) * (1 + _bets(0.1) * (loss - 0.1))
    assert found.value == pytest.approx(float(plain.mean()), rel=1e-9)


def test_an_e_detector_keeps_its_promise_on_false_alarms() -> None:
    chance = np.random.default_rng(3)
    rows = [EDetector(0.1, 1e-3).watch((chance.random(4000) < 0.1).astype(float)).fired_at for _ in range(60)]
    ran = sum(found or 4000 for found in rows)
    assert ran / max(sum(found > 0 for found in rows), 1) > 1000


def test_dependent_losses_that_double_are_seen_within_a_few_windows() -> None:
    chance = np.random.default_rng(4)

    def frame(rows: int, odds: float) -> Frame:
        # One draw decides for 20 rows.
        wrong = np.repeat(chance.random(rows // 20) < odds, 20)
        return Frame({}, Answers(wrong.astype(int)), np.zeros(rows, int), np.ones(rows, bool))

    holdout = frame(4000, 0.2)
    usual = build(holdout.rows(), task=C, in_time_order=True)
    assert usual.loss_time > 10
    memory, fired = Memory(), []
    for odds in [0.2] * 20 + [0.5] * 4:
        watched = watch_frame(frame(500, odds), usual, BUDGET, memory, version=1)
        memory = watched.memory
        fired.append(any(one.fired for one in watched.alarm.signals if one.name == "sequential quality"))
    assert not any(fired[:20])
    assert any(fired[20:])
    assert memory.detector is not None
    assert memory.detector.together > 1


def test_dependence_in_time_is_measured() -> None:
    chance = np.random.default_rng(0)
    assert correlation_time(chance.normal(size=3000)) == 1.0
    series = np.zeros(20_000)
    for row in range(1, len(series)):
        series[row] = 0.8 * series[row - 1] + chance.normal()
    assert correlation_time(series) == pytest.approx(9, rel=0.4)


def clustered(chance: np.random.Generator, rows: int) -> np.ndarray:
    """Return losses of which about 1 % are 1, in runs: where a series that repeats 0.7 of itself is low."""
    return (lfilter([0.7], [1.0, -0.7], chance.standard_normal(rows)) < -2.2).astype(float)


def test_a_lucky_reference_does_not_make_clustered_losses_look_independent() -> None:
    chance = np.random.default_rng(0)
    lucky = min((clustered(chance, 5000) for _ in range(100)), key=correlation_time)
    alone, usual = correlation_time(lucky), correlation_time(clustered(chance, 200_000))
    together = [joint_time(lucky, clustered(chance, 5000), alone) for _ in range(20)]
    assert alone < 0.9 * usual
    assert abs(np.mean(together) - usual) < (usual - alone) / 1.5
    assert min(together) >= alone
    assert joint_time((chance.random(5000) < 0.01).astype(float), clustered(chance, 500), 1.0) == 1.0


def test_a_step_within_the_window_is_not_taken_for_dependence() -> None:
    chance = np.random.default_rng(1)
    before = clustered(chance, 5000)
    now = np.concatenate([clustered(chance, 250), (chance.random(250) < 0.5).astype(float)])
    assert fall_p(now, before, joint_time(before, now, correlation_time(before))) < 1e-8


def test_numbers_that_are_counted_by_value_repeat_each_other_in_time_too() -> None:
    values = np.repeat(np.random.default_rng(0).integers(0, 4, 200), 20).astype(float)
    assert categories(values, in_time_order=True).correlation_time > 8


def test_a_regressors_error_is_estimated_from_its_inputs() -> None:
    chance = np.random.default_rng(0)

    def draw(rows: int, noisy: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        noise = (chance.random(rows) < noisy).astype(float)
        truth = chance.normal(0, 1, rows)
        given_inputs = {"noise": noise * 10 + chance.random(rows), "other": chance.random(rows)}
        return given_inputs, truth, truth + chance.normal(0, 0.1 + noise, rows)

    given_inputs, truth, answer = draw(3000, 0.2)
    profile = build(Rows(np.arange(3000), truth, answer), task=R, inputs=given_inputs)
    given_inputs, truth, answer = draw(1000, 0.6)
    assert profile.estimator is not None
    watched = expand(given_inputs, profile.fields)
    expected = float(profile.estimator.losses(Answers(answer), watched).mean())
    assert expected == pytest.approx(float(np.abs(answer - truth).mean()), rel=0.1)


def test_few_numbers_keep_their_order_and_names_are_put_in_theirs(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    doors, city = chance.integers(1, 6, 3000), np.array(["rome", "oslo", "bern"], object)[chance.integers(0, 3, 3000)]
    noise = np.select([city == "oslo", city == "rome"], [3.0, 2.0], 1.0)
    truth = chance.normal(0, 1, 3000)
    rows = Rows(np.arange(3000), truth, truth + chance.normal(0, noise))
    save(build(rows, task=R, inputs={"doors": doors.astype(float), "city": city}), tmp_path)
    found = load(tmp_path).estimator
    assert found is not None
    assert list(found.names["doors"].counts) == ["1", "2", "3", "4", "5"]
    assert list(found.names["city"].counts) == ["bern", "rome", "oslo"]  # By mean error, however common they are.


def test_a_whole_profile_comes_back_as_it_was_saved(reference: Reference, tmp_path: Path) -> None:
    save(reference, tmp_path)
    found = load(tmp_path)
    seen = frame(1, sure=1.5, age=inputs(1, 500)["age"] + 3)
    assert watch_frame(seen, found, BUDGET, Memory()) == watch_frame(seen, reference, BUDGET, Memory())
