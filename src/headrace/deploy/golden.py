"""Golden predictions over HTTP: sent as MLflow's scoring JSON, and compared with what was recorded at training time."""

from typing import Any

import httpx
import numpy as np

from headrace.errors import ModelRefused
from headrace.provenance.golden import compare, load
from headrace.registry.mlmodel import read_mlmodel
from headrace.types import UNNAMED, Arrays, Json, ServedVersion, Signature

ROWS = 64


def check_golden(version: ServedVersion, url: str, *, timeout_s: float = 60.0) -> int:
    """Ask `url` for the version's golden predictions and return the number of rows that agree; 0 where it has none.

    Raises:
        ModelRefused: an answer is not what was recorded, or there is none.
    """
    if version.golden is None:
        return 0
    golden = load(version.golden)
    signature = read_mlmodel(version.model).signature
    rows = len(next(iter(golden.inputs.values())))
    pieces = [
        _ask(version, url, _cut(golden.inputs, at), signature, golden.outputs, timeout_s) for at in range(0, rows, ROWS)
    ]
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    if difference := compare(golden, joined):
        raise ModelRefused(
            f"{version.component} version {version.version} does not give its golden answers at {url}: {difference}.",
            "Compare the environments of training and serving; they must be the same lock.",
        )
    return rows


def scoring_json(inputs: Arrays, signature: Signature | None) -> Json:
    """Return arrays by field name as a body for `/invocations`."""
    if signature is not None and signature.is_tabular:
        columns = [field.name for field in signature.inputs if field.name in inputs]
        listed = [_listed(inputs[name]) for name in columns]
        return {"dataframe_split": {"columns": list(columns), "data": [list(row) for row in zip(*listed, strict=True)]}}
    if set(inputs) == {UNNAMED}:
        return {"inputs": _listed(inputs[UNNAMED])}
    return {"inputs": {name: _listed(values) for name, values in inputs.items()}}


def arrays_of(predictions: Any, expected: Arrays) -> Arrays:
    """Return the `predictions` of a scoring answer as arrays, with the dtypes of `expected` where they hold them."""
    if isinstance(predictions, dict):
        found = predictions
    elif predictions and isinstance(predictions[0], dict):
        found = {name: [row.get(name) for row in predictions] for name in predictions[0]}
    else:
        found = {UNNAMED: predictions}
    return {name: _array(values, expected.get(name)) for name, values in found.items()}


def _ask(
    version: ServedVersion, url: str, inputs: Arrays, signature: Signature | None, expected: Arrays, timeout_s: float
) -> Arrays:
    subject = f"{version.component} version {version.version}"
    try:
        answer = httpx.post(url, json=scoring_json(inputs, signature), timeout=timeout_s)
    except httpx.HTTPError as cause:
        raise ModelRefused(f"{subject} gave no answer at {url}: {type(cause).__name__}.", "See its log.") from cause
    if answer.status_code != 200:
        raise ModelRefused(
            f"{subject} answered its golden inputs with {answer.status_code}: {answer.text[:200].strip()}",
            "See its log.",
        )
    return arrays_of(answer.json()["predictions"], expected)


def _cut(inputs: Arrays, at: int) -> Arrays:
    return {name: values[at : at + ROWS] for name, values in inputs.items()}


def _listed(values: "np.ndarray[Any, Any]") -> list[Json]:
    plain = np.datetime_as_string(values) if values.dtype.kind == "M" else values
    listed: list[Json] = plain.tolist()
    return listed


def _array(values: Any, expected: "np.ndarray[Any, Any] | None") -> "np.ndarray[Any, Any]":
    if expected is not None and expected.dtype.kind in "biufM":
        try:
            return np.asarray(values).astype(expected.dtype) if expected.dtype.kind == "f" else np.asarray(values)
        except (TypeError, ValueError):
            return np.asarray(values, dtype=object)
    return np.asarray(values, dtype=object)
