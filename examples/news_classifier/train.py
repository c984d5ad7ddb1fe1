"""Train the n-gram classifier with Lightning and log it to MLflow: minutes on a laptop, seconds on AG News.

The training file is split once more, by stories, into rows to learn from and rows to stop by; all choices are made on
the latter. A holdout or test file is only measured, at the end.
"""

import argparse
import math
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import lightning
import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema
from torch.utils.data import DataLoader

from news.dataset import CLASSES, BadData, News, load_news
from news.lightning import last_checkpoint, load_best, log_report, trainer
from news.network import FACTS, WEIGHTS, Encoded, Facts, NewsClassifier, NewsNetwork, learn_vocabulary
from news.splitting import split

HERE = Path(__file__).resolve().parent
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "text")]),
    outputs=Schema([ColSpec("string", "label"), *(ColSpec("double", name) for name in CLASSES)]),
)
EXAMPLE = pd.DataFrame({"text": ["Goalkeeper saves two penalties in cup final", "Central bank leaves rates unchanged"]})
FEWEST_STEPS = 300
REQUIREMENTS = ["mlflow==3.17.2", "torch==2.13.0", "safetensors==0.8.0", "numpy", "pandas"]


class NewsModule(lightning.LightningModule):
    """The network with its loss, n-gram dropout and optimizer."""

    def __init__(self, network: NewsNetwork, *, learning_rate: float, dropout: float) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network"])
        self.network = network

    def training_step(self, batch, _number):
        ids, offsets, counts, labels = batch
        ids, offsets, counts = drop_out(ids, counts, self.hparams.dropout)
        logits = self.network(ids, offsets, counts)
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch, _number):
        ids, offsets, counts, labels = batch
        logits = self.network(ids, offsets, counts)
        self.log("validation_loss", torch.nn.functional.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("validation_accuracy", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate, fused=True)


def drop_out(ids, counts, share):
    """Leave out each n-gram with a chance of `share`, so that no single word decides."""
    is_kept = torch.rand(len(ids), device=ids.device) >= share
    rows = torch.repeat_interleave(torch.arange(len(counts), device=ids.device), counts)
    counts = torch.zeros_like(counts).index_add_(0, rows, is_kept.long())
    return ids[is_kept], torch.cumsum(counts, 0) - counts, counts


def collate(encoded: Encoded, labels: np.ndarray, rows: list[int]):
    """Return some rows as tensors: ids, offsets, counts, labels."""
    taken = encoded.take(np.asarray(rows))
    return tuple(torch.from_numpy(part) for part in (taken.ids, taken.offsets, taken.counts, labels[rows]))


def numbers(news: News) -> np.ndarray:
    return np.array([CLASSES.index(label) for label in news.labels], dtype=np.int64)


def fit(news: News, options: argparse.Namespace) -> tuple[NewsClassifier, News]:
    """Return a trained classifier and the validation rows that it was chosen by."""
    parts = split(news.texts, {"learn": 0.9, "validation": 0.1}, salt="validation")
    learn, validation = (pick(news, parts == name) for name in ("learn", "validation"))
    if not len(learn) or not len(validation):
        raise BadData(f"{len(news)} rows are too few to learn from and to validate on.")
    vocabulary = learn_vocabulary(learn.texts)
    network = NewsNetwork(len(vocabulary.hashes), len(CLASSES), dim=options.dim)
    network.rarity.copy_(torch.from_numpy(vocabulary.rarity))
    loaders = [
        DataLoader(
            range(len(part)),
            batch_size=size,
            shuffle=part is learn,
            collate_fn=partial(collate, vocabulary.encode(part.texts), numbers(part)),
        )
        for part, size in ((learn, options.batch_size), (validation, 1024))
    ]
    module = NewsModule(network, learning_rate=options.learning_rate, dropout=options.dropout)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = Path(options.checkpoints or scratch)
        # A small file has few steps in an epoch, and some hundreds are needed to learn anything.
        epochs = max(options.epochs, math.ceil(FEWEST_STEPS / len(loaders[0])))
        trainer(checkpoints, epochs=epochs, patience=options.patience, fewest_steps=FEWEST_STEPS).fit(
            module, *loaders, ckpt_path=last_checkpoint(checkpoints), weights_only=True
        )
        load_best(module, checkpoints)
    mlflow.log_params({"rows": len(learn), "validation_rows": len(validation), "vocabulary": len(vocabulary.hashes)})
    return NewsClassifier(vocabulary, network.cpu(), Facts(CLASSES, options.dim)), validation


def pick(news: News, mask: np.ndarray) -> News:
    rows = np.flatnonzero(mask)
    return News([news.texts[row] for row in rows], [news.labels[row] for row in rows])


def measure(classifier: NewsClassifier, news: News, part: str) -> None:
    answers = np.concatenate(
        [classifier.probabilities(news.texts[at : at + 1024]).argmax(1) for at in range(0, len(news), 1024)]
    )
    log_report(numbers(news), answers, CLASSES, part=part)


def log_model(classifier: NewsClassifier) -> None:
    """Log the classifier as models-from-code: this project's code, and its weights in safetensors."""
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder))
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(HERE / "model.py"),
            artifacts={"weights": f"{folder}/{WEIGHTS}", "facts": f"{folder}/{FACTS}"},
            code_paths=[str(HERE / "news")],
            pip_requirements=REQUIREMENTS,
            signature=SIGNATURE,
            input_example=EXAMPLE,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(HERE / "data" / "train.parquet"))
    parser.add_argument("--test", default="", help="a file to measure at the end, for example the official test file")
    parser.add_argument("--rows", type=int, default=0, help="learn from so many rows only")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--patience", type=int, default=2)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", default="", help="a folder; an interrupted training goes on from there")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    news = load_news(options.data, rows=options.rows)
    test = load_news(options.test) if options.test else None
    lightning.seed_everything(options.seed, verbose=False)
    torch.set_num_threads(1)  # small batches: a second thread costs more than it gives
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    with mlflow.start_run():
        began = time.process_time()
        classifier, validation = fit(news, options)
        mlflow.log_metric("train_cpu_s", time.process_time() - began)
        measure(classifier, validation, "validation")
        if test is not None:
            measure(classifier, test, "test")
        log_model(classifier)


if __name__ == "__main__":
    try:
        main()
    except BadData as problem:
        sys.exit(str(problem))
