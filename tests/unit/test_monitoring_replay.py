"""A stream is replayed window by window, told on one page, and its hard rows are set out for review."""

import json
import re
from datetime import UTC, datetime

import numpy as np
import pytest

from headrace.clock import ManualClock
from headrace.config.component import Monitor
from headrace.evaluation.answers import probabilities
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Consequence
from headrace.monitoring.examples import as_tasks, hard_examples
from headrace.monitoring.labelling import as_lines
from headrace.monitoring.memory import Memory
from headrace.monitoring.reference import Reference, build
from headrace.monitoring.replay import replay, windows_of
from headrace.monitoring.report import html
from headrace.monitoring.seasons import Seasons
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.types import Actual, Prediction, Task

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday


def answered(seed: int, rows: int, sure: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 3, rows)
    logits = chance.normal(0, 1, (rows, 3))
    logits[np.arange(rows), truth] += sure
    return truth, probabilities(logits)


def reference() -> Reference:
    truth, scores = answered(0, 1000)
    return build(Rows(np.arange(1000), truth, scores.argmax(axis=1), scores), task=Task.CLASSIFICATION)


@pytest.fixture
def log() -> MemoryLog:
    """Two windows of version 1 and some rows more, then three of version 2, the last of them bad."""
    made, clock = MemoryLog(), ManualClock(START)
    ids = Ids(clock)
    for version, rows, sure in ((1, 450, 3.0), (2, 400, 3.0), (2, 200, 0.7)):
        truth, scores = answered(version * 100 + rows, rows, sure)
        for label, score in zip(truth.tolist(), scores.tolist(), strict=True):
            clock.advance(60)
            row = Prediction(ids.new(), "churn", version, clock.now(), {"n": 1}, score, 1.0)
            made.append([row])
            made.append_actuals("churn", [Actual(row.id, label, clock.now())])
    return made


def test_a_replay_says_what_the_watch_would_have_said(log: MemoryLog) -> None:
    profile = reference()
    windows = windows_of(log, "churn", 200)
    found = replay("churn", windows, {1: Seasons(profile), 2: Seasons(profile)}, Monitor(window=200), Memory())
    assert [(seen.version, seen.rows, seen.labelled) for seen in found.windows] == [
        (1, 200, 200), (1, 200, 200), (2, 200, 200), (2, 200, 200), (2, 200, 200),
    ]  # fmt: skip
    quiet = [seen.alarm.consequence for seen in found.windows[:4]]
    assert quiet == [Consequence.NONE] * 4
    assert found.windows[4].alarm.consequence is Consequence.ROLL_BACK
    assert found.per_month == pytest.approx(0.001 * 30 * 24 * 60 / 200, rel=0.3)
    assert json.loads(json.dumps(found.as_json()))["counts"]["roll back"] == 1


def test_the_page_is_whole_in_itself_and_shows_every_window(log: MemoryLog) -> None:
    found = replay(
        "<churn>",
        windows_of(log, "churn", 200),
        {1: Seasons(reference()), 2: Seasons(reference())},
        Monitor(),
        Memory(),
    )
    page = html(found)
    assert page.count("<details>") == 5
    assert page.count("<svg") >= 2
    assert "&lt;churn&gt;" in page
    assert "<churn>" not in page
    assert not re.search(r"(src|href)=|https?:", page)


def test_a_version_without_a_reference_is_left_out(log: MemoryLog) -> None:
    found = replay("churn", windows_of(log, "churn", 200), {2: Seasons(reference())}, Monitor(), Memory())
    assert {seen.version for seen in found.windows} == {2}


def test_wrong_answers_come_before_unsure_ones(log: MemoryLog) -> None:
    rows = log.joined("churn", version=2)
    found = hard_examples(rows, Task.CLASSIFICATION, classes=("0", "1", "2"), most=100)
    reasons = [one.reason.split()[0] for one in found]
    assert reasons == sorted(reasons)  # "answered …" comes before "unsure: …"
    assert [one.hardness for one in found] == sorted((one.hardness for one in found), reverse=True)
    tasks = [json.loads(line) for line in as_lines(as_tasks(found)).splitlines()]
    assert tasks[0]["data"]["prediction_id"] == found[0].row.prediction.id
    assert tasks[0]["meta"]["reason"].startswith("answered")
