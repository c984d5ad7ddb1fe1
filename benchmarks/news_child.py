"""Runs in the news component's own environment: three ways to learn the same rows, measured on the same test rows.

    python news_child.py EXAMPLE_FOLDER TRAIN TEST ROWS WORK_FOLDER [ENCODER]

Prints one JSON line. The Lightning training is the example's own script, as `mlflow run` would start it.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

EXAMPLE = Path(sys.argv[1])
sys.path.insert(0, str(EXAMPLE))
torch.set_num_threads(1)

from news.dataset import CLASSES, News, load_news  # noqa: E402
from news.hashing import KINDS, bags  # noqa: E402
from news.network import Facts, NewsClassifier, NewsNetwork, learn_vocabulary  # noqa: E402
from news.splitting import split  # noqa: E402


def tfidf_svc(learned, test):
    """TF-IDF and a linear support vector machine, as scikit-learn gives them."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    began = time.process_time()
    vectors, machine = TfidfVectorizer(), LinearSVC(random_state=0)
    machine.fit(vectors.fit_transform(learned.texts), class_numbers(learned))
    train_cpu = time.process_time() - began
    began = time.perf_counter()
    accuracy = float(np.mean(machine.predict(vectors.transform(test.texts)) == class_numbers(test)))
    return {"accuracy": accuracy, "train_cpu_s": train_cpu, "texts_per_s": len(test) / (time.perf_counter() - began)}


@dataclass(frozen=True)
class How:
    """How the network is learned; the defaults are those of the example's train.py."""

    kinds: tuple = KINDS
    fewest_texts: int = 2
    dim: int = 32
    learning_rate: float = 0.0025
    dropout: float = 0.5
    epochs: int = 8
    patience: int = 2


def learn(learned, held, how=How()):
    """Return the example's own network, learned in a bare PyTorch loop without Lightning or tracking."""
    torch.manual_seed(0)
    vocabulary = learn_vocabulary(learned.texts, fewest_texts=how.fewest_texts, kinds=how.kinds)
    network = NewsNetwork(len(vocabulary.hashes), len(CLASSES), dim=how.dim)
    network.rarity.copy_(torch.from_numpy(vocabulary.rarity))
    optimizer = torch.optim.Adam(network.parameters(), lr=how.learning_rate, fused=True)
    labels, truth = class_numbers(learned), torch.from_numpy(class_numbers(held))
    encoded, judged = vocabulary.encode(learned.texts), vocabulary.encode(held.texts)
    rng, best, since, kept = np.random.default_rng(0), np.inf, 0, None
    for _ in range(how.epochs):
        network.train()
        order = rng.permutation(len(learned))
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            part = encoded.take(rows)
            keep = rng.random(len(part.ids)) >= how.dropout
            counts = np.bincount(np.repeat(np.arange(len(rows)), part.counts)[keep], minlength=len(rows))
            tensors = [torch.from_numpy(x) for x in (part.ids[keep], np.cumsum(counts) - counts, counts)]
            loss = torch.nn.functional.cross_entropy(
                network(*tensors), torch.from_numpy(labels[rows]), label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            logits = network(*(torch.from_numpy(x) for x in (judged.ids, judged.offsets, judged.counts)))
            value = float(torch.nn.functional.cross_entropy(logits, truth))
        if value < best:
            best, since, kept = value, 0, {name: tensor.clone() for name, tensor in network.state_dict().items()}
        else:
            since += 1
            if since >= how.patience:
                break
    network.load_state_dict(kept)
    return NewsClassifier(vocabulary, network, Facts(CLASSES, how.dim))


def plain_loop(learned, held, test):
    """What Lightning and tracking cost: the same network and rows without them."""
    began = time.process_time()
    classifier = learn(learned, held)
    train_cpu = time.process_time() - began
    began = time.perf_counter()
    answer = classifier.probabilities(test.texts).argmax(1)
    seconds = time.perf_counter() - began
    return {
        "accuracy": float(np.mean(answer == class_numbers(test))),
        "train_cpu_s": train_cpu,
        "texts_per_s": len(test) / seconds,
        "tokens_per_s": int(bags(test.texts).counts.sum()) / seconds,
    }


def script(name, work, *options):
    """Run one of the example's training scripts, and return the metrics it logged and the folder of its model."""
    place = work / f"{name}-{len(list(work.iterdir()))}"
    place.mkdir()
    store = place / "mlflow.db"
    env = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, EXAMPLE / f"{name}.py", *map(str, options)], cwd=place, env=env, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    with sqlite3.connect(store) as connection:
        found = dict(connection.execute("select key, value from metrics order by timestamp, step").fetchall())
    (model,) = (path.parent for path in place.rglob("MLmodel"))
    return found | {"whole_run_s": time.perf_counter() - began, "model": str(model)}


def tested(found):
    """Return what is shown of a script's run."""
    shown = {"accuracy": found["test_accuracy"], "validation_accuracy": found["validation_accuracy"]}
    return shown | {name: found[name] for name in ("train_s", "train_cpu_s", "whole_run_s", "model")}


def pick(news, mask):
    rows = np.flatnonzero(mask)
    return News([news.texts[row] for row in rows], [news.labels[row] for row in rows])


def class_numbers(news):
    return np.array([CLASSES.index(label) for label in news.labels])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("example", "train", "test", "rows", "work"):
        parser.add_argument(name)
    parser.add_argument("encoder", nargs="?", default="")
    options = parser.parse_args()
    work = Path(options.work)
    news, test = load_news(options.train, rows=int(options.rows)), load_news(options.test)
    parts = split(news.texts, {"learn": 0.9, "validation": 0.1}, salt="validation")
    learned, held = (pick(news, parts == name) for name in ("learn", "validation"))
    shared = ("--data", options.train, "--test", options.test, "--rows", options.rows)
    found = {
        # The machine learns from the validation rows too: it makes no choices that would need them.
        "tfidf_svc": tfidf_svc(news, test),
        "main": tested(script("train", work, *shared)),
    }
    if options.encoder:
        found["transformer"] = tested(script("transformer", work, *shared, "--encoder", options.encoder))
    else:
        found["plain_loop"] = plain_loop(learned, held, test)
    for row in found.values():
        row |= {"rows": len(news), "test_rows": len(test)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
