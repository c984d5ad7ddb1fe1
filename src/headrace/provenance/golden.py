"""Golden inputs and outputs on disk, and whether later answers agree with them. Nothing here is ever unpickled.

    save(golden, folder); load(folder) -> Golden; compare(golden, outputs) -> "" or a sentence

`golden.json` holds names, tolerance and text; `golden.npz` holds the numbers, as `inputs.0`, `outputs.0`, ….
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headrace.errors import InvalidInput, ModelRefused
from headrace.files import canonical_json, write_atomically
from headrace.types import Arrays, Golden, Json

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

DOCUMENT = "golden.json"
NUMBERS = "golden.npz"
_NUMERIC = frozenset("biufcMm")


def save(golden: Golden, folder: Path) -> None:
    """Write golden inputs and outputs into a folder; the same values give the same bytes.

    Raises:
        InvalidInput: an array holds values that are neither numbers, times nor text.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Array] = {}
    document: dict[str, Json] = {
        "tolerance": golden.tolerance,
        "inputs": _describe("inputs", golden.inputs, numbers),
        "outputs": _describe("outputs", golden.outputs, numbers),
    }
    with (folder / NUMBERS).open("wb") as file:
        np.savez(file, allow_pickle=False, **cast("dict[str, Any]", numbers))
    write_atomically(folder / DOCUMENT, canonical_json(document), mode=0o644)


def _describe(group: str, arrays: Arrays, numbers: "dict[str, Array]") -> Json:
    described: list[Json] = []
    for place, (name, array) in enumerate(arrays.items()):
        if array.dtype.kind in _NUMERIC:
            numbers[f"{group}.{place}"] = array
            described.append({"name": name, "member": f"{group}.{place}"})
        else:
            described.append({"name": name, "shape": list(array.shape), "text": _texts(name, array)})
    return described


def _texts(name: str, array: "Array") -> list[Json]:
    values: list[Json] = array.ravel().tolist()
    odd = next((value for value in values if not isinstance(value, str | int | float | bool | None)), None)
    if odd is not None:
        raise InvalidInput(
            f"The golden field `{name}` holds a {type(odd).__name__}; numbers, times and text can be kept",
            "Give the golden rows as plain columns",
        )
    return values


def load(folder: Path) -> Golden:
    """Return what `save` wrote.

    Raises:
        ModelRefused: the files are missing or not what `save` writes.
    """
    import numpy as np

    try:
        document = json.loads((folder / DOCUMENT).read_text())
        with np.load(folder / NUMBERS, allow_pickle=False) as numbers:
            inputs, outputs = (_arrays(document[group], numbers) for group in ("inputs", "outputs"))
        return Golden(inputs, outputs, float(document["tolerance"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelRefused(
            f"The golden predictions in {folder} cannot be read: {error}", "Fetch the version's baseline again"
        ) from error


def _arrays(described: list[dict[str, Any]], numbers: "Mapping[str, Array]") -> Arrays:
    import numpy as np

    arrays: dict[str, Array] = {}
    for item in described:
        if "member" in item:
            arrays[item["name"]] = numbers[item["member"]]
        else:
            values = np.empty(len(item["text"]), dtype=object)
            values[:] = item["text"]
            arrays[item["name"]] = values.reshape(item["shape"])
    return arrays


def first_rows(golden: Golden, count: int) -> Golden:
    """Return the first rows of golden predictions."""
    return Golden(
        {name: values[:count] for name, values in golden.inputs.items()},
        {name: values[:count] for name, values in golden.outputs.items()},
        golden.tolerance,
    )


def difference(golden: Golden, ask: Callable[[Arrays], Arrays], *, rows: int = 256) -> str:
    """Return how answers differ from golden outputs, empty where they agree.

    Args:
        ask: gives the outputs for some of the golden inputs; whatever it raises comes through.
        rows: how many to ask for at once.
    """
    import numpy as np

    total = len(next(iter(golden.inputs.values())))
    pieces = [
        ask({name: values[start : start + rows] for name, values in golden.inputs.items()})
        for start in range(0, total, rows)
    ]
    names = pieces[0].keys()
    if any(piece.keys() != names for piece in pieces):
        return "the outputs have other names from one request to the next"
    return compare(golden, {name: np.concatenate([piece[name] for piece in pieces]) for name in names})


def compare(golden: Golden, outputs: Arrays) -> str:
    """Return an empty text where the answers agree with the golden outputs, else one sentence that says where not.

    Numbers with a fraction may be off by the tolerance, absolute and relative; whole numbers and text must be equal.
    """
    missing, extra = sorted(golden.outputs.keys() - outputs.keys()), sorted(outputs.keys() - golden.outputs.keys())
    if missing or extra:
        return f"the outputs are {_names(outputs)}, not {_names(golden.outputs)} as at training"
    sentences = (_compare(name, golden.outputs[name], outputs[name], golden.tolerance) for name in golden.outputs)
    return "; ".join(sentence for sentence in sentences if sentence)


def _names(arrays: Arrays) -> str:
    return ", ".join(f"`{name}`" if name else "one without a name" for name in sorted(arrays)) or "none"


def _compare(name: str, expected: "Array", found: "Array", tolerance: float) -> str:
    import numpy as np

    title = f"output `{name}`" if name else "the output"
    if expected.shape != found.shape:
        return f"{title} has shape {found.shape}, not {expected.shape} as at training"
    if expected.dtype.kind in "fc" and found.dtype.kind in "biufc":
        is_close: Array = np.asarray(np.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True))
        with np.errstate(invalid="ignore"):  # Infinity less infinity.
            gap = f" by up to {np.nanmax(np.abs(found - expected), initial=0):.3g} (tolerance {tolerance:g})"
    else:
        is_close, gap = np.asarray(expected.astype(object) == found.astype(object), dtype=bool), ""
    if is_close.all():
        return ""
    rows: Array = np.logical_and.reduce(is_close.reshape(max(expected.shape[:1], default=1), -1), axis=1)
    first = tuple(int(place) for place in np.argwhere(~is_close)[0])
    return (
        f"{title} differs in {int((~rows).sum())} of {len(rows)} golden rows{gap}: first in row "
        f"{first[0] if first else 0}, expected {_shown(expected[first])}, got {_shown(found[first])}"
    )


def _shown(value: object) -> str:
    import numpy as np

    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
