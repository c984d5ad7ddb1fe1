"""What both trainings share: options, rows to learn from and rows to stop by, the Lightning trainer, what is logged.

The training file is split once more, by stories, into rows to learn from and rows to stop by; all choices are made on
the latter. A holdout or test file is only measured, at the end.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import lightning
import mlflow
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema
from torch.utils.data import DataLoader

from news.dataset import CLASSES, BadData, News, load_news
from news.report import as_text, class_metrics, confusion
from news.splitting import split

HERE = Path(__file__).resolve().parent
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "text")]),
    outputs=Schema([ColSpec("string", "label"), *(ColSpec("double", name) for name in CLASSES)]),
)
EXAMPLE = pd.DataFrame({"text": ["Goalkeeper saves two penalties in cup final", "Central bank leaves rates unchanged"]})
REQUIREMENTS = ["mlflow==3.17.2", "torch==2.13.0", "safetensors==0.8.0", "numpy", "pandas"]


class Classifier(Protocol):
    """What a training makes: texts in, probabilities out."""

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return probabilities, shape (texts, classes)."""

    def save(self, folder: Path) -> None:
        """Write everything that a served model needs; nothing in it is code."""


@dataclass(frozen=True)
class Rows:
    """The training file's two parts: what is learned from, and what is chosen and stopped by."""

    learn: News
    validation: News


class TextModule(lightning.LightningModule):
    """A network with its loss; batches are (the network's inputs, labels). A training adds its optimizer."""

    smoothing = 0.0

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch, _number):
        inputs, labels = batch
        logits = self.network(*self.disturb(*inputs))
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def disturb(self, *inputs):
        """Return the inputs as training is to see them."""
        return inputs

    def validation_step(self, batch, _number):
        inputs, labels = batch
        logits = self.network(*inputs)
        self.log("validation_loss", torch.nn.functional.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("validation_accuracy", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels))


def parser(description: str, *, epochs: int, patience: int, learning_rate: float, batch_size: int):
    """Return a parser of the options that both trainings have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", default=str(HERE / "data" / "train.parquet"))
    made.add_argument("--test", default="", help="a file to measure at the end, for example the official test file")
    made.add_argument("--rows", type=int, default=0, help="learn from so many rows only")
    made.add_argument("--epochs", type=int, default=epochs)
    made.add_argument("--patience", type=int, default=patience)
    made.add_argument("--learning-rate", type=float, default=learning_rate)
    made.add_argument("--batch-size", type=int, default=batch_size)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--checkpoints", default="", help="a folder; an interrupted training goes on from there")
    return made


def share_out(news: News) -> Rows:
    """Return nine tenths to learn from and a tenth to stop by; no story stands in both.

    Raises:
        BadData: there are too few rows for both.
    """
    parts = split(news.texts, {"learn": 0.9, "validation": 0.1}, salt="validation")
    learn, validation = (pick(news, parts == name) for name in ("learn", "validation"))
    if not len(learn) or not len(validation):
        raise BadData(f"{len(news)} rows are too few to learn from and to validate on.")
    mlflow.log_params({"rows": len(learn), "validation_rows": len(validation)})
    return Rows(learn, validation)


def pick(news: News, mask: np.ndarray) -> News:
    rows = np.flatnonzero(mask)
    return News([news.texts[row] for row in rows], [news.labels[row] for row in rows])


def numbers(news: News) -> np.ndarray:
    """Return the number of each row's class, shape (rows,)."""
    return np.array([CLASSES.index(label) for label in news.labels], dtype=np.int64)


def learn(
    module: TextModule,
    loaders: Sequence[DataLoader],
    options: argparse.Namespace,
    *,
    epochs: int = 0,
    fewest_steps: int = 0,
) -> None:
    """Train on the first loader, stop by the second, and leave the best epoch's weights in the module, on the CPU.

    Args:
        epochs: where it is not what the options say.
        fewest_steps: early stopping waits for them, however few make an epoch.
    """
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = Path(options.checkpoints or scratch)
        last = checkpoints / "last.ckpt"  # where an interrupted training of the same folder stopped
        fitting = trainer(checkpoints, epochs or options.epochs, options.patience, fewest_steps)
        fitting.fit(module, *loaders, ckpt_path=str(last) if last.exists() else None, weights_only=True)
        best = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    module.cpu()


def trainer(checkpoints: Path, epochs: int, patience: int, fewest_steps: int) -> lightning.Trainer:
    """Return a trainer on whatever is there: a GPU with mixed precision, else the CPU."""
    has_gpu = torch.cuda.is_available()
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    return lightning.Trainer(
        max_epochs=epochs,
        min_steps=fewest_steps or None,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if has_gpu and torch.cuda.is_bf16_supported() else "16-mixed" if has_gpu else "32-true",
        callbacks=[
            EarlyStopping("validation_loss", patience=patience),
            ModelCheckpoint(checkpoints, "best", monitor="validation_loss", save_last=True),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def run(
    options: argparse.Namespace,
    fit: Callable[[Rows, argparse.Namespace], Classifier],
    *,
    code: str,
    requirements: Sequence[str] = (),
) -> None:
    """Train, measure and log one classifier in an MLflow run; bad data ends the process with one sentence.

    Args:
        code: the file that is served (models-from-code).
        requirements: what the served model needs beside what all need.
    """
    try:
        news = load_news(options.data, rows=options.rows)
        test = load_news(options.test) if options.test else None
        lightning.seed_everything(options.seed, verbose=False)
        mlflow.pytorch.autolog(log_models=False, checkpoint=False)
        with mlflow.start_run():
            rows = share_out(news)
            began, began_cpu = time.monotonic(), time.process_time()
            classifier = fit(rows, options)
            mlflow.log_metrics({"train_s": time.monotonic() - began, "train_cpu_s": time.process_time() - began_cpu})
            measure(classifier, rows.validation, "validation")
            if test is not None:
                measure(classifier, test, "test")
            log_model(classifier, code, requirements)
    except BadData as problem:
        sys.exit(str(problem))


def measure(classifier: Classifier, news: News, part: str) -> None:
    """Log per-class metrics and the confusion matrix of one part of the data."""
    matrix = confusion(numbers(news), classifier.probabilities(news.texts).argmax(1), len(CLASSES))
    metrics = class_metrics(matrix, CLASSES, prefix=part)
    mlflow.log_metrics(metrics)
    mlflow.log_dict({"classes": list(CLASSES), "matrix": matrix.tolist()}, f"{part}_confusion.json")
    print(f"{part}: accuracy {metrics[f'{part}_accuracy']:.4f}\n{as_text(matrix, CLASSES)}", flush=True)


def log_model(classifier: Classifier, code: str, requirements: Sequence[str]) -> None:
    """Log the classifier as models-from-code: this project's code, and its weights in safetensors."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "classifier"
        classifier.save(folder)
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(HERE / code),
            artifacts={"classifier": str(folder)},
            code_paths=[str(HERE / "news")],
            pip_requirements=[*REQUIREMENTS, *requirements],
            signature=SIGNATURE,
            input_example=EXAMPLE,
        )
