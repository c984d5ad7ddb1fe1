"""Embeddings of real news: a subject that lengths and words do not show is told, and nothing where nothing changed.

The encoder is a small one, TF-IDF and its 32 main directions, learnt on stories that no window has.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.config.component import Monitor
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Alarm, Consequence
from headrace.monitoring.given import Given, replay_given
from headrace.monitoring.seasons import Seasons, profile
from headrace.monitoring.signals import inputs
from headrace.types import Task

#: The class of business stories.
BUSINESS = 2
AG_NEWS = Path(__file__).parents[3] / "shared" / "data" / "ag_news_train.parquet"
pytestmark = pytest.mark.skipif(not AG_NEWS.exists(), reason="AG News is not in ../shared/data")
ROWS = 500
LEARNED, HELD = 5000, 2500


@dataclass(frozen=True)
class House:
    """Stories in a fixed order, a model of the first ones, and what it is judged by."""

    texts: np.ndarray
    labels: np.ndarray
    answer: Callable[[list[str]], dict[str, np.ndarray]]
    known: dict[bool, Seasons]

    def verdict(self, rows: np.ndarray, change: Callable[[str], str] = str, *, embedded: bool = True) -> Alarm:
        texts = [change(one) for one in self.texts[rows]]
        outputs = self.answer(texts)
        if not embedded:
            del outputs["meaning"]
        given = Given({"text": np.array(texts, object)}, outputs, [None] * len(rows))
        (seen,) = replay_given("news", 1, given, self.known[embedded], watch(embedded=embedded)).windows
        return seen.alarm


def watch(*, embedded: bool) -> Monitor:
    return Monitor(window=ROWS, embedding="meaning" if embedded else None)


@pytest.fixture(scope="module")
def house() -> House:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table = pq.read_table(AG_NEWS)
    whole = [f"{row['title'] or ''} {row['description'] or ''}".strip() for row in table.to_pylist()]
    order = np.random.default_rng(0).permutation(len(whole))
    texts, labels = np.array(whole, object)[order], table["label"].to_numpy()[order]
    encoder = make_pipeline(TfidfVectorizer(min_df=3, stop_words="english"), TruncatedSVD(32, random_state=0))
    learned = encoder.fit_transform(texts[:LEARNED])
    classifier = LogisticRegression(C=10, max_iter=300).fit(learned, labels[:LEARNED])

    def answer(given: list[str]) -> dict[str, np.ndarray]:
        meaning = encoder.transform(given)
        return {"probabilities": classifier.predict_proba(meaning), "meaning": meaning.astype(np.float32)}

    held = slice(LEARNED, LEARNED + HELD)
    outputs: dict[str, Any] = answer(list(texts[held]))
    scores = outputs["probabilities"]
    rows = Rows(
        np.arange(HELD), labels[held], classifier.classes_[scores.argmax(axis=1)], scores, {}, classifier.classes_
    )
    known = {
        embedded: profile(
            rows, {"text": texts[held]}, task=Task.CLASSIFICATION, monitor=watch(embedded=embedded), outputs=outputs
        )
        for embedded in (True, False)
    }
    return House(texts, labels, answer, known)


def stream(house: House) -> np.ndarray:
    """Return the rows that neither taught the model nor made its profile."""
    return np.arange(LEARNED + HELD, len(house.texts))


def test_streams_in_which_nothing_changed_are_quiet(house: House) -> None:
    rows = stream(house)
    parts = [rows[start : start + ROWS] for start in range(0, len(rows) - ROWS + 1, ROWS)]
    loud = [alarm.sentence for part in parts if (alarm := house.verdict(part)).consequence is not Consequence.NONE]
    assert len(parts) >= 10
    assert not loud


def drifted(alarm: Alarm) -> list[str]:
    """Return the columns that input drift names."""
    return [name for one in alarm.signals if one.name == inputs.NAME and one.fired for name in one.details]


def test_a_subject_within_a_class_is_told_by_the_embedding_alone(house: House) -> None:
    """Half of the business stories are now about oil: as many of each class, as long, as well known words."""
    rows, chance = stream(house)[:ROWS], np.random.default_rng(1)
    oil = [row for row in stream(house)[ROWS:] if house.labels[row] == BUSINESS and " oil" in house.texts[row].lower()]
    business = np.flatnonzero(house.labels[rows] == BUSINESS)
    changed = rows.copy()
    changed[business[::2]] = chance.choice(oil, len(business[::2]))
    alarm = house.verdict(changed)
    assert alarm.consequence is Consequence.WARN
    assert any("of meaning" in name for name in drifted(alarm)), alarm.sentence
    assert not drifted(house.verdict(changed, embedded=False))


@pytest.mark.parametrize(
    "change", [lambda text: " ".join(text.split()[:5]), lambda text: html.escape(html.escape(f"<p>{text}</p>"))]
)
def test_what_is_told_without_an_embedding_is_told_with_one(house: House, change: Callable[[str], str]) -> None:
    rows = stream(house)[:ROWS]
    alone = house.verdict(rows, change, embedded=False)
    both = house.verdict(rows, change)
    assert both.consequence is alone.consequence is Consequence.WARN
    assert set(drifted(alone)) <= set(drifted(both))
