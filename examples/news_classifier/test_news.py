"""What training and serving rely on: hashing, splitting, loading, and a classifier that survives its files."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from news.dataset import CLASSES, BadData, load_news
from news.hashing import bags, clean
from news.network import Facts, NewsClassifier, NewsNetwork, learn_vocabulary, load_classifier
from news.report import class_metrics, confusion
from news.splitting import split, stories

HEADLINES = Path(__file__).parent / "headlines.csv"
ODD = [
    "", " \n\t ", "😀😀 🎉", "Привет, мир", "東京で会議", "مرحبا", "<b>goal</b><script>alert(1)</script>", "a\x00b\x00",
    "\ud800 lone \udfff", "word " * 200_000, "x" * 1_000_000, "<" * 1000, "&quot;&quot; #39;",
]  # fmt: skip


@pytest.fixture(scope="module")
def news():
    return load_news(str(HEADLINES))


@pytest.fixture(scope="module")
def classifier(news):
    vocabulary = learn_vocabulary(news.texts)
    torch.manual_seed(0)
    network = NewsNetwork(len(vocabulary.hashes), len(CLASSES))
    network.rarity.copy_(torch.from_numpy(vocabulary.rarity))
    return NewsClassifier(vocabulary, network, Facts(CLASSES, 32))


def test_a_text_gets_the_same_hashes_alone_and_in_any_batch(news) -> None:
    texts = [*news.texts[:20], *ODD]
    whole = bags(texts)
    for number, text in enumerate(texts):
        start, count = whole.offsets[number], whole.counts[number]
        assert np.array_equal(whole.hashes[start : start + count], bags([text]).hashes)


def test_words_stems_and_pairs_are_what_is_hashed() -> None:
    found = bags(["Shared shares", "shares"])
    shared, stem, _pair, shares, same_stem = found.hashes[:5]
    assert list(found.counts) == [5, 2]
    assert stem == same_stem
    assert shared != shares
    assert list(found.hashes[5:]) == [shares, same_stem]


def test_a_kind_alone_gets_the_hashes_that_it_has_beside_others(news) -> None:
    whole = set(bags(news.texts).hashes.tolist())
    alone = [set(bags(news.texts, [kind]).hashes.tolist()) for kind in ("word", "stem", "pair")]
    assert set.union(*alone) == whole
    assert sum(map(len, alone)) == len(whole)


def test_no_pair_reaches_over_the_end_of_a_text() -> None:
    assert list(bags(["a", "b"]).counts) == [2, 2]


def test_leftovers_of_html_are_no_words() -> None:
    assert clean("Fed &quot;holds&quot; #39;rates <A HREF='x'>").split() == ["fed", "holds", "rates"]


def test_hashes_hardly_collide() -> None:
    assert len(np.unique(bags([f"word{number}" for number in range(20_000)]).hashes)) >= 20_000


def test_a_reprint_with_small_changes_is_the_same_story(news) -> None:
    reprints = [f"{text} (Reuters)" for text in news.texts]
    found = stories([*news.texts, *reprints])
    half = len(news.texts)
    assert np.mean(found[:half] == found[half:]) > 0.95
    assert len(np.unique(found[:half])) > 0.95 * half


def test_no_story_stands_in_two_parts_of_the_split(news) -> None:
    texts = [*news.texts, *(f"{text} (Reuters)" for text in news.texts), *(text.upper() for text in news.texts)]
    parts, found = split(texts, {"train": 0.6, "holdout": 0.4}), stories(texts)
    assert all(len(set(parts[found == story])) == 1 for story in np.unique(found))
    assert 0.45 < np.mean(parts == "train") < 0.75


def test_a_split_does_not_depend_on_the_order_of_the_rows(news) -> None:
    shares = {"train": 0.8, "holdout": 0.2}
    order = np.random.default_rng(0).permutation(len(news))
    shuffled = split([news.texts[row] for row in order], shares)
    assert np.array_equal(split(news.texts, shares)[order], shuffled)


def test_another_salt_splits_otherwise(news) -> None:
    shares = {"a": 0.5, "b": 0.5}
    assert 0.2 < np.mean(split(news.texts, shares) == split(news.texts, shares, salt="x")) < 0.8


def test_any_text_gets_probabilities(classifier) -> None:
    found = classifier.probabilities(ODD)
    assert np.isfinite(found).all()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)


def test_probabilities_are_the_same_alone_and_in_a_batch(classifier, news) -> None:
    together = classifier.probabilities(news.texts)
    alone = np.concatenate([classifier.probabilities([text]) for text in news.texts])
    assert np.abs(together - alone).max() < 1e-5


def test_a_saved_classifier_answers_as_before_and_its_files_are_no_code(classifier, news, tmp_path) -> None:
    classifier.save(tmp_path)
    again = load_classifier(tmp_path)
    assert np.array_equal(again.probabilities(news.texts), classifier.probabilities(news.texts))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_the_vocabulary_is_what_two_texts_share() -> None:
    vocabulary = learn_vocabulary(["bank bank rates", "bank", "goal"])
    assert len(vocabulary.hashes) == 2  # the word and its stem
    assert vocabulary.encode(["bank goal"]).unknown[0] == pytest.approx(3 / 5)


def test_the_report_counts_each_class() -> None:
    matrix = confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
    assert matrix.tolist() == [[1, 1], [0, 2]]
    metrics = class_metrics(matrix, ["a", "b"], prefix="x")
    assert (metrics["x_accuracy"], metrics["x_worst_recall"], metrics["x_b_precision"]) == (0.75, 0.5, 2 / 3)
    assert math.isclose(metrics["x_a_f1"], 2 / 3)


def write(path: Path, columns: dict) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_title_and_description_are_joined_and_numbers_become_names(tmp_path) -> None:
    found = load_news(write(tmp_path / "a.parquet", {"label": [0, 3], "title": ["", "T"], "description": ["d", "e"]}))
    assert (found.texts, found.labels) == (["d", "T e"], ["world", "science"])


def test_the_original_files_have_no_header_and_count_from_one(tmp_path) -> None:
    path = tmp_path / "news.csv"
    path.write_text('"3","Fed, again","Rates ""up"""\n"1","T","D"\n')
    found = load_news(str(path))
    assert (found.texts, found.labels) == (['Fed, again Rates "up"', "T D"], ["business", "world"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [7], "text": ["x"]}, "row 0: there is no class `7`"),
        ({"label": [None], "text": ["x"]}, "there is no class `None`"),
        ({"topic": [1], "text": ["x"]}, "has the columns topic, text. It needs `label`"),
        ({"label": [1], "body": ["x"]}, "has the columns label, body"),
        ({"label": pa.array([], pa.int64()), "text": pa.array([], pa.string())}, "has no rows"),
    ],
)
def test_wrong_columns_and_labels_are_told(tmp_path, columns, message) -> None:
    with pytest.raises(BadData) as caught:
        load_news(write(tmp_path / "a.parquet", columns))
    assert message in str(caught.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(BadData, match=r"There is no file nowhere\.parquet"):
        load_news("nowhere.parquet")


def test_a_truncated_file_is_told(tmp_path) -> None:
    path = Path(write(tmp_path / "a.parquet", {"label": [1] * 100, "text": ["x"] * 100}))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BadData, match=r"may be truncated"):
        load_news(str(path))


def test_a_file_of_the_original_name_must_be_the_original(tmp_path) -> None:
    path = tmp_path / "test.csv"
    path.write_text('"3","a","b"\n')
    with pytest.raises(BadData, match="not d52ea96a97a2d943681189a97654912d"):
        load_news(str(path))
    digest = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
    assert load_news(str(path), digest=digest).labels == ["business"]


def test_an_address_that_does_not_answer_is_told() -> None:
    with pytest.raises(BadData, match="cannot be fetched"):
        load_news("http://127.0.0.1:9/news.csv")
