"""A killed front loses no more than what it had not flushed."""

import signal
import subprocess
import sys
from pathlib import Path

from headrace.predictions.ids import Ids
from headrace.predictions.manifest import read_manifest
from headrace.predictions.segments import SegmentLog
from headrace.predictions.writer import PredictionWriter

FRONT = """
import sys, time
from pathlib import Path
from headrace.predictions.ids import Ids
from headrace.predictions.writer import PredictionWriter
writer = PredictionWriter(Path(sys.argv[1]), "digits", flush_s=0.1)
ids = Ids()
while True:
    made = ids.batch(10)
    writer.offer(made, at=time.time(), version=1, inputs={"a": [1] * 10}, outputs={"": ["x"] * 10}, latency_ms=1.0)
    print(writer.written, made[-1], flush=True)
    time.sleep(0.005)
"""


def test_rows_that_were_written_survive_kill_9(tmp_path: Path) -> None:
    front = subprocess.Popen([sys.executable, "-c", FRONT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert front.stdout is not None
    written = 0
    while written < 500:
        written = int(front.stdout.readline().split()[0])
    front.send_signal(signal.SIGKILL)
    offered = [line.split() for line in front.stdout.read().splitlines()]
    front.wait()
    front.stdout.close()
    written = max([written, *(int(line[0]) for line in offered if len(line) == 2)])
    log = SegmentLog(tmp_path)
    before = [one.prediction.id for one in log.joined("digits")]
    assert len(before) >= written
    assert log.roll("digits") == len(before)
    assert [one.prediction.id for one in log.joined("digits")] == before


def test_a_sealed_journal_is_rolled_by_a_child(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path, "digits", flush_s=0.01, roll_s=0.0)
    writer.offer(Ids().batch(3), at=0.0, version=1, inputs={"a": [1] * 3}, outputs={"": ["x"] * 3}, latency_ms=1.0)
    while writer._roller is None:
        writer._thread.join(0.01)
    writer.close()
    assert writer._roller.returncode == 0
    assert [segment.rows for segment in read_manifest(tmp_path / "digits").predictions] == [3]
    assert len(SegmentLog(tmp_path).joined("digits")) == 3
