"""A reference profile in a folder: one JSON document and one `.npz` of plain arrays; nothing is pickled."""

import io
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from headrace.errors import InvalidInput, NotFound
from headrace.files import write_atomically
from headrace.monitoring.estimate import Curve, Estimator
from headrace.monitoring.profiles import Categories, Field, Groups, Numbers
from headrace.monitoring.reference_profile import Reference, build
from headrace.monitoring.statistics.boosting import DEPTH, Boosted, by_nodes
from headrace.types import Task

Array: TypeAlias = np.ndarray[Any, Any]
__all__ = ["Reference", "build", "load", "save"]

FORMAT = 2
DOCUMENT, ARRAYS = "reference.json", "reference.npz"
_SCALARS = ("mean", "deviation", "low", "high", "nulls", "correlation_time")


def save(reference: Reference, folder: Path) -> None:
    """Write a profile into a folder."""
    arrays: dict[str, Array] = {"losses": reference.losses}
    document: dict[str, Any] = {
        "format": FORMAT,
        "task": reference.task.value,
        "rows": reference.rows,
        "classes": list(reference.classes),
        "answers": asdict(reference.answers),
        "outputs": _put_numbers(reference.outputs, arrays),
        "metrics": reference.metrics,
        "fields": [{**asdict(one), "words": sorted(one.words)} for one in reference.fields],
        "numbers": _put_numbers(reference.numbers, arrays),
        "names": {name: asdict(one) for name, one in reference.names.items()},
        "estimator": _put_estimator(reference.estimator, arrays),
        "loss_time": reference.loss_time,
        "details": reference.details,
        "slices": _put_slices(reference.slices, arrays),
    }
    raw = io.BytesIO()
    np.savez_compressed(raw, allow_pickle=False, **arrays)
    write_atomically(folder / ARRAYS, raw.getvalue(), mode=0o644)
    write_atomically(folder / DOCUMENT, json.dumps(document, indent=1), mode=0o644)


def load(folder: Path) -> Reference:
    """Return the profile in a folder.

    Raises:
        NotFound: there is none.
        InvalidInput: it is of a format that this headrace does not know.
    """
    try:
        document = json.loads((folder / DOCUMENT).read_text())
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            arrays = dict(stored)
    except FileNotFoundError as cause:
        raise NotFound(
            f"There is no reference profile in {folder}.", "Release the version again to make one."
        ) from cause
    if document["format"] != FORMAT:
        raise InvalidInput(f"The reference profile in {folder} has format {document['format']}, not {FORMAT}.")
    return Reference(
        Task(document["task"]),
        document["rows"],
        tuple(document["classes"]),
        Categories(**document["answers"]),
        _take_numbers(document["outputs"], arrays),
        arrays["losses"],
        document["metrics"],
        tuple(_take_field(one) for one in document["fields"]),
        _take_numbers(document["numbers"], arrays),
        {name: Categories(**one) for name, one in document["names"].items()},
        _take_estimator(document["estimator"], arrays),
        document["loss_time"],
        document["details"],
        _take_slices(document.get("slices", {}), arrays),  # Older profiles have none.
    )


def _take_field(found: dict[str, Any]) -> Field:
    axes = tuple(tuple(one) for one in found.get("axes", ()))  # Older profiles have none.
    return Field(
        **{**found, "words": frozenset(found["words"]), "center": tuple(found.get("center", ())), "axes": axes}
    )


def _put_numbers(profiles: dict[str, Numbers], arrays: dict[str, Array]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, one in profiles.items():
        key = f"a{len(arrays)}"
        arrays |= {f"{key}_edges": one.edges, f"{key}_counts": one.counts}
        arrays[f"{key}_scalars"] = np.array([getattr(one, scalar) for scalar in _SCALARS], float)
        found[name] = key
    return found


def _take_numbers(found: dict[str, str], arrays: dict[str, Array]) -> dict[str, Numbers]:
    profiles = {}
    for name, key in found.items():
        scalars = dict(zip(_SCALARS, arrays[f"{key}_scalars"].tolist(), strict=True))
        scalars["nulls"] = int(scalars["nulls"])
        profiles[name] = Numbers(arrays[f"{key}_edges"], arrays[f"{key}_counts"], **scalars)
    return profiles


def _put_slices(slices: dict[str, Groups], arrays: dict[str, Array]) -> dict[str, Any]:
    found = {}
    for name, groups in slices.items():
        key = f"s{len(arrays)}"
        arrays[key] = groups.codes
        found[name] = {"values": list(groups.values), "codes": key}
    return found


def _take_slices(found: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Groups]:
    return {name: Groups(tuple(one["values"]), arrays[one["codes"]]) for name, one in found.items()}


def _put_estimator(estimator: Estimator | None, arrays: dict[str, Array]) -> dict[str, Any] | None:
    if estimator is None:
        return None
    curves = {}
    for name, curve in estimator.curves.items():
        curves[name] = f"c{len(arrays)}"
        arrays[curves[name]] = np.stack([curve.at, curve.share])
    if estimator.model is not None:
        arrays |= {f"model_{one.name}": np.asarray(getattr(estimator.model, one.name)) for one in fields(Boosted)}
    return {
        "rows": estimator.rows,
        "mean": estimator.mean,
        "variance": estimator.variance,
        "curves": curves,
        "numbers": _put_numbers(estimator.numbers, arrays),
        "names": {name: asdict(one) for name, one in estimator.names.items()},
    }


def _take_estimator(document: dict[str, Any] | None, arrays: dict[str, Array]) -> Estimator | None:
    if document is None:
        return None
    model = None
    if "model_base" in arrays:
        parts = {one.name: arrays[f"model_{one.name}"] for one in fields(Boosted)}
        if parts["columns"].shape[1] == DEPTH:  # Older profiles' trees asked one question per level.
            parts |= {name: by_nodes(parts[name]) for name in ("columns", "limits")}
        model = Boosted(float(parts["base"]), parts["columns"], parts["limits"], parts["leaves"])
    return Estimator(
        document["rows"],
        document["mean"],
        document["variance"],
        {name: Curve(*arrays[key]) for name, key in document["curves"].items()},
        model,
        _take_numbers(document["numbers"], arrays),
        {name: Categories(**one) for name, one in document["names"].items()},
    )
