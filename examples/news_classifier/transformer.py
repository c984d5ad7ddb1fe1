"""Fine-tune a BERT-family encoder with Lightning and log it to MLflow: on a GPU where there is one.

Give `--encoder` a local folder or a hub name. The split is the one of train.py, so both are chosen by the same rows.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import lightning
import mlflow
import numpy as np
import torch
from torch.utils.data import DataLoader

from news.dataset import CLASSES, BadData, News, load_news
from news.encoder import EncoderClassifier, pretrained, tokenize
from news.lightning import last_checkpoint, load_best, log_report, trainer
from news.splitting import split
from train import EXAMPLE, REQUIREMENTS, SIGNATURE, numbers, pick

HERE = Path(__file__).resolve().parent


class EncoderModule(lightning.LightningModule):
    """The network with its loss and optimizer; the new layer learns faster than the encoder."""

    def __init__(self, network, *, learning_rate: float, steps: int) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network"])
        self.network = network

    def training_step(self, batch, _number):
        tokens, labels = batch
        loss = torch.nn.functional.cross_entropy(self.network(tokens["input_ids"], tokens["attention_mask"]), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch, _number):
        tokens, labels = batch
        logits = self.network(tokens["input_ids"], tokens["attention_mask"])
        self.log("validation_loss", torch.nn.functional.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("validation_accuracy", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels))

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
    return tokenize(tokenizer, [news.texts[row] for row in rows], longest), torch.from_numpy(labels[rows])


def fit(news: News, options: argparse.Namespace) -> tuple[EncoderClassifier, News]:
    """Return a fine-tuned classifier and the validation rows that it was chosen by."""
    parts = split(news.texts, {"learn": 0.9, "validation": 0.1}, salt="validation")
    learn, validation = (pick(news, parts == name) for name in ("learn", "validation"))
    if not len(learn) or not len(validation):
        raise BadData(f"{len(news)} rows are too few to learn from and to validate on.")
    tokenizer, network = pretrained(options.encoder, len(CLASSES))
    loaders = [
        DataLoader(
            range(len(part)),
            batch_size=size,
            shuffle=part is learn,
            collate_fn=partial(collate, tokenizer, part, numbers(part), options.longest),
        )
        for part, size in ((learn, options.batch_size), (validation, 64))
    ]
    module = EncoderModule(
        network, learning_rate=options.learning_rate, steps=max(1, options.epochs * len(loaders[0]))
    )
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = Path(options.checkpoints or scratch)
        trainer(checkpoints, epochs=options.epochs, patience=options.patience).fit(
            module, *loaders, ckpt_path=last_checkpoint(checkpoints), weights_only=True
        )
        load_best(module, checkpoints)
    mlflow.log_params({"rows": len(learn), "validation_rows": len(validation), "encoder": Path(options.encoder).name})
    return EncoderClassifier(tokenizer, network, CLASSES, options.longest), validation


def measure(classifier: EncoderClassifier, news: News, part: str) -> None:
    log_report(numbers(news), classifier.probabilities(news.texts).argmax(1), CLASSES, part=part)


def log_model(classifier: EncoderClassifier) -> None:
    """Log the classifier as models-from-code: this project's code, and its weights in safetensors."""
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder))
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(HERE / "transformer_model.py"),
            artifacts={"encoder": folder},
            code_paths=[str(HERE / "news")],
            pip_requirements=[*REQUIREMENTS, "transformers==5.23.0"],
            signature=SIGNATURE,
            input_example=EXAMPLE,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(HERE / "data" / "train.parquet"))
    parser.add_argument("--test", default="", help="a file to measure at the end, for example the official test file")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--rows", type=int, default=0, help="learn from so many rows only")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--patience", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--longest", type=int, default=64, help="tokens of a text that are read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", default="", help="a folder; an interrupted training goes on from there")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    news = load_news(options.data, rows=options.rows)
    test = load_news(options.test) if options.test else None
    lightning.seed_everything(options.seed, verbose=False)
    mlflow.pytorch.autolog(log_models=False, checkpoint=False)
    with mlflow.start_run():
        began, began_cpu = time.monotonic(), time.process_time()
        classifier, validation = fit(news, options)
        mlflow.log_metrics({"train_s": time.monotonic() - began, "train_cpu_s": time.process_time() - began_cpu})
        mlflow.set_tag("device", classifier.device.type)
        measure(classifier, validation, "validation")
        if test is not None:
            measure(classifier, test, "test")
        log_model(classifier)


if __name__ == "__main__":
    try:
        main()
    except BadData as problem:
        sys.exit(str(problem))
