"""A stream is replayed window by window, told on one page, and its hard rows are set out for review."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from headrace.clock import ManualClock
from headrace.config.component import Monitor
from headrace.evaluation.answers import probabilities
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Consequence
from headrace.monitoring.examples import as_tasks, hard_examples, hardest_of
from headrace.monitoring.given import Given, replay_given
from headrace.monitoring.labelling import as_lines
from headrace.monitoring.memory import Memory
from headrace.monitoring.reference import Reference, build
from headrace.monitoring.replay import replay, windows_of
from headrace.monitoring.report import html
from headrace.monitoring.seasons import Seasons
from headrace.predictions.base import Joined
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
    assert "A window waits 2 s for its actuals" in html(replace(found, labels="A window waits 2 s for its actuals."))


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


def test_the_hardest_of_all_pages_are_the_hardest_of_all_rows(log: MemoryLog) -> None:
    rows = log.joined("churn", version=2)
    pages = [rows[start : start + 70] for start in range(0, len(rows), 70)]
    asked = {"classes": ("0", "1", "2"), "most": 40}
    whole = hard_examples(rows, Task.CLASSIFICATION, **asked)
    assert hardest_of(pages, Task.CLASSIFICATION, **asked) == whole


def test_a_regressors_row_is_hard_by_what_is_usual_for_it() -> None:
    clock = ManualClock(START)
    ids = Ids(clock)
    errors = [5.0, 6.0, 30.0]  # In this page alone 6 would be usual.
    rows = [Joined(Prediction(ids.new(), "price", 1, clock.now(), {"n": 1}, error, 1.0), 0.0, True) for error in errors]
    found = hard_examples(rows, Task.REGRESSION, usual_error=1.0)
    assert [one.reason for one in found] == ["off by 30", "off by 6", "off by 5"]
    assert [one.reason for one in hard_examples(rows, Task.REGRESSION)] == ["off by 30"]


@pytest.mark.parametrize("timed", [False, True])
def test_a_given_stream_is_judged_like_a_stored_one(timed: bool) -> None:
    profile = Seasons(reference())
    parts = [answered(seed, 200, sure) for seed, sure in ((1, 3.0), (2, 3.0), (3, 0.7))]
    truth = [label for labels, _ in parts for label in labels.tolist()]
    moments = [START + timedelta(minutes=row) for row in range(600)] if timed else []
    given = Given({"n": np.ones(610)}, {"": np.concatenate([scores for _, scores in parts])}, truth, moments)
    found = replay_given("churn", 2, given, profile, Monitor(window=200))
    assert [seen.alarm.consequence for seen in found.windows] == [
        Consequence.NONE, Consequence.NONE, Consequence.RETRAIN,
    ]  # fmt: skip
    assert (found.windows[2].first, found.windows[2].last) == ("row 401", "row 600")
    assert found.windows[2].alarm.since == "row 401"
    assert (found.per_month > 0) is timed
    unlabelled = replay_given(
        "churn", 2, Given(given.inputs, given.outputs, [None] * 600), profile, Monitor(window=200)
    )
    assert [seen.labelled for seen in unlabelled.windows] == [0, 0, 0]
    assert unlabelled.windows[2].alarm.consequence is Consequence.WARN
    assert "<svg" in html(found)


def test_a_lone_output_without_a_name_is_the_answer_and_no_embedding() -> None:
    (truth, scores), (later, given) = answered(0, 1000), answered(1, 200)
    profile = build(Rows(np.arange(1000), truth, scores.argmax(axis=1)), task=Task.CLASSIFICATION)
    rows = Given({"n": np.ones(200)}, {"": given.argmax(axis=1)}, later.tolist())
    [seen] = replay_given("churn", 2, rows, Seasons(profile), Monitor(window=200)).windows
    assert (seen.labelled, seen.alarm.consequence) == (200, Consequence.NONE)
