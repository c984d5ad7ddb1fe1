"""What both trainings share: the Lightning trainer with early stopping, checkpoints, resume and tracking."""

import warnings
from pathlib import Path

import lightning
import mlflow
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from news.report import as_text, class_metrics, confusion


def trainer(checkpoints: Path, *, epochs: int, patience: int, fewest_steps: int = 0) -> lightning.Trainer:
    """Return a trainer on whatever is there: a GPU with mixed precision, else the CPU.

    Args:
        fewest_steps: early stopping waits for them, however few make an epoch.
    """
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


def last_checkpoint(checkpoints: Path) -> str | None:
    """Return where an interrupted training of the same checkpoint folder stopped, if it did."""
    last = checkpoints / "last.ckpt"
    return str(last) if last.exists() else None


def load_best(module: lightning.LightningModule, checkpoints: Path) -> None:
    """Put the weights of the best epoch into the module; tensors only, no pickled objects are loaded."""
    best = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])


def log_report(truth: np.ndarray, answer: np.ndarray, classes: tuple[str, ...], *, part: str) -> dict[str, float]:
    """Log per-class metrics and the confusion matrix of one part of the data; return the metrics."""
    matrix = confusion(truth, answer, len(classes))
    metrics = class_metrics(matrix, classes, prefix=part)
    mlflow.log_metrics(metrics)
    mlflow.log_dict({"classes": list(classes), "matrix": matrix.tolist()}, f"{part}_confusion.json")
    print(f"{part}: accuracy {metrics[f'{part}_accuracy']:.4f}\n{as_text(matrix, classes)}", flush=True)
    return metrics
