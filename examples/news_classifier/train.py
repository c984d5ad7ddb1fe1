"""Train the n-gram classifier with Lightning and log it to MLflow: minutes on a laptop, seconds on AG News."""

import argparse
import math
from functools import partial

import mlflow
import numpy as np
import torch
from torch.utils.data import DataLoader

from news.dataset import CLASSES
from news.network import Encoded, Facts, NewsClassifier, NewsNetwork, learn_vocabulary
from training import Rows, TextModule, learn, numbers, parser, run

FEWEST_STEPS = 300


class NewsModule(TextModule):
    """The network with n-gram dropout."""

    smoothing = 0.1

    def __init__(self, network: NewsNetwork, *, learning_rate: float, dropout: float) -> None:
        super().__init__(network)
        self.save_hyperparameters(ignore=["network"])

    def disturb(self, ids, offsets, counts):
        """Leave out each n-gram with a chance of `dropout`, so that no single word decides."""
        is_kept = torch.rand(len(ids), device=ids.device) >= self.hparams.dropout
        rows = torch.repeat_interleave(torch.arange(len(counts), device=ids.device), counts)
        counts = torch.zeros_like(counts).index_add_(0, rows, is_kept.long())
        return ids[is_kept], torch.cumsum(counts, 0) - counts, counts

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate, fused=True)


def collate(encoded: Encoded, labels: np.ndarray, rows: list[int]):
    """Return some rows as tensors: (ids, offsets, counts), labels."""
    taken = encoded.take(np.asarray(rows))
    return tuple(map(torch.from_numpy, (taken.ids, taken.offsets, taken.counts))), torch.from_numpy(labels[rows])


def fit(rows: Rows, options: argparse.Namespace) -> NewsClassifier:
    """Return a trained classifier."""
    vocabulary = learn_vocabulary(rows.learn.texts)
    network = NewsNetwork(len(vocabulary.hashes), len(CLASSES), dim=options.dim)
    network.rarity.copy_(torch.from_numpy(vocabulary.rarity))
    loaders = [
        DataLoader(
            range(len(part)),
            batch_size=size,
            shuffle=part is rows.learn,
            collate_fn=partial(collate, vocabulary.encode(part.texts), numbers(part)),
        )
        for part, size in ((rows.learn, options.batch_size), (rows.validation, 1024))
    ]
    module = NewsModule(network, learning_rate=options.learning_rate, dropout=options.dropout)
    # A small file has few steps in an epoch, and some hundreds are needed to learn anything.
    epochs = max(options.epochs, math.ceil(FEWEST_STEPS / len(loaders[0])))
    learn(module, loaders, options, epochs=epochs, fewest_steps=FEWEST_STEPS)
    mlflow.log_param("vocabulary", len(vocabulary.hashes))
    return NewsClassifier(vocabulary, network, Facts(CLASSES, options.dim))


def arguments() -> argparse.Namespace:
    made = parser(__doc__, epochs=8, patience=2, learning_rate=0.0025, batch_size=64)
    made.add_argument("--dim", type=int, default=32)
    made.add_argument("--dropout", type=float, default=0.5)
    return made.parse_args()


if __name__ == "__main__":
    torch.set_num_threads(1)  # small batches: a second thread costs more than it gives
    run(arguments(), fit, code="model.py")
