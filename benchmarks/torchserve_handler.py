"""The benchmark's models in TorchServe, batched; lies in the archive with their weights."""

import json
from pathlib import Path

import numpy as np

import workloads

loaded = {}


def handle(requests, context):
    """Answer a batch of requests with one forward."""
    if requests is None:
        folder = context.system_properties["model_dir"]
        (weights,) = Path(folder).glob("*.npz")
        loaded.update(kind=weights.stem, rows=workloads.load(weights.stem, folder))
        return None
    rows = [_row(request.get("body", request.get("data"))) for request in requests]
    answers = loaded["rows"](np.asarray(rows, "float32") if loaded["kind"] == "mlp" else rows)
    return [{"predictions": answer} for answer in answers.tolist()]


def _row(body):
    document = json.loads(body) if isinstance(body, bytes | bytearray) else body
    return document["input"]
