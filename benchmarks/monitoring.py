"""False alarms, power, estimated quality and speed of the watch, beside Evidently, NannyML, KS, ADWIN and PageHinkley.

    .venv/bin/python -m benchmarks.monitoring --json [--smoke] [--only power,loss]

Evidently and NannyML run in environments of their own, made by uv in a temporary folder, telemetry off. Windows of the
power tables are judged at equal false-alarm rates: each detector's threshold is the one that fires on 1 % of
drift-free windows. What cannot be run is a claim that holds neither way, with its reason.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import binom

from benchmarks.monitoring_elec2 import SWITCHED, retrained, switched
from benchmarks.monitoring_rivals import adwin, evidently_default, page_hinkley, plain_ks
from benchmarks.monitoring_streams import SHIFTS, Shift, real, reference_of, stream, without_answers
from benchmarks.report import ROOT, Claim, report
from headrace.config.component import Monitor
from headrace.config.settings import read_settings
from headrace.environment.uv import UvEnvironments
from headrace.evaluation.answers import Answers
from headrace.evaluation.base import Rows
from headrace.monitoring.base import Consequence
from headrace.monitoring.columns import expand
from headrace.monitoring.frame import Frame
from headrace.monitoring.judge import judge_frame, watch_frame
from headrace.monitoring.memory import Memory
from headrace.monitoring.profiles import numbers
from headrace.monitoring.reference import Reference, build
from headrace.monitoring.signals.inputs import InputDrift
from headrace.monitoring.statistics.sequential import EDetector
from headrace.predictions import snapshot
from headrace.predictions.actuals import SCHEMA
from headrace.predictions.manifest import Manifest, Segment, write_manifest
from headrace.predictions.query import connect
from headrace.predictions.tables import write_parquet
from headrace.types import Task

BUDGET = 0.001
ELEC2 = ROOT.parent / "shared" / "data" / "elec2.parquet"
AG_NEWS = ROOT.parent / "shared" / "data" / "ag_news_train.parquet"
PEERS = {"nannyml": ["nannyml", "statsmodels"], "evidently": ["evidently", "pandas<3"]}


@dataclass
class Found:
    """What one part measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    windows: int
    evidently: int
    trials: int
    nulls: int
    loss_trials: int
    peer_rows: int
    speed_rows: int
    predictions: int
    actuals: int


FULL = Sizes(5000, 30, 200, 1000, 300, 1_000_000, 600_000, 10_000_000, 500_000)
SMOKE = Sizes(60, 0, 30, 100, 40, 15_000, 60_000, 300_000, 15_000)


def false_alarms(sizes: Sizes) -> Found:
    """Drift-free windows: how many raise any alarm."""
    found = Found()
    sources: dict[str, Callable[[int, int], tuple[Reference, Callable[[], Frame]]]] = {
        "independent": lambda seed, rows: _synthetic(seed, rows, 0.0),
        "autocorrelated": lambda seed, rows: _synthetic(seed, rows, 0.7),
    }
    if ELEC2.exists():
        sources["resampled real"] = _resampled
    for kind, make in sources.items():
        for rows in (500, 5000):
            windows, alarms, started = 0, 0, time.process_time()
            while windows < sizes.windows:
                # A fresh reference now and then, so that one lucky or unlucky one does not decide.
                _, draw = made = make(windows + rows, rows)
                for _ in range(min(25, sizes.windows - windows)):
                    found_alarm = judge_frame(draw(), made[0], Monitor(window=rows, false_alarms=BUDGET))
                    alarms += found_alarm.consequence is not Consequence.NONE
                    windows += 1
            allowed = int(binom.ppf(0.95, windows, BUDGET))
            spent = time.process_time() - started
            found.rows.append(
                {"part": "false alarms", "data": kind, "rows": rows, "windows": windows, "alarms": alarms,
                 "allowed": allowed, "cpu_s": round(spent, 1)}
            )  # fmt: skip
            found.claims.append(
                Claim(f"false_alarms_{kind.replace(' ', '_')}_{rows}", alarms, f"<= {allowed}", alarms <= allowed,
                      f"{windows} windows at {BUDGET} each; 95 % of fair monitors stay at or below {allowed}")
            )  # fmt: skip
    if "resampled real" not in sources:
        found.claims.append(Claim("false_alarms_resampled_real", None, "<= budget", None, f"{ELEC2.name} is absent"))
    found.claims += _evidently(sizes, found.rows)
    return found


def _synthetic(seed: int, rows: int, memory: float) -> tuple[Reference, Callable[[], Frame]]:
    chance = np.random.default_rng(seed)
    reference = reference_of(stream(chance, 5000, memory=memory), in_time_order=memory > 0)
    return reference, lambda: stream(chance, rows, memory=memory)


def _resampled(seed: int, rows: int) -> tuple[Reference, Callable[[], Frame]]:
    chance, source = np.random.default_rng(seed), real(ELEC2)
    order = chance.permutation(len(source.truth))
    known, rest = order[:3000], order[3000:]
    return reference_of(source.window(known)), lambda: source.window(chance.choice(rest, rows, replace=False))


def _evidently(sizes: Sizes, rows: list[dict[str, Any]]) -> list[Claim]:
    name = "evidently_flags_columns_without_drift"
    if not sizes.evidently:
        return [Claim(name, None, "for comparison", None, "left out of the smoke run")]
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pq.write_table(pa.table(dict(stream(chance, 5000).inputs)), folder / "reference.parquet")
        for number in range(2 * sizes.evidently):
            size = 500 if number < sizes.evidently else 5000
            pq.write_table(pa.table(dict(stream(chance, size).inputs)), folder / f"window_{number:03d}.parquet")
        problem = run_peer("evidently", folder)
        if problem:
            return [Claim(name, None, "for comparison", None, problem)]
        document = json.loads((folder / "evidently.json").read_text())
    for size in (500, 5000):
        part = [one for one in document["windows"] if one["rows"] == size]
        flagged = sum(one["drifted"] > 0 for one in part)
        rows.append(
            {"part": "false alarms", "data": "independent", "rows": size, "windows": len(part), "alarms": flagged,
             "tool": f"Evidently {document['version']}", "cpu_s": round(sum(one["cpu_s"] for one in part), 1)}
        )  # fmt: skip
    flagged = sum(one["drifted"] > 0 for one in document["windows"]) / len(document["windows"])
    return [Claim(name, round(flagged, 3), "for comparison", True, f"{len(document['windows'])} windows")]


def power(sizes: Sizes) -> Found:
    """Rows needed to see each shift in 80 % of windows, at 1 % false alarms for each detector."""
    found, chance = Found(), np.random.default_rng(7)
    reference = stream(chance, 5000)
    profile = build(reference.rows(), task=Task.CLASSIFICATION, inputs=reference.inputs)
    grid = [100, 200, 400, 800, 1600, 3200]
    detectors: dict[str, Callable[[Frame], float]] = {
        "headrace": lambda window: _drift_score(profile, window),
        "plain KS": lambda window: plain_ks(reference, window),
        "Evidently's default tests": lambda window: evidently_default(reference, window),
    }
    limits = {}
    for rows in grid:
        # The same drift-free windows for every detector, so that none is lucky in its threshold alone.
        steady = [stream(chance, rows) for _ in range(sizes.nulls)]
        for name, score in detectors.items():
            limits[name, rows] = float(np.quantile([score(window) for window in steady], 0.01))
    for shift in SHIFTS:
        needed = {
            name: _rows_needed(score, [limits[name, rows] for rows in grid], grid, shift, sizes.trials)
            for name, score in detectors.items()
        }
        found.rows.append({"part": "power", "shift": shift.name, "rows for 80 %": needed})
    found.claims += _power_claims(found.rows, "rows for 80 %", "inputs")
    return found


def _drift_score(profile: Reference, window: Frame) -> float:
    seen = without_answers(window)
    columns = expand(seen.inputs, profile.fields)
    drifts = InputDrift(profile, level=0.01).drifts(Frame(seen.inputs, seen.answers, seen.truth, seen.labelled,
                                                          watched=columns))  # fmt: skip
    return min(one.p_value for one in drifts)


def _rows_needed(
    score: Callable[[Frame], float], limits: list[float], grid: list[int], shift: Shift, trials: int
) -> float:
    shares = []
    for limit, rows in zip(limits, grid, strict=True):
        chance = np.random.default_rng(rows)  # The same windows for every detector.
        shares.append(np.mean([score(stream(chance, rows, shift=shift)) <= limit for _ in range(trials)]))
        if shares[-1] >= 0.95:
            break
    reached = np.flatnonzero(np.array(shares) >= 0.8)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    if at == 0:
        return float(grid[0])
    part = (0.8 - shares[at - 1]) / max(shares[at] - shares[at - 1], 1e-9)
    return round(float(np.exp(np.log(grid[at - 1]) * (1 - part) + np.log(grid[at]) * part)))


def loss(sizes: Sizes) -> Found:
    """Rows from a rise of the error rate to its alarm, where each detector fires on 5 % of 4,000 drift-free rows."""
    found, before, length = Found(), 500, 4000
    steady = [_losses(seed, length, 0.1, 0.1, 0) for seed in range(sizes.loss_trials)]
    made: dict[str, Callable[[np.ndarray, float], int]] = {
        "headrace": lambda losses, limit: EDetector(0.1, 1 / limit).watch(losses).fired_at,
        "PageHinkley": page_hinkley,
        "ADWIN": lambda losses, limit: adwin(losses, 1 / limit),
    }
    limits = {name: _equal(detect, steady) for name, detect in made.items()}
    for worse in (0.13, 0.15, 0.2, 0.3, 0.5):
        streams = [_losses(10_000 + seed, length, 0.1, worse, before) for seed in range(sizes.loss_trials)]
        delays = {
            name: round(float(np.mean([_delay(detect(one, limits[name]), before, length) for one in streams])))
            for name, detect in made.items()
        }
        found.rows.append({"part": "loss", "error": f"0.10 to {worse:.2f}", "rows to the alarm": delays})
    found.claims += _power_claims(found.rows, "rows to the alarm", "losses")
    return found


def _losses(seed: int, length: int, before: float, after: float, change: int) -> np.ndarray:
    rates = np.where(np.arange(length) < change, before, after)
    return (np.random.default_rng(seed).random(length) < rates).astype(float)


def _delay(fired: int, before: int, length: int) -> int:
    # An alarm before the change is a false one; what follows is then counted from the change, as for a late one.
    return fired - before if fired > before else length - before


def _equal(detect: Callable[[np.ndarray, float], int], steady: list[np.ndarray]) -> float:
    low, high = 0.0, 14.0
    for _ in range(18):
        middle = (low + high) / 2
        rate = np.mean([detect(one, float(np.exp(middle))) > 0 for one in steady])
        low, high = (middle, high) if rate > 0.05 else (low, middle)
    return float(np.exp(high))


def _power_claims(rows: list[dict[str, Any]], key: str, what: str) -> list[Claim]:
    first, late = 0, []
    for row in rows:
        best = min(value for name, value in row[key].items() if name != "headrace")
        ours = row[key]["headrace"]
        first += ours <= best
        late.append(ours / best if best < float("inf") else 0.0)
    evidence = "; ".join(f"{ratio:.2f}" for ratio in late)
    return [
        Claim(f"power_{what}_first_or_equal", round(first / len(rows), 2), ">= 0.8", first / len(rows) >= 0.8,
              f"against the best rival of each of {len(rows)} rows"),
        Claim(f"power_{what}_worst_delay", round(max(late), 2), "<= 1.2", max(late) <= 1.2,
              f"ours over the best rival's, by row: {evidence}"),
    ]  # fmt: skip


def estimates(sizes: Sizes) -> Found:
    """Mean error of estimated quality against what labels show, on NannyML's own data."""
    found = Found()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        problem = run_peer("nannyml", folder, str(sizes.peer_rows))
        if problem:
            return Found(claims=[Claim("estimates_vs_nannyml", None, "<= NannyML's", None, problem)])
        for path in sorted(folder.glob("*.json")):
            row = _estimated(folder, path)
            found.rows.append(row)
            found.claims.append(
                Claim(f"estimate_error_{path.stem}", row["headrace"], f"<= {row['nannyml']}",
                      row["headrace"] <= row["nannyml"], f"mean error of {row['metric']} over {row['chunks']} chunks")
            )  # fmt: skip
    return found


def _estimated(folder: Path, path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    is_class = document["problem"] != "regression"
    reference, analysis = (pq.read_table(folder / f"{path.stem}_{part}.parquet") for part in ("reference", "analysis"))
    started = time.process_time()
    profile = build(
        _rows_of(document, reference), task=Task.CLASSIFICATION if is_class else Task.REGRESSION,
        inputs=_inputs_of(document, reference),
    )  # fmt: skip
    assert profile.estimator is not None
    ours, theirs = [], []
    for (first, last), estimate in zip(document["bounds"], document["estimates"], strict=True):
        chunk = analysis.slice(first, last - first + 1)
        rows = _rows_of(document, chunk)
        watched = expand(_inputs_of(document, chunk), profile.fields)
        expected = float(profile.estimator.losses(Answers(rows.answer, rows.scores, rows.classes), watched).mean())
        if is_class:
            shown = float(np.mean(rows.answer == rows.truth))
            expected = 1 - expected
        else:
            shown = float(np.mean(np.abs(rows.answer - rows.truth)))
        ours.append(abs(expected - shown))
        theirs.append(abs(estimate - shown))
    return {
        "part": "estimates", "data": path.stem, "metric": "accuracy" if is_class else "mean absolute error",
        "chunks": len(ours), "headrace": round(float(np.mean(ours)), 6), "nannyml": round(float(np.mean(theirs)), 6),
        "cpu_s": round(time.process_time() - started, 1), "nannyml_version": document["version"],
    }  # fmt: skip


def _rows_of(document: dict[str, Any], table: pa.Table) -> Rows:
    truth, answer = (np.asarray(table[document[key]].to_pylist()) for key in ("truth", "answer"))
    if document["problem"] == "regression":
        return Rows(np.arange(len(truth)), truth.astype(float), answer.astype(float))
    scores = np.stack([table[name].to_numpy() for name in document["scores"]], axis=1)
    classes = np.array(document["classes"]) if document["classes"] else np.arange(2)
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
        truth, answer = truth.astype(int), answer.astype(int)
    return Rows(np.arange(len(truth)), truth, answer, scores, {}, classes)


def _inputs_of(document: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    found = {}
    for name in document["features"]:
        column = table[name]
        found[name] = column.to_numpy() if not pa.types.is_string(column.type) else np.array(column.to_pylist(), object)
    return found


def speed(sizes: Sizes) -> Found:
    """Rows per CPU second: all window statistics, and histograms alone; and whether memory grows with windows."""
    chance = np.random.default_rng(0)
    profile = reference_of(stream(chance, 5000))
    window = stream(chance, sizes.speed_rows // 4)
    monitor = Monitor(window=len(window), false_alarms=BUDGET)
    judge_frame(window, profile, monitor)
    spent = []
    for _ in range(7):
        started = time.process_time()
        judge_frame(window, profile, monitor)
        spent.append(time.process_time() - started)
    everything = len(window) / min(spent)
    columns = [chance.standard_normal(sizes.speed_rows) for _ in range(30)]
    before = numbers(columns[0][:5000])
    started = time.process_time()
    for values in columns:
        before.count(values)
    histograms = sizes.speed_rows / (time.process_time() - started)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        judge_frame(stream(chance, 5000), profile, monitor)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    row = {
        "part": "speed",
        "all statistics": round(everything),
        "histograms": round(histograms),
        "unit": "rows / CPU s",
    }
    return Found([row], [
        Claim("window_rows_per_cpu_s", round(everything), ">= 150000", everything >= 150_000,
              f"30 columns, windows of {len(window)} rows, the least disturbed of seven"),
        Claim("histogram_rows_per_cpu_s", round(histograms), ">= 500000", histograms >= 500_000, "30 columns"),
        Claim("memory_growth_mb", round(grown, 1), "<= 20", grown <= 20, "over ten further windows of 5,000 rows"),
    ])  # fmt: skip


def join(sizes: Sizes) -> Found:
    """Late actuals joined to many predictions, in DuckDB over Parquet."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "component"
        first, last = _fill(folder, sizes.predictions, sizes.actuals)
        seen = snapshot.take(folder)
        started, cpu = time.perf_counter(), time.process_time()
        with connect(seen, since=first, until=last) as connection:
            found = connection.execute("SELECT count(*) FROM joined WHERE labelled").fetchone()
        spent, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert found is not None
    assert found[0] == sizes.actuals
    evidence = f"{sizes.actuals} actuals, {sizes.predictions} predictions, {cpu:.1f} CPU s"
    row = {"part": "join", "wall_s": round(spent, 2), "cpu_s": round(cpu, 2), "predictions": sizes.predictions}
    return Found([row], [Claim("join_late_actuals_s", round(spent, 2), "< 10", spent < 10, evidence)])


def _fill(folder: Path, predictions: int, actuals: int) -> tuple[str, str]:
    chance, start, step = np.random.default_rng(0), 1_700_000_000_000, 30
    part, segments, last_ids = min(1_000_000, predictions // 3), [], np.empty((0, 16), np.uint8)
    for number, begin in enumerate(range(0, predictions, part)):
        rows = min(part, predictions - begin)
        moments = start + step * np.arange(begin, begin + rows, dtype=np.int64)
        ids = _ids(chance, moments)
        table = pa.table({
            "id": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.tobytes() for one in ids], pa.binary(16))),
            "made_at": pa.array(moments * 1000, pa.timestamp("us")),
            "version": pa.array(np.ones(rows, np.int32)), "latency_ms": pa.array(np.ones(rows, np.float32)),
            "shadow": pa.array(np.zeros(rows, bool)), "in_x": pa.array(chance.random(rows)),
            "out_": pa.array(chance.integers(0, 4, rows)),
        })  # fmt: skip
        path = f"segments/version=1/day=2023-11-14/{number}.parquet"
        size = write_parquet(table, folder / path)
        segments.append(Segment(path, rows, size, str(table["id"][0]), str(table["id"][-1]), 1, "2023-11-14"))
        last_ids = np.concatenate([last_ids, ids])[-2 * actuals :]
    chosen = last_ids[np.sort(chance.choice(len(last_ids), actuals, replace=False))]
    path = "truths/0.parquet"
    text = pa.array(["1"] * actuals)
    now = pa.array(np.zeros(actuals, np.int64), pa.timestamp("us"))
    table = pa.table([
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.tobytes() for one in chosen], pa.binary(16))),
        pa.nulls(actuals, pa.string()), text, pa.array(np.ones(actuals)), text,
        now, now, pa.array(np.arange(actuals)),
    ], schema=SCHEMA)  # fmt: skip
    size = write_parquet(table, folder / path)
    first, last = str(table["id"][0]), str(table["id"][-1])
    write_manifest(folder, Manifest(tuple(segments), (Segment(path, actuals, size, first, last),), sequence=actuals))
    return first, last


def _ids(chance: np.random.Generator, moments: np.ndarray) -> np.ndarray:
    raw = chance.integers(0, 256, (len(moments), 16), dtype=np.uint8)
    for byte in range(6):
        raw[:, byte] = (moments >> (40 - 8 * byte)) & 255
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    return raw


def run_peer(name: str, folder: Path, *arguments: str) -> str:
    """Run a peer's script in an environment of its own; return why it could not, or nothing."""
    place = Path(tempfile.gettempdir()) / f"headrace-benchmark-{os.getuid()}" / name
    uv = Path(sys.executable).parent / "uv"
    extra = [f"--find-links={os.environ['PIP_FIND_LINKS']}"] if os.environ.get("PIP_FIND_LINKS") else []
    environment = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}
    script = ROOT / "benchmarks" / "peers" / f"monitoring_{name}.py"
    steps = [
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, place],
        [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python", *extra, *PEERS[name]],
        [place / "bin" / "python", script, folder, *arguments],
    ]
    for step in steps:
        run = subprocess.run(step, capture_output=True, text=True, env=environment, check=False, timeout=3600)
        if run.returncode:
            return f"{Path(str(step[0])).name} ended with {run.returncode}: {run.stderr.strip()[-300:]}"
    return ""


def elec2(sizes: Sizes) -> Found:
    """Electricity prices in time order: what switches on is named; retraining helps where the gate lets it through."""
    if not ELEC2.exists():
        return Found(claims=[Claim("elec2", None, "named, and better", None, f"{ELEC2.name} is absent")])
    named, story = switched(ELEC2), retrained(ELEC2)
    after, before = named["named in the two windows after it"], named["named before the switch"]
    gain, lost = story["gain of the accepted"], story["gain the refused would have had"]
    accepted, refused = story["accepted"], story["refused"]
    return Found([named, story], [
        Claim("elec2_columns_named", ", ".join(after), ", ".join(sorted(SWITCHED)) + ", and none before",
              after == sorted(SWITCHED) and not before, "windows of 500 rows"),
        Claim("elec2_gain_of_accepted", gain, "> 0", gain > 0 if accepted else None,
              f"{accepted} accepted, accuracy on the next 1,000 rows; {story['accepted and worse by 0.02']} worse"),
        Claim("elec2_gain_of_refused", lost, "<= 0", lost <= 0 if refused else None,
              f"{refused} refused; {story['refused though better by 0.02']} of them better by 0.02"),
    ])  # fmt: skip


#: What a stream of news must lead to, decided before the first run: in its last window, and never beyond it before.
VERDICTS = {
    "control": Consequence.NONE, "class mix": Consequence.WARN, "two classes swapped": Consequence.RETRAIN,
    "html double-escaped": Consequence.WARN, "five words only": Consequence.RETRAIN, "lower-cased": Consequence.WARN,
    "a new topic": Consequence.REBUILD,
}  # fmt: skip


def news(sizes: Sizes) -> Found:
    """Streams of AG News that change in known ways, two windows of 500 labelled predictions each."""
    if not AG_NEWS.exists():
        return Found(claims=[Claim("news_streams", None, "the right verdicts", None, f"{AG_NEWS.name} is absent")])
    environments, example = UvEnvironments(read_settings()), ROOT / "examples" / "news_classifier"
    python = environments.build(environments.lock(example), progress=lambda text: print(text, file=sys.stderr)).python
    found = Found()
    with tempfile.TemporaryDirectory() as temporary:
        command = [python, ROOT / "benchmarks" / "news_streams.py", example, AG_NEWS, temporary]
        subprocess.run(command, check=True, env=read_settings().child_environment())
        holdout = _news_frame(Path(temporary) / "holdout.parquet")
        reference = build(holdout.rows(), task=Task.CLASSIFICATION, inputs=holdout.inputs)
        for name, expected in VERDICTS.items():
            row = _verdicts(_news_frame(Path(temporary) / f"{name}.parquet"), reference)
            found.rows.append({"part": "news", "stream": name, **row})
            said = row["verdicts"]
            holds = said[-1] == expected.value and (expected is Consequence.RETRAIN or "retrain" not in said)
            evidence = f"accuracy {row['accuracy']:.3f} where the holdout has {reference.metrics['accuracy']:.3f}"
            found.claims.append(
                Claim(f"news_{name.replace(' ', '_')}", ", ".join(said), expected.value, holds, evidence)
            )
    return found


def _news_frame(path: Path) -> Frame:
    table = pq.read_table(path)
    classes = np.array([name for name in table.column_names if name not in ("text", "truth")])
    scores = np.stack([table[name].to_numpy() for name in classes], axis=1)
    texts, truth = (np.array(table[name].to_pylist(), object) for name in ("text", "truth"))
    answers = Answers(classes[scores.argmax(axis=1)], scores, classes)
    return Frame({"text": texts}, answers, truth, np.ones(len(texts), bool))


def _verdicts(frame: Frame, reference: Reference, rows: int = 500) -> dict[str, Any]:
    memory, said, sentences = Memory(), [], []
    for start in range(0, len(frame) - rows + 1, rows):
        part = slice(start, start + rows)
        scores = frame.answers.scores
        assert scores is not None
        window = Frame(
            {name: values[part] for name, values in frame.inputs.items()},
            Answers(frame.answers.answer[part], scores[part], frame.answers.classes),
            frame.truth[part], frame.labelled[part],
        )  # fmt: skip
        watched = watch_frame(window, reference, Monitor(window=rows, false_alarms=BUDGET), memory, version=1)
        memory = watched.memory
        said.append(watched.alarm.consequence.value)
        sentences.append(watched.alarm.sentence)
    accuracy = float(np.mean(frame.answers.answer == frame.truth))
    return {"verdicts": said, "accuracy": round(accuracy, 4), "sentences": sentences}


PARTS: dict[str, Callable[[Sizes], Found]] = {
    "speed": speed, "join": join, "loss": loss, "power": power, "estimates": estimates, "false_alarms": false_alarms,
    "news": news,
    "elec2": elec2,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the only way it prints")
    parser.add_argument("--smoke", action="store_true", help="the same claims on smaller numbers, without peers")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run")
    parser.add_argument("--windows", type=int, help="drift-free windows of each kind")
    parser.add_argument(
        "--trials", type=int, help="shifted windows of each kind and size; four times as many steady ones"
    )
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else FULL
    if options.windows:
        sizes = Sizes(**{**sizes.__dict__, "windows": options.windows})
    if options.trials:
        sizes = Sizes(**{**sizes.__dict__, "trials": options.trials, "nulls": 4 * options.trials})
    found = Found()
    for name in options.only.split(","):
        started = time.perf_counter()
        if name == "estimates" and options.smoke:
            found.claims.append(Claim("estimates_vs_nannyml", None, "<= NannyML's", None, "left out of the smoke run"))
            continue
        part = PARTS[name](sizes)
        found.rows += part.rows
        found.claims += part.claims
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(report("monitoring", found.rows, found.claims))


if __name__ == "__main__":
    main()
