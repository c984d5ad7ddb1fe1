"""Embeddings are watched by where they lie among the holdout's, under the same budget, and are no answers."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from headrace.clock import ManualClock
from headrace.config.component import Monitor
from headrace.errors import InvalidConfig
from headrace.evaluation.answers import probabilities
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Alarm, Consequence, Window
from headrace.monitoring.given import Given, replay_given
from headrace.monitoring.judge import judge
from headrace.monitoring.reference import load, save
from headrace.monitoring.seasons import Seasons, profile
from headrace.predictions.base import Joined
from headrace.predictions.ids import Ids
from headrace.types import Json, Prediction, Task

WIDTH, MONITOR = 48, Monitor(window=400, embedding="meaning", false_alarms=0.001)
SPREAD = np.linspace(3, 0.3, WIDTH)


def drawn(seed: int, rows: int, *, moved: float = 0.0, subject: float = 0.0) -> dict[str, np.ndarray]:
    """Return outputs: probabilities, and meanings of which a share is about a subject of its own."""
    chance = np.random.default_rng(seed)
    meaning = chance.normal(size=(rows, WIDTH)) * SPREAD + moved
    meaning[chance.random(rows) < subject] += 15 * (np.arange(WIDTH) == WIDTH - 1)
    scores = probabilities(chance.normal(size=(rows, 3)) * 3)
    return {"probabilities": scores, "meaning": meaning.astype(np.float32)}


def known(seed: int = 0, rows: int = 1000) -> Seasons:
    outputs = drawn(seed, rows)
    scores = outputs["probabilities"]
    truth = (scores.cumsum(axis=1) > np.random.default_rng(seed).random((rows, 1))).argmax(axis=1)
    found = Rows(np.arange(rows), truth, scores.argmax(axis=1), scores)
    return profile(found, {"x": np.arange(rows) % 7.0}, task=Task.CLASSIFICATION, monitor=MONITOR, outputs=outputs)


def verdict(outputs: dict[str, np.ndarray], usual: Seasons) -> Alarm:
    """Judge rows as the prediction log gives them."""
    clock = ManualClock()
    columns = {name: values.tolist() for name, values in outputs.items()}
    rows = []
    for at, one in enumerate(Ids(clock).batch(len(columns["meaning"]))):
        output: Json = {name: values[at] for name, values in columns.items()}
        rows.append(Joined(Prediction(one, "c", 1, clock.now(), {"x": at % 7}, output, 1.0), None, False))
    return judge(Window("c", 1, rows), usual, MONITOR)


def test_a_subject_that_the_answers_do_not_show_is_told_by_the_embedding(tmp_path: Path) -> None:
    save(known().overall, tmp_path)
    usual = Seasons(load(tmp_path))
    assert usual.overall.embedding == "meaning"
    assert verdict(drawn(1, 400), usual).consequence is Consequence.NONE
    for changed in (drawn(2, 400, subject=0.3), drawn(3, 400, moved=1.0)):
        alarm = verdict(changed, usual)
        assert alarm.consequence is Consequence.WARN
        assert "of meaning" in alarm.sentence
        assert {one.name for one in alarm.signals if one.fired} <= {"input drift", "change of meaning"}


def test_an_embedding_that_is_gone_is_a_broken_schema() -> None:
    alarm = verdict({**drawn(1, 400), "meaning": np.full(400, None)}, known())
    assert "The output `meaning` has no values any more" in alarm.sentence


def test_windows_without_drift_stay_within_the_budget() -> None:
    alarms, windows = 0, 0
    for seed in range(5):
        usual = known(seed)
        for window in range(24):
            outputs = drawn(1000 + 100 * seed + window, 400)
            given = Given({"x": np.arange(400) % 7.0}, outputs, [None] * 400)
            (seen,) = replay_given("c", 1, given, usual, MONITOR).windows
            alarms += seen.alarm.consequence is not Consequence.NONE
            windows += 1
    assert alarms <= binom.ppf(0.999, windows, MONITOR.false_alarms)


def test_an_input_may_be_the_embedding_too() -> None:
    outputs = drawn(0, 1000)
    lists = np.empty(1000, object)
    lists[:] = [list(map(float, one)) for one in outputs["meaning"]]
    rows = Rows(np.arange(1000), np.zeros(1000, int), np.zeros(1000, int), outputs["probabilities"])
    found = profile(rows, {"meaning": lists}, task=Task.CLASSIFICATION, monitor=MONITOR).overall
    assert found.embedding is None  # Windows have it among their inputs.
    assert [(one.kind, one.width, len(one.axes)) for one in found.fields] == [("embedding", WIDTH, 6)]
    assert "direction 1 of meaning" in found.numbers
    # Half of the rows fitted the directions, the others are the profile.
    assert found.numbers["direction 1 of meaning"].rows == 500


def test_an_embedding_that_nothing_has_is_refused_with_what_there_is() -> None:
    monitor = MONITOR.model_copy(update={"embedding": "sense"})
    rows = Rows(np.arange(3), np.zeros(3, int), np.zeros(3, int))
    with pytest.raises(InvalidConfig, match=r"`sense`; the model's outputs are one without a name, its inputs x\."):
        profile(rows, {"x": np.zeros(3)}, task=Task.CLASSIFICATION, monitor=monitor, outputs={"": np.zeros((3, 2))})
