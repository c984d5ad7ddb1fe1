"""Speed of window statistics and joins, and memory that does not grow with the rows."""

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.monitoring_parts import BUDGET, Found, Sizes
from benchmarks.monitoring_streams import reference_of, stream
from benchmarks.report import Claim
from headrace.config.component import Monitor
from headrace.evaluation.base import Rows
from headrace.monitoring.frame import Frame
from headrace.monitoring.judge import judge_frame
from headrace.monitoring.memory import Memory
from headrace.monitoring.profiles import numbers
from headrace.monitoring.reference import Reference, build
from headrace.monitoring.replay import replay, windows_of
from headrace.monitoring.seasons import Seasons
from headrace.predictions import snapshot
from headrace.predictions.actuals import SCHEMA
from headrace.predictions.manifest import Manifest, Segment, write_manifest
from headrace.predictions.query import connect
from headrace.predictions.segments import SegmentLog
from headrace.predictions.tables import write_parquet
from headrace.types import Task


def speed(sizes: Sizes) -> Found:
    """Rows per CPU second: all window statistics together, and histograms alone."""
    chance = np.random.default_rng(0)
    profile = reference_of(stream(chance, 5000))
    found, slowest = {}, float("inf")
    for rows in (5000, sizes.speed_rows // 4):
        windows, monitor = [stream(chance, rows) for _ in range(3)], Monitor(window=rows, false_alarms=BUDGET)
        judge_frame(windows[0], profile, monitor)
        found[f"windows of {rows}"] = round(rows / min(_spent(windows, profile, monitor)))
        slowest = min(slowest, found[f"windows of {rows}"])
    columns = [chance.standard_normal(sizes.speed_rows) for _ in range(30)]
    before = numbers(columns[0][:5000])
    started = time.process_time()
    for values in columns:
        before.count(values)
    histograms = round(sizes.speed_rows / (time.process_time() - started))
    row = {"part": "speed", "rows / CPU s": {**found, "histograms alone": histograms}}
    return Found([row], [
        Claim("window_rows_per_cpu_s", slowest, ">= 150000", slowest >= 150_000,
              "30 columns, all statistics, the smaller of both sizes of windows, each the best of nine looks"),
        Claim("histogram_rows_per_cpu_s", histograms, ">= 500000", histograms >= 500_000, "30 columns"),
    ])  # fmt: skip


def _spent(windows: list[Frame], profile: Reference, monitor: Monitor) -> list[float]:
    found = []
    for window in windows * 3:
        started = time.process_time()
        judge_frame(window, profile, monitor)
        found.append(time.process_time() - started)
    return found


def memory(sizes: Sizes) -> Found:
    """The largest memory of a process that replays a log, at two lengths of the log."""
    peaks, (first, last) = {}, sizes.replayed
    # One process of its own: its peak after the short log, and what the long one adds to it.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for rows in (first, last):
            with tempfile.TemporaryDirectory() as temporary:
                _log(Path(temporary) / "component", rows)
                peaks[rows] = pool.apply(_replayed_mb, (temporary, rows))
    grown = round(peaks[last] - peaks[first], 1)
    row = {"part": "memory", "MB by predictions": peaks, "window": 1000}
    return Found([row], [
        Claim("memory_growth_mb", grown, "<= 20", grown <= 20, f"a log of {last} against one of {first} predictions"),
    ])  # fmt: skip


def _log(folder: Path, rows: int) -> None:
    chance, segments, step = np.random.default_rng(0), [], 50_000
    for number, begin in enumerate(range(0, rows, step)):
        count = min(step, rows - begin)
        moments = 1_700_000_000_000 + 30 * np.arange(begin, begin + count, dtype=np.int64)
        scores = chance.dirichlet((0.3, 0.3), count)
        table = _predictions(
            chance, moments, {f"in_n{at}": pa.array(chance.standard_normal(count)) for at in range(10)}
        )
        table = table.append_column("out_", pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), 2))
        path = f"segments/version=1/day=2023-11-14/{number}.parquet"
        size = write_parquet(table, folder / path)
        segments.append(Segment(path, count, size, str(table["id"][0]), str(table["id"][-1]), 1, "2023-11-14"))
    write_manifest(folder, Manifest(tuple(segments)))


def _replayed_mb(folder: str, rows: int) -> float:
    """Replay in this process, and return its largest memory."""
    chance = np.random.default_rng(1)
    truth, scores = chance.integers(0, 2, 5000), chance.dirichlet((0.3, 0.3), 5000)
    inputs = {f"n{at}": chance.standard_normal(5000) for at in range(10)}
    profile = build(
        Rows(np.arange(5000), truth, scores.argmax(axis=1), scores), task=Task.CLASSIFICATION, inputs=inputs
    )
    windows = windows_of(SegmentLog(Path(folder)), "component", 1000)
    found = replay("component", windows, {1: Seasons(profile)}, Monitor(window=1000), Memory())
    assert len(found.windows) == rows // 1000
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def join(sizes: Sizes) -> Found:
    """Late actuals joined to many predictions, in DuckDB over Parquet: of the latest tenth, and of all of them."""
    found, claims = [], []
    for spread in ("the latest tenth", "all"):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "component"
            first, last = _fill(folder, sizes.predictions, sizes.actuals, spread)
            seen = snapshot.take(folder)
            started, cpu = time.perf_counter(), time.process_time()
            with connect(seen, since=first, until=last) as connection:
                joined = connection.execute("SELECT count(*) FROM joined WHERE labelled").fetchone()
            spent, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert joined == (sizes.actuals,)
        found.append({"part": "join", "actuals of": spread, "wall_s": round(spent, 2), "cpu_s": round(cpu, 2)})
        evidence = f"{sizes.actuals} actuals, {sizes.predictions} predictions, {cpu:.1f} CPU s"
        name = "join_late_actuals_s" if spread == "all" else "join_recent_actuals_s"
        claims.append(Claim(name, round(spent, 2), "< 10", spent < 10, evidence))
    return Found(found, claims)


def _fill(folder: Path, predictions: int, actuals: int, spread: str) -> tuple[str, str]:
    chance, part, segments, chosen = np.random.default_rng(0), min(1_000_000, predictions // 3), [], []
    least = predictions - 2 * actuals if spread == "the latest tenth" else 0
    for number, begin in enumerate(range(0, predictions, part)):
        rows = min(part, predictions - begin)
        moments = 1_700_000_000_000 + 30 * np.arange(begin, begin + rows, dtype=np.int64)
        table = _predictions(chance, moments, {"in_x": pa.array(chance.random(rows))})
        table = table.append_column("out_", pa.array(chance.integers(0, 4, rows)))
        path = f"segments/version=1/day=2023-11-14/{number}.parquet"
        size = write_parquet(table, folder / path)
        segments.append(Segment(path, rows, size, str(table["id"][0]), str(table["id"][-1]), 1, "2023-11-14"))
        if begin + rows > least:
            places = np.arange(max(least - begin, 0), rows)
            count = round(actuals * len(places) / (predictions - least))
            chosen.append(table["id"].take(pa.array(np.sort(chance.choice(places, count, replace=False)))))
    ids = pa.chunked_array([chunk for column in chosen for chunk in column.chunks])
    path, text = "truths/0.parquet", pa.array(["1"] * actuals)
    now = pa.array(np.zeros(actuals, np.int64), pa.timestamp("us"))
    table = pa.table([
        ids, pa.nulls(actuals, pa.string()), text, pa.array(np.ones(actuals)), text, now, now,
        pa.array(np.arange(actuals)),
    ], schema=SCHEMA)  # fmt: skip
    size = write_parquet(table, folder / path)
    first, last = str(table["id"][0]), str(table["id"][-1])
    write_manifest(folder, Manifest(tuple(segments), (Segment(path, actuals, size, first, last),), sequence=actuals))
    return first, last


def _predictions(chance: np.random.Generator, moments: np.ndarray, inputs: dict[str, pa.Array]) -> pa.Table:
    rows = len(moments)
    raw = pa.Array.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(_ids(chance, moments).tobytes())])
    return pa.table({
        "id": pa.ExtensionArray.from_storage(pa.uuid(), raw), "made_at": pa.array(moments * 1000, pa.timestamp("us")),
        "version": pa.array(np.ones(rows, np.int32)), "latency_ms": pa.array(np.ones(rows, np.float32)),
        "shadow": pa.array(np.zeros(rows, bool)), **inputs,
    })  # fmt: skip


def _ids(chance: np.random.Generator, moments: np.ndarray) -> np.ndarray:
    raw = chance.integers(0, 256, (len(moments), 16), dtype=np.uint8)
    for byte in range(6):
        raw[:, byte] = (moments >> (40 - 8 * byte)) & 255
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    return raw
