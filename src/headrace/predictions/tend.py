"""What is done to a component's files while it serves: journals are rolled, and many small files become one.

    python -m headrace.predictions.tend FOLDER

`PredictionWriter` starts it in a child process of low priority whenever it has sealed a journal, so that a front pays
for none of it and a year of traffic leaves about one file a day rather than one a minute.
"""

import os
import sys
from collections import Counter
from importlib.abc import MetaPathFinder
from pathlib import Path

from headrace.clock import Clock
from headrace.predictions.manifest import read_manifest
from headrace.predictions.roll import roll
from headrace.predictions.upkeep import compact, is_full, sweep

#: So many small files of one version and day are merged.
MANY = 64


def tend(folder: Path, *, clock: Clock | None = None) -> int:
    """Roll what dead writers left, merge small files where there are many, and return the rows rolled."""
    rows = roll(folder)
    manifest = read_manifest(folder)
    small = Counter((one.version, one.day) for one in manifest.predictions if not is_full(one))
    if max(small.values(), default=0) >= MANY:
        compact(folder, clock=clock)
    elif manifest.retired:
        sweep(folder, clock=clock)
    return rows


class WithoutPandas(MetaPathFinder):
    """Keeps pandas out: pyarrow would import it, for a second and more, only to ask whether a list is a series."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)


if __name__ == "__main__":
    os.nice(10)
    sys.meta_path.insert(0, WithoutPandas())
    tend(Path(sys.argv[1]))
