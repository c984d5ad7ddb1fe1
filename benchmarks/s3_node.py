"""One serving node of `benchmarks.s3`: it logs predictions as an endpoint does, and ships them as a worker does.

    python -m benchmarks.s3_node FOLDER URL ROWS

What it has offered is in FOLDER/offered (16 bytes an id, in order), and how many of those are acknowledged in
FOLDER/acknowledged, so that whoever kills it knows what must not be lost. Started again, it goes on.
"""

import os
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np

from headrace.bucket import Bucket
from headrace.config.settings import read_settings
from headrace.predictions.ids import Ids
from headrace.predictions.segments import SegmentLog
from headrace.predictions.shipping import Shipper
from headrace.predictions.writer import PredictionWriter

COMPONENT = "digits"
BATCH, FIELDS = 500, 8
EVERY_S = 1.0


def main(folder: Path, url: str, rows: int) -> None:
    """Log up to `rows` rows, all runs together, then ship the rest and end."""
    spool = folder / "predictions"
    log = SegmentLog(spool, store=Bucket(url, read_settings().s3))
    ended = threading.Event()
    ids, random = Ids(), np.random.default_rng(os.getpid())
    offered = folder / "offered"
    offered.touch()
    before = offered.stat().st_size // 16
    os.truncate(offered, before * 16)
    # Of an earlier run, what was not acknowledged may be lost; it does not count.
    acknowledged = _read(folder)
    shipping = threading.Thread(target=Shipper(log).work, args=(ended,), kwargs={"every_s": EVERY_S})
    shipping.start()
    writer = PredictionWriter(spool, COMPONENT, roll_s=2.0, roll_bytes=4 * 1024 * 1024)
    with offered.open("ab") as file:
        for start in range(before, rows, BATCH):
            batch = ids.batch(min(BATCH, rows - start))
            file.write(b"".join(uuid.UUID(one).bytes for one in batch))
            file.flush()
            inputs = {f"x{number}": random.random(len(batch)) for number in range(FIELDS)}
            outputs = {"": random.integers(0, 10, len(batch))}
            while not writer.offer(batch, at=time.time(), version=1, inputs=inputs, outputs=outputs, latency_ms=1.0):
                time.sleep(0.02)
            _acknowledge(folder, acknowledged, before, writer.written)
    writer.close()
    _acknowledge(folder, acknowledged, before, writer.written)
    ended.set()
    shipping.join()


def _read(folder: Path) -> list[tuple[int, int]]:
    path = folder / "acknowledged"
    if not path.exists():
        return []
    return [(int(a), int(b)) for a, b in (line.split() for line in path.read_text().splitlines())]


def _acknowledge(folder: Path, earlier: list[tuple[int, int]], start: int, count: int) -> None:
    """Write down which places of `offered` are acknowledged: one line for each run, first place and number."""
    temporary = folder / "acknowledged.new"
    temporary.write_text("".join(f"{a} {b}\n" for a, b in [*earlier, (start, count)]))
    temporary.replace(folder / "acknowledged")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
