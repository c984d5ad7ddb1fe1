"""Runs in the news component's own environment: a classifier's answers to streams of news that change in known ways.

    python news_streams.py EXAMPLE_FOLDER TRAIN WORK_FOLDER

Learns from six tenths of the stories and writes a Parquet file for the holdout and each stream: text, truth, and a
probability for each class.
"""

import argparse
import html
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from news_child import CLASSES, News, learn, load_news, pick, split

ROWS = 1000
SHARES = {"learn": 0.6, "validation": 0.1, "holdout": 0.1, "stream": 0.2}
DISHES = ("onion soup", "plum cake", "bean stew", "potato salad", "lemon tart", "rice pudding", "fish pie", "flatbread")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("example", "train", "work"):
        parser.add_argument(name)
    options = parser.parse_args()
    news = load_news(options.train)
    parts = split(news.texts, SHARES, salt="streams")
    found = {name: pick(news, parts == name) for name in SHARES}
    classifier = learn(found["learn"], found["validation"])
    stream = found["stream"]
    first = News(stream.texts[:ROWS], stream.labels[:ROWS])
    streams = {
        "holdout": found["holdout"],
        "control": first,
        "class mix": mixed(stream),
        "two classes swapped": News(first.texts, [swapped(label) for label in first.labels]),
        "html double-escaped": changed(first, lambda text: html.escape(html.escape(f"<p>{text}</p>"))),
        "five words only": changed(first, lambda text: " ".join(text.split()[:5])),
        "lower-cased": changed(first, str.lower),
        "a new topic": with_recipes(first),
    }
    for name, rows in streams.items():
        scores = classifier.probabilities(rows.texts)
        columns = {"text": rows.texts, "truth": rows.labels}
        columns |= {label: scores[:, at].astype(float) for at, label in enumerate(CLASSES)}
        pq.write_table(pa.table(columns), Path(options.work) / f"{name}.parquet")


def changed(news, change):
    return News([change(text) for text in news.texts], news.labels)


def mixed(news):
    """Return a stream with six tenths of sports instead of a quarter."""
    chance, labels = np.random.default_rng(0), np.array(news.labels)
    rows = [
        chance.choice(
            np.flatnonzero(labels == name), round(ROWS * (0.6 if name == "sports" else 0.4 / 3)), replace=False
        )
        for name in CLASSES
    ]
    order = chance.permutation(np.concatenate(rows))[:ROWS]
    return News([news.texts[row] for row in order], [news.labels[row] for row in order])


def swapped(label):
    return {"business": "science", "science": "business"}.get(label, label)


def with_recipes(news):
    """Return a stream in which three tenths are about food, which the classifier has no class for."""
    chance = np.random.default_rng(0)
    texts, labels = list(news.texts), list(news.labels)
    for row in np.flatnonzero(chance.random(len(texts)) < 0.3):
        dish, minutes = DISHES[chance.integers(len(DISHES))], chance.integers(10, 90)
        texts[row] = (
            f"How to make {dish}. Chop what you have, stir it with butter and salt, and bake it for {minutes} minutes; "
            f"serve the {dish} warm with herbs."
        )
        labels[row] = "food"
    return News(texts, labels)


if __name__ == "__main__":
    main()
