"""Split scikit-learn's 1,797 handwritten digits once, by id, into the Parquet files of this example.

No image is in two files. The streams play what production sees later, with the labels that people give afterwards.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

SEED = 2024
#: Rows of each file, in this order; what is left over goes to the holdout.
SIZES = {
    "train": 550,
    "golden": 16,
    "stream-quiet": 300,
    "stream-drifted": 330,
    "stream-after": 300,
}


def split() -> dict[str, pa.Table]:
    """Return a table for each file: `id`, `label` and 64 `pixels` from 0 to 16, row by row from the top left."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    tables, start = {}, 0
    for name, size in SIZES.items():
        tables[name] = _table(digits, order[start : start + size])
        start += size
    tables["holdout"] = _table(digits, order[start:])
    return tables


def _table(digits, rows: np.ndarray) -> pa.Table:
    pixels = pa.array(digits.data[rows].astype(np.float32).ravel())
    return pa.table(
        {
            "id": [f"digit-{row:04d}" for row in rows],
            "label": pa.array(digits.target[rows], pa.int64()),
            "pixels": pa.FixedSizeListArray.from_arrays(pixels, 64),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("data"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, table in split().items():
        pq.write_table(table, output / f"{name}.parquet")
        print(f"{output / name}.parquet: {table.num_rows} images")


if __name__ == "__main__":
    main()
