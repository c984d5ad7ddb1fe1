"""The models that the serving benchmark serves, for all servers alike. Runs in a component's environment.

`mlp`: 30 numbers to 3 classes. `bag`: a text's hashed words and pairs, 4 classes. `encoder`: a transformer of MiniLM's
size over hashed words. Weights are random, of a fixed seed; what is compared is the serving, not the answers' worth.
"""

import sys
import time
from pathlib import Path

import numpy as np

BUCKETS, WORDS = 1 << 16, 30_522


def hashed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return all words of all texts as hashes, and how many each text has; vectorised, no loop over words."""
    import pandas as pd

    lengths = np.array([text.count(" ") + 1 for text in texts])
    return pd.util.hash_array(np.array(" ".join(texts).split(" "), dtype=object), categorize=False), lengths


def load(kind: str, folder: str):
    """Return a function from rows (arrays or texts) to an array of answers."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = {"mlp": mlp, "bag": bag, "encoder": encoder}[kind]()
    saved = np.load(Path(folder) / f"{kind}.npz")
    model.load_state_dict({name: torch.from_numpy(saved[name]) for name in saved.files})
    model.eval()
    rows = {"mlp": torch.from_numpy, "bag": bag_rows, "encoder": encoder_rows}[kind]

    def predict(given):
        with torch.inference_mode():
            found = rows(given)
            return (model(*found) if isinstance(found, tuple) else model(found)).numpy()

    return predict


def mlp():
    from torch import nn

    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))


def bag():
    from torch import nn

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(BUCKETS, 64, mode="mean")
            self.out = nn.Linear(64, 4)

        def forward(self, tokens, offsets):
            return self.out(self.table(tokens, offsets)).softmax(-1)

    return Bag()


def bag_rows(texts):
    import torch

    words, lengths = hashed(texts)
    ends = np.cumsum(lengths)
    pairs = words[:-1] * np.uint64(31) + words[1:]
    inside = np.ones(len(words), bool)
    inside[ends - 1] = False  # A pair does not reach into the next text.
    both = np.concatenate([words, pairs[inside[:-1]]]) % np.uint64(BUCKETS)
    texts_of = np.repeat(np.arange(len(lengths)), lengths)
    owner = np.concatenate([texts_of, texts_of[:-1][inside[:-1]]])
    order = np.argsort(owner, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(lengths)))[:-1]])
    return torch.from_numpy(both[order].astype("int64")), torch.from_numpy(offsets)


def encoder():
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(WORDS, 384, padding_idx=0)
            layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True, activation="gelu")
            self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
            self.out = nn.Linear(384, 4)

        def forward(self, tokens):
            padding = tokens == 0
            found = self.layers(self.words(tokens), src_key_padding_mask=padding)
            kept = (~padding).unsqueeze(-1)
            return self.out((found * kept).sum(1) / kept.sum(1)).softmax(-1)

    return Encoder()


def encoder_rows(texts):
    import torch

    words, lengths = hashed(texts)
    tokens = np.zeros((len(texts), int(lengths.max())), "int64")
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = (words % np.uint64(WORDS - 1)).astype("int64") + 1
    return torch.from_numpy(tokens)


TEXT_MODEL = """
import mlflow
import workloads

class Texts(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.rows = workloads.load("KIND", context.artifacts["weights"])

    def predict(self, context, model_input, params=None):
        return self.rows(model_input["text"].tolist())

mlflow.models.set_model(Texts())
"""


def save(folder: Path) -> None:
    """Write the weights, and an MLflow model of each kind."""
    import mlflow
    import pandas as pd
    import torch
    from mlflow.models import infer_signature

    torch.manual_seed(0)
    for kind, make in (("mlp", mlp), ("bag", bag), ("encoder", encoder)):
        model = make().eval()
        weights = folder / f"{kind}-weights"
        weights.mkdir()
        np.savez(weights / f"{kind}.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
        requirements = ["torch==2.13.0"]
        if kind == "mlp":
            rows = np.zeros((4, 30), "float32")
            mlflow.pytorch.save_model(
                model, folder / kind, input_example=rows, pip_requirements=requirements,
                signature=infer_signature(rows, model(torch.from_numpy(rows)).detach().numpy()),
            )  # fmt: skip
            continue
        code = folder / f"{kind}_model.py"
        code.write_text(TEXT_MODEL.replace("KIND", kind))
        texts = pd.DataFrame({"text": ["one short text", "another text that is a little longer"]})
        mlflow.pyfunc.save_model(
            folder / kind, python_model=str(code), code_paths=[__file__], artifacts={"weights": str(weights)},
            signature=infer_signature(texts, np.zeros((2, 4), "float32")), input_example=texts,
            pip_requirements=requirements,
        )  # fmt: skip


def raw(folder: str, processes: int, batch: int) -> float:
    """Return the rows per second of the encoder's forward alone, in several processes, on batches of one size."""
    import multiprocessing

    with multiprocessing.Pool(processes) as pool:
        return sum(pool.starmap(raw_one, [(folder, batch)] * processes, chunksize=1))


def raw_one(folder: str, batch: int) -> float:
    rows = load("encoder", folder)
    texts = [" ".join(f"word{(place * 37 + word * 11) % 5000}" for word in range(24)) for place in range(batch)]
    rows(texts)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 3:
        rows(texts)
        done += len(texts)
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    if sys.argv[1] == "--raw":
        print(raw(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        save(Path(sys.argv[1]))
