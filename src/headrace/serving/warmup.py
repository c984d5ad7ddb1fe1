"""The rows that a fresh worker is warmed up with: golden inputs, the model's own example, or made-up ones."""

import logging

import numpy as np

from headrace.errors import HeadraceError
from headrace.provenance import golden
from headrace.registry.mlmodel import MlModel, read_mlmodel
from headrace.serving.layout import ANY_TENSOR, Rows, rows_of
from headrace.serving.scoring import scoring_of
from headrace.types import Arrays, Field, FieldKind, ServedVersion, Signature

log = logging.getLogger(__name__)
ROWS = 4
FREE = 8


def example_rows(version: ServedVersion) -> tuple[Rows, bool]:
    """Return a few rows, and whether the model must be able to answer them (made-up ones it may refuse)."""
    model = read_mlmodel(version.model)
    signature = model.signature or ANY_TENSOR
    if version.golden is not None:
        inputs = golden.load(version.golden).inputs
        return rows_of(signature, {name: values[:ROWS] for name, values in inputs.items()}), True
    own = own_example(model)
    if own is not None:
        return own, True
    return rows_of(signature, _made_up(signature)), False


def own_example(model: MlModel) -> Rows | None:
    """Return the model's own input example, two rows or more; None where it has none that fits its signature."""
    if model.example is None:
        return None
    try:
        rows = scoring_of(model.signature).read(model.example.read_bytes()).rows
    except (HeadraceError, OSError) as error:
        log.warning("The input example of %s does not fit its signature: %s", model.folder, error)
        return None
    if rows.count > 1:
        return rows
    # Two sizes are tried, so one row is not enough.
    return Rows(rows.count * ROWS, rows.layout, [part * ROWS for part in rows.parts], rows.shapes)


def _made_up(signature: Signature) -> Arrays:
    return {field.name: _column(field) for field in signature.inputs}


def _column(field: Field) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    if field.kind is FieldKind.TENSOR:
        shape = (ROWS, *(FREE if size < 0 else size for size in field.shape[1:]))
        return np.zeros(shape, dtype="U1" if field.dtype in ("str", "string", "object") else field.dtype)
    if field.dtype == "datetime":
        return np.full(ROWS, np.datetime64("2026-01-01", "ns"))
    if field.dtype in ("boolean", "integer", "long", "float", "double"):
        return np.zeros(ROWS, dtype="float64")
    return np.full(ROWS, "a", dtype=object)
