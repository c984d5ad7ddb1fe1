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
from pathlib import Path

import numpy as np
import torch

EXAMPLE = Path(sys.argv[1])
sys.path.insert(0, str(EXAMPLE))
torch.set_num_threads(1)

from news.dataset import CLASSES, load_news  # noqa: E402
from news.hashing import bags  # noqa: E402
from news.network import NewsNetwork, learn_vocabulary  # noqa: E402
from news.splitting import split  # noqa: E402


def tfidf_svc(texts, labels, test, truth):
    """TF-IDF and a linear support vector machine, as scikit-learn gives them."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    began = time.process_time()
    vectors, machine = TfidfVectorizer(), LinearSVC(random_state=0)
    machine.fit(vectors.fit_transform(texts), labels)
    train_cpu = time.process_time() - began
    began = time.perf_counter()
    accuracy = float(np.mean(machine.predict(vectors.transform(test)) == truth))
    return {"accuracy": accuracy, "train_cpu_s": train_cpu, "texts_per_s": len(test) / (time.perf_counter() - began)}


def plain_loop(texts, labels, validation, validation_labels, test, truth, *, epochs=8, patience=2):
    """The example's own network in a bare PyTorch loop, without Lightning or tracking."""
    torch.manual_seed(0)
    began = time.process_time()
    vocabulary = learn_vocabulary(texts)
    network = NewsNetwork(len(vocabulary.hashes), len(CLASSES))
    network.rarity.copy_(torch.from_numpy(vocabulary.rarity))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005, fused=True)
    encoded, held = vocabulary.encode(texts), vocabulary.encode(validation)
    rng, best, since, kept = np.random.default_rng(0), np.inf, 0, None
    for _ in range(epochs):
        network.train()
        order = rng.permutation(len(texts))
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            part = encoded.take(rows)
            keep = rng.random(len(part.ids)) >= 0.5
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
            logits = network(*(torch.from_numpy(x) for x in (held.ids, held.offsets, held.counts)))
            value = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(validation_labels)))
        if value < best:
            best, since, kept = value, 0, {name: tensor.clone() for name, tensor in network.state_dict().items()}
        else:
            since += 1
            if since >= patience:
                break
    train_cpu = time.process_time() - began
    network.load_state_dict(kept)
    began = time.perf_counter()
    found = vocabulary.encode(test)
    with torch.inference_mode():
        answer = network(*(torch.from_numpy(x) for x in (found.ids, found.offsets, found.counts))).argmax(1).numpy()
    seconds = time.perf_counter() - began
    tokens = int(bags(test).counts.sum())
    return {
        "accuracy": float(np.mean(answer == truth)),
        "train_cpu_s": train_cpu,
        "texts_per_s": len(test) / seconds,
        "tokens_per_s": tokens / seconds,
    }


def script(name, work, *options):
    """Run one of the example's training scripts, and return what it logged."""
    store = work / f"{name}.db"
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{store}", "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, EXAMPLE / f"{name}.py", *options],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    with sqlite3.connect(store) as connection:
        found = dict(connection.execute("select key, value from metrics").fetchall())
    model = max(work.rglob("MLmodel"), key=lambda path: path.stat().st_mtime).parent
    row = {"accuracy": found["test_accuracy"], "train_cpu_s": found["train_cpu_s"]}
    return row | {"whole_run_s": time.perf_counter() - began, "model": str(model)}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("example", "train", "test", "rows", "work"):
        parser.add_argument(name)
    parser.add_argument("encoder", nargs="?", default="")
    options = parser.parse_args()
    work = Path(options.work)
    news, test = load_news(options.train, rows=int(options.rows)), load_news(options.test)
    labels = np.array([CLASSES.index(label) for label in news.labels])
    truth = np.array([CLASSES.index(label) for label in test.labels])
    is_held = split(news.texts, {"learn": 0.9, "validation": 0.1}, salt="validation") == "validation"
    pick = [np.flatnonzero(~is_held), np.flatnonzero(is_held)]
    learn, held = ([news.texts[row] for row in rows] for rows in pick)
    shared = ("--data", options.train, "--test", options.test, "--rows", options.rows)
    found = {
        # The machine learns from the validation rows too: it makes no choices that would need them.
        "tfidf_svc": tfidf_svc(news.texts, labels, test.texts, truth),
        "plain_loop": plain_loop(learn, labels[pick[0]], held, labels[pick[1]], test.texts, truth),
        "main": script("train", work, *shared),
    }
    if options.encoder:
        found["transformer"] = script("transformer", work, *shared, "--encoder", options.encoder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
