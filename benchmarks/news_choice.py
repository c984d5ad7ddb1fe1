"""Runs in the news component's own environment: its settings, chosen on validation rows alone; no test file is read.

    python news_choice.py EXAMPLE_FOLDER TRAIN ROWS WORK_FOLDER [ENCODER]

Prints one JSON line. The n-gram classifier is judged by cross-validation over stories, features first, then how they
are learned; the transformer by the rows that its own training stops by.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from news_child import How, class_numbers, learn, load_news, pick, script, split

KINDS = (("word",), ("word", "pair"), ("word", "stem"), ("word", "stem", "pair"))
FEWEST_TEXTS = (1, 2)
DROPOUTS = (0.3, 0.5, 0.7)
LEARNING_RATES = (0.0025, 0.005)
FOLDS = 3
TRANSFORMER_RATES = (5e-5, 1e-4)
TRANSFORMER_EPOCHS = 2


def judged(news, folds, **settings):
    """Return the mean validation accuracy of some settings, and its error: each row is judged once."""
    right, vocabularies = np.zeros(len(news)), []
    for fold in np.unique(folds):
        held = pick(news, folds == fold)
        classifier = learn(pick(news, folds != fold), held, How(**settings))
        vocabularies.append(len(classifier.vocabulary.hashes))
        right[folds == fold] = classifier.probabilities(held.texts).argmax(1) == class_numbers(held)
    print(settings, round(right.mean(), 4), file=sys.stderr, flush=True)
    found = {"validation_accuracy": float(right.mean()), "standard_error": float(right.std() / np.sqrt(len(right)))}
    return {"what": "main", **settings, **found, "vocabulary": round(float(np.mean(vocabularies)))}


def best(rows):
    """Return the best settings; of those within a tenth of a standard error, the ones with the fewest n-grams."""
    top = max(rows, key=lambda row: row["validation_accuracy"])
    least = top["validation_accuracy"] - top["standard_error"] / 10
    good = [row for row in rows if row["validation_accuracy"] >= least]
    return min(good, key=lambda row: (row["vocabulary"], -row["validation_accuracy"]))


def choose_main(news):
    """Return one row for each of the settings tried, and the best as the last; the second round keeps the features."""
    folds = split(news.texts, {str(fold): 1 / FOLDS for fold in range(FOLDS)}, salt="choice")
    features = [
        judged(news, folds, kinds=kinds, fewest_texts=fewest)
        for kinds, fewest in itertools.product(KINDS, FEWEST_TEXTS)
    ]
    won = {name: best(features)[name] for name in ("kinds", "fewest_texts")}
    learning = [
        judged(news, folds, **won, dropout=dropout, learning_rate=rate)
        for dropout, rate in itertools.product(DROPOUTS, LEARNING_RATES)
    ]
    return [*features, *learning, best(learning) | {"what": "chosen"}]


def choose_transformer(options):
    """Return one row for each learning rate, after the epoch that validation liked best."""
    rows = []
    for rate in TRANSFORMER_RATES:
        found = script(
            "transformer", Path(options.work), "--data", options.train, "--rows", options.rows or 0,
            "--encoder", options.encoder, "--learning-rate", rate, "--epochs", TRANSFORMER_EPOCHS,
        )  # fmt: skip
        shown = {name: found[name] for name in ("validation_accuracy", "train_s", "train_cpu_s")}
        rows.append({"what": "transformer", "learning_rate": rate, "epochs": TRANSFORMER_EPOCHS, **shown})
        print(rows[-1], file=sys.stderr, flush=True)
    return [*rows, max(rows, key=lambda row: row["validation_accuracy"]) | {"what": "chosen"}]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("example", "train", "rows", "work"):
        parser.add_argument(name)
    parser.add_argument("encoder", nargs="?", default="")
    options = parser.parse_args()
    if options.encoder:
        print(json.dumps(choose_transformer(options)))
    else:
        print(json.dumps(choose_main(load_news(options.train, rows=int(options.rows)))))


if __name__ == "__main__":
    main()
