"""Train a small convolutional network on handwritten digits and log it with MLflow."""

import argparse
import hashlib
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import torch
from mlflow.models import infer_signature
from torch import nn

BATCH = 32
VALIDATION_SHARE = 0.1


class DigitNet(nn.Module):
    """Probabilities of the ten digits from 8x8 pixels, given as rows of 64 numbers from 0 to 16."""

    def __init__(self, channels: int = 32):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
        )
        self.classifier = nn.Linear(channels * 64, 10)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        images = (pixels / 16.0).reshape(-1, 1, 8, 8)
        return self.classifier(self.features(images))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.logits(pixels), dim=1)


def load(path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pixels (n, 64), labels (n,) and weights (n,); without a `weight` column every row counts the same."""
    table = pq.read_table(path)
    pixels = np.array(table["pixels"].to_pylist(), dtype=np.float32)
    labels = table["label"].to_numpy().astype(np.int64)
    has_weights = "weight" in table.column_names
    weights = table["weight"].to_numpy().astype(np.float32) if has_weights else np.ones(len(labels), np.float32)
    return torch.from_numpy(pixels), torch.from_numpy(labels), torch.from_numpy(weights)


def accuracy(model: DigitNet, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (model.logits(pixels).argmax(dim=1) == labels).float().mean().item()


def fit(pixels, labels, weights, *, epochs: int, learning_rate: float, seed: int, log=lambda metrics, step: None):
    """Return a trained network; the same arguments give the same weights on the same kind of CPU."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # enough for a model of this size, and the sums come out in the same order
    torch.use_deterministic_algorithms(True)
    order = torch.randperm(len(labels))
    held_out, used = order[: int(len(order) * VALIDATION_SHARE)], order[int(len(order) * VALIDATION_SHARE) :]

    model = DigitNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)
    # A rate that ends at nothing: the last batches then no longer decide how good the model comes out.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for batch in used[torch.randperm(len(used))].split(BATCH):
            losses = nn.functional.cross_entropy(model.logits(pixels[batch]), labels[batch], reduction="none")
            loss = (losses * weights[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        metrics = {
            "train_loss": total / len(used),
            "validation_accuracy": accuracy(model, pixels[held_out], labels[held_out]),
        }
        log(metrics, epoch)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-data", type=Path, default=Path("data/train.parquet"))
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=float, default=7)
    args = parser.parse_args()

    pixels, labels, weights = load(args.train_data)
    with mlflow.start_run():
        digest = hashlib.sha256(args.train_data.read_bytes()).hexdigest()
        dataset = mlflow.data.from_numpy(
            pixels.numpy(), source=str(args.train_data), targets=labels.numpy(), name="digits-train", digest=digest[:32]
        )
        mlflow.log_input(dataset, context="training")

        model = fit(
            pixels,
            labels,
            weights,
            epochs=int(args.epochs),
            learning_rate=args.learning_rate,
            seed=int(args.seed),
            log=lambda metrics, step: mlflow.log_metrics(metrics, step=step),
        )

        example = pixels[:4].numpy()  # more than one row, so that the exported model takes any number of rows
        with torch.no_grad():
            signature = infer_signature(example, model(pixels[:4]).numpy())
        mlflow.pytorch.log_model(
            model,
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "numpy")],
        )


if __name__ == "__main__":
    main()
