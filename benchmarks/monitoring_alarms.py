"""False alarms over drift-free windows of three kinds of data, and what Evidently's preset flags on such windows."""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import binom

from benchmarks.monitoring_parts import BUDGET, ELEC2, Found, Sizes, run_peer
from benchmarks.monitoring_rivals import distance, known
from benchmarks.monitoring_streams import blocks, latent, mixed, real, reference_of, stream
from benchmarks.report import Claim
from headrace.config.component import Monitor
from headrace.monitoring.base import Consequence
from headrace.monitoring.frame import Frame
from headrace.monitoring.judge import judge_frame
from headrace.monitoring.reference import Reference

REFERENCE_ROWS = 5000
#: How much of a row the next one repeats, and how many rows a block of the bootstrap has.
MEMORY, BLOCK = 0.7, 50
#: Windows that are judged by one reference; few, so that no lucky or unlucky one decides.
PER_REFERENCE = 10
#: References and windows that are drawn from one autocorrelated stream, and its rows: one half for each.
PER_STREAM, STREAM_ROWS = 100, 200_000


@dataclass(frozen=True)
class Drawn:
    """A drift-free window, and what it is judged by."""

    known: Frame
    reference: Reference
    window: Frame


def false_alarms(sizes: Sizes) -> Found:
    """Drift-free windows: how many raise any alarm, and Evidently's preset on some of the same kind."""
    found = Found()
    for kind, rows in itertools.product(sizes.kinds or KINDS, sizes.window_rows):
        name = f"false_alarms_{kind}_{rows}"
        if kind == "real" and not ELEC2.exists():
            found.claims.append(Claim(name, None, "<= budget", None, f"{ELEC2.name} is absent"))
            continue
        row = _counted(kind, rows, sizes)
        found.rows.append(row)
        found.claims.append(alarm_claim(row))
    return found


def alarm_claim(row: dict[str, Any]) -> Claim:
    """Return the claim of one kind and size of windows."""
    name = f"false_alarms_{row['data']}_{row['rows']}"
    alarms, allowed, windows = row["alarms"], row["allowed"], row["windows"]
    return Claim(name, alarms, f"<= {allowed}", alarms <= allowed,
                 f"{windows} windows at {BUDGET} each; 95 % of fair monitors stay at or below {allowed}")  # fmt: skip


def allowed_of(windows: int) -> int:
    """Return how many alarms 95 % of monitors that just keep the budget stay at or below."""
    return int(binom.ppf(0.95, windows, BUDGET))


def _counted(kind: str, rows: int, sizes: Sizes) -> dict[str, Any]:
    monitor, fired, started = Monitor(window=rows, false_alarms=BUDGET), [], time.process_time()
    for one in itertools.islice(KINDS[kind](sizes.seed + rows, rows), sizes.windows):
        alarm = judge_frame(one.window, one.reference, monitor)
        if alarm.consequence is not Consequence.NONE:
            fired.append([signal.sentence for signal in alarm.signals if signal.fired])
    return {
        "part": "false alarms", "data": kind, "rows": rows, "windows": sizes.windows, "alarms": len(fired),
        "allowed": allowed_of(sizes.windows), "fired": fired, "seed": sizes.seed,
        "cpu_s": round(time.process_time() - started, 1),
    }  # fmt: skip


def independent(seed: int, rows: int) -> Iterator[Drawn]:
    """Rows that know nothing of each other: 20 numbers and 10 names."""
    chance = np.random.default_rng(seed)
    while True:
        known = stream(chance, REFERENCE_ROWS)
        reference = reference_of(known)
        for _ in range(PER_REFERENCE):
            yield Drawn(known, reference, stream(chance, rows))


def autocorrelated(seed: int, rows: int) -> Iterator[Drawn]:
    """Rows of which each repeats 0.7 of the one before: blocks of one stream's second half, judged by its first."""
    chance = np.random.default_rng(seed)
    while True:
        first, second = np.split(latent(chance, STREAM_ROWS, MEMORY), 2)
        for _ in range(PER_STREAM // PER_REFERENCE):
            start = int(chance.integers(len(first) - REFERENCE_ROWS))
            known = mixed(chance, first[start : start + REFERENCE_ROWS])
            reference = reference_of(known, in_time_order=True)
            for _ in range(PER_REFERENCE):
                yield Drawn(known, reference, mixed(chance, second[blocks(chance, len(second), rows, BLOCK)]))


def resampled(seed: int, rows: int) -> Iterator[Drawn]:
    """Real rows in random order, 30 mixed features of them; a window's rows are never the reference's."""
    chance, source = np.random.default_rng(seed), real(ELEC2)
    while True:
        order = chance.permutation(len(source.truth))
        chosen, rest = np.split(order, [3000])
        known = source.window(chosen)
        reference = reference_of(known)
        # Nor do the windows of one reference share a row, so that there are only three of 5,000.
        for at in range(min(PER_REFERENCE, len(rest) // rows)):
            yield Drawn(known, reference, source.window(rest[at * rows : (at + 1) * rows]))


KINDS: dict[str, Callable[[int, int], Iterator[Drawn]]] = {
    "independent": independent, "real": resampled, "autocorrelated": autocorrelated,
}  # fmt: skip


def evidently(sizes: Sizes) -> Found:
    """Evidently's drift preset on drift-free windows of every kind, and how long it takes beside all of ours."""
    names = (
        "evidently_flags_columns_without_drift",
        "window_speed_vs_evidently",
        "evidently_scores_as_in_the_power_tables",
    )
    if not sizes.peer_windows:
        return Found(claims=[Claim(name, None, "for comparison", None, "left out of the smoke run") for name in names])
    found, slowest = Found(), []
    for kind, rows in itertools.product(sizes.kinds or KINDS, sizes.window_rows):
        if kind == "real" and not ELEC2.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            row = _beside(Path(temporary), kind, rows, sizes.peer_windows)
        if "problem" in row:
            return Found(claims=[Claim(name, None, "for comparison", None, row["problem"]) for name in names])
        found.rows.append(row)
        slowest.append(row["rows / CPU s"]["headrace"] / row["rows / CPU s"]["Evidently"])
    apart = max((row["apart at most"] for row in found.rows if row["apart at most"] is not None), default=None)
    flagged = sum(row["alarms"]["Evidently"] for row in found.rows) / sum(row["windows"] for row in found.rows)
    least = min(slowest)
    found.claims = [
        Claim(names[0], round(flagged, 3), "for comparison", True, "share of drift-free windows with a drifted column"),
        Claim(
            names[2],
            apart,
            "<= 0.001",
            None if apart is None else apart <= 0.001,
            "its own score of each column against the one that stands for it in the power tables",
        ),
        Claim(names[1], round(least, 1), ">= 20", least >= 20, "all our statistics over its drift preset, worst row"),
    ]
    return found


def _beside(folder: Path, kind: str, rows: int, windows: int) -> dict[str, Any]:
    monitor, ours, alarms, scores = Monitor(window=rows, false_alarms=BUDGET), [], 0, []
    for number, one in enumerate(itertools.islice(KINDS[kind](rows, rows), windows)):
        for name, frame in (("reference", one.known), ("window", one.window)):
            pq.write_table(pa.table(dict(frame.inputs)), folder / f"{name}_{number:03d}.parquet")
        started = time.process_time()
        alarms += judge_frame(one.window, one.reference, monitor).consequence is not Consequence.NONE
        ours.append(time.process_time() - started)
        counted = known(one.known)
        scores.append({name: distance(counted, name, values) for name, values in one.window.inputs.items()})
    problem = run_peer("evidently", folder)
    if problem:
        return {"problem": problem}
    document = json.loads((folder / "evidently.json").read_text())
    theirs, bare = ([one[key] for one in document["windows"]] for key in ("cpu_s", "bare_cpu_s"))
    apart = [
        abs(own[name] - value)
        for own, one in zip(scores, document["windows"], strict=True)
        for name, value in one["scores"].items()
    ]
    return {
        "part": "evidently", "data": kind, "rows": rows, "windows": windows, "version": document["version"],
        "alarms": {"headrace": alarms, "Evidently": sum(one["drifted"] > 0 for one in document["windows"])},
        "rows / CPU s": {"headrace": round(rows / float(np.median(ours))),
                         "Evidently": round(rows / float(np.median(theirs))),
                         "Evidently's bare tests": round(rows / float(np.median(bare)))},
        "scores compared": len(apart), "apart at most": max(apart, default=None),
    }  # fmt: skip
