"""A request's part of a batch's outputs, in MLflow's words."""

from importlib.metadata import version
from typing import Any

import msgspec

from headrace.serving.batch import Part
from headrace.types import UNNAMED

VERSION = version("headrace")
encode = msgspec.json.Encoder().encode


def predictions(part: Part) -> Any:
    """Return what `mlflow models serve` would put under `predictions`: lists, records, or lists by name."""
    columns = part.answer.listed or part.answer.columns()
    start, end = part.start, part.end
    container = part.answer.outputs.container
    if container == "array":
        return columns[0][1][start:end]
    if container == "frame":
        names = [name for name, _ in columns]
        cut = (values[start:end] for _, values in columns)
        return [dict(zip(names, row, strict=True)) for row in zip(*cut, strict=True)]
    if container == "dict":
        return {name: values[start:end] for name, values in columns}
    return msgspec.Raw(columns[0][1][0].encode())


def scored(part: Part) -> bytes:
    """Return the body of an answer of `/invocations`."""
    return encode({"predictions": predictions(part), "prediction_ids": part.ids})


def named(part: Part) -> list[tuple[str, Any]]:
    """Return the outputs as arrays by name, for protocols that speak of tensors; an unnamed one is `output`."""
    return [
        (name if name != UNNAMED else "output", values[part.start : part.end])
        for name, values in part.answer.outputs.named
    ]
