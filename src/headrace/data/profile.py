"""A data file in a few numbers per column: what tells a reader whether two files are alike. No value of a text is kept.

profile(path) -> {column: {"nulls": 0.0, "min": 0.0, "max": 16.0, "mean": 4.9}}    # numbers
                 {column: {"nulls": 0.0, "distinct": 4.0}}                         # texts, truth values
"""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headrace.data.tables import is_image_folder, read_columns

Profile = dict[str, dict[str, float]]
#: Of wider tables the first columns are profiled.
MOST_COLUMNS = 1000


def profile(path: Path) -> Profile:
    """Return the profile of a table, or of a folder of images: how many there are of each class.

    Raises:
        InvalidConfig: it cannot be read.
    """
    if is_image_folder(path):
        folders = sorted(place for place in path.iterdir() if place.is_dir())
        return {
            place.name: {"images": float(sum(1 for file in place.iterdir() if file.is_file()))} for place in folders
        }
    table = read_columns(path)
    return {name: _column(table.column(name)) for name in table.column_names[:MOST_COLUMNS]}


def _column(values: pa.ChunkedArray) -> dict[str, float]:
    # All of them floats, so that what is read back from JSON is written the same again.
    found: dict[str, float] = {"nulls": float(values.null_count)}
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        seen = pc.min_max(values)
        numbers = {"min": seen["min"].as_py(), "max": seen["max"].as_py(), "mean": pc.mean(values).as_py()}
        found |= {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        found["distinct"] = float(pc.count_distinct(values).as_py())
    return found
