"""Fine-tune a BERT-family encoder with Lightning and log it to MLflow: on a GPU where there is one.

Give `--encoder` a local folder or a hub name. The split is the one of train.py, so both are chosen by the same rows.
"""

import argparse
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import torch
from torch.utils.data import DataLoader

from news.dataset import CLASSES, News
from news.encoder import EncoderClassifier, pretrained, tokenize
from training import Rows, TextModule, learn, numbers, parser, run


class EncoderModule(TextModule):
    """The network with its optimizer; the new layer learns faster than the encoder."""

    def __init__(self, network, *, learning_rate: float, steps: int) -> None:
        super().__init__(network)
        self.save_hyperparameters(ignore=["network"])

    def configure_optimizers(self):
        rate, steps = self.hparams.learning_rate, self.hparams.steps
        groups = [
            {"params": self.network.encoder.parameters(), "lr": rate},
            {"params": self.network.answer.parameters(), "lr": rate * 20},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (0.1 * steps + 1), max(0.0, 1 - step / steps))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def collate(tokenizer, news: News, labels: np.ndarray, longest: int, rows: list[int]):
    """Return some rows as tensors: (token numbers, mask), labels."""
    tokens = tokenize(tokenizer, [news.texts[row] for row in rows], longest)
    return (tokens["input_ids"], tokens["attention_mask"]), torch.from_numpy(labels[rows])


def fit(rows: Rows, options: argparse.Namespace) -> EncoderClassifier:
    """Return a fine-tuned classifier."""
    tokenizer, network = pretrained(options.encoder, len(CLASSES))
    loaders = [
        DataLoader(
            range(len(part)),
            batch_size=size,
            shuffle=part is rows.learn,
            collate_fn=partial(collate, tokenizer, part, numbers(part), options.longest),
        )
        for part, size in ((rows.learn, options.batch_size), (rows.validation, 64))
    ]
    steps = max(1, options.epochs * len(loaders[0]))
    module = EncoderModule(network, learning_rate=options.learning_rate, steps=steps)
    learn(module, loaders, options)
    classifier = EncoderClassifier(tokenizer, network, CLASSES, options.longest)
    mlflow.log_param("encoder_name", Path(options.encoder).name)
    mlflow.set_tag("device", classifier.device.type)
    return classifier


def arguments() -> argparse.Namespace:
    made = parser(__doc__, epochs=2, patience=1, learning_rate=5e-5, batch_size=16)
    made.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    made.add_argument("--longest", type=int, default=64, help="tokens of a text that are read")
    return made.parse_args()


if __name__ == "__main__":
    run(arguments(), fit, code="transformer_model.py", requirements=["transformers==5.23.0"])
