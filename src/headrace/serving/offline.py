"""Answers without an endpoint: the very worker that serves, started for one job and stopped."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headrace.config.settings import read_settings
from headrace.errors import InvalidInput, ModelRefused
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving import frames
from headrace.serving.layout import ANY_TENSOR, Rows, rows_of
from headrace.serving.worker import start_worker
from headrace.types import Arrays, ServedVersion, Signature


def answers(
    version: ServedVersion,
    inputs: Arrays,
    *,
    batch_rows: int = 256,
    timeout_s: float = 300.0,
    variables: Mapping[str, str] | None = None,
) -> Arrays:
    """Return a version's answers by output name, one for each row of `inputs`, as the endpoint would give them.

    Starts the version's worker, which checks the seal before it loads the model, and stops it. The first batch warms
    the model up, so graphs with one fixed batch size work too.

    Args:
        inputs: arrays by field name of the signature, all with the same number of rows.
        timeout_s: for loading, and again for each batch.
        variables: the worker's base environment; by default the allow-list of this process's own.

    Raises:
        ModelRefused: the seal is broken, or the model cannot be loaded or fails on a batch; the first cause is named.
        InvalidInput: the inputs do not fit the signature.
    """
    signature = read_mlmodel(version.model).signature or ANY_TENSOR
    total = _rows(inputs)
    pieces = [_cut(signature, inputs, start, min(start + batch_rows, total)) for start in range(0, total, batch_rows)]
    settings = read_settings()
    base = settings.child_environment() if variables is None else variables
    settings.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="offline-", dir=settings.run) as folder:
        worker = start_worker(version, variables=base, cwd=Path(folder), log=Path(folder) / "worker.log")
        try:
            worker.wait_ready(timeout_s)
            worker.ask("warm", _cut(signature, inputs, 0, min(4, total)), timeout_s=timeout_s)
            found = [frames.outputs(*worker.ask("predict", piece, timeout_s=timeout_s)) for piece in pieces]
        finally:
            worker.stop()
    return _joined(version, found, total)


def _rows(inputs: Arrays) -> int:
    if not inputs or not len(next(iter(inputs.values()))):
        raise InvalidInput("There are no rows to answer.")
    return len(next(iter(inputs.values())))


def _cut(signature: Signature, inputs: Arrays, start: int, end: int) -> Rows:
    return rows_of(signature, {name: values[start:end] for name, values in inputs.items()})


def _joined(version: ServedVersion, found: list[frames.Outputs], total: int) -> Arrays:
    parts = [piece.as_arrays() for piece in found]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if any(len(values) != total for values in joined.values()):
        given = min(len(values) for values in joined.values())
        raise ModelRefused(
            f"{version.title} does not answer row by row: {total} rows gave {given} answers.",
            "Have the model return one answer for each input row.",
        )
    return joined
