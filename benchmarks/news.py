"""The news classifier: accuracy and training cost beside TF-IDF + LinearSVC and a bare PyTorch loop, then the endpoint.

    .venv/bin/python -m benchmarks.news --json [--smoke] [--data FOLDER] [--transformer ENCODER_FOLDER]

AG News is read from `../shared/data` unless `--data` says where else. Without it the project's own headlines are used,
and what needs AG News is printed as not measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import load
from benchmarks.report import ROOT, Claim, report
from headrace.client import Scorer
from headrace.config.component import Serve
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.environment.uv import UvEnvironments
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.offline import answers
from headrace.serving.worker_child import folder_digest
from headrace.types import ServedVersion, Stage

EXAMPLE = ROOT / "examples" / "news_classifier"
CLASSES = ("world", "sports", "business", "science")
BATCHES = (1, 64)


@dataclass(frozen=True)
class Files:
    """What is learned from and measured on."""

    train: Path
    test: Path
    is_ag_news: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry; the output is always JSON")
    parser.add_argument("--smoke", action="store_true", help="fewer rows and requests")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--transformer", default="", help="also fine-tune this encoder (minutes to an hour on a CPU)")
    options = parser.parse_args()
    settings = read_settings().prepare()
    environments = UvEnvironments(settings)
    environment = environments.build(environments.lock(EXAMPLE), progress=lambda text: print(text, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="news-") as scratch:
        work = Path(scratch)
        files = find_files(options.data, work, smoke=options.smoke)
        rows = "3000" if options.smoke or options.transformer else "0"
        found = learn(environment.python, files, rows, work, options.transformer)
        model = Path(found["main"].pop("model"))
        version = ServedVersion("news-classifier", 1, model, environment.python, seal=folder_digest(str(model)))
        served = serve(settings, version, files.test, work, smoke=options.smoke)
        print(report("news", table(found, served), claims(found, served, files)))


def find_files(folder: Path, work: Path, *, smoke: bool) -> Files:
    """Return AG News where it is, else the project's own headlines."""
    train, test = folder / "ag_news_train.parquet", folder / "ag_news_test.parquet"
    if not train.exists() or not test.exists():
        return Files(EXAMPLE / "headlines.csv", EXAMPLE / "headlines.csv", is_ag_news=False)
    if not smoke:
        return Files(train, test, is_ag_news=True)
    short = work / "test.parquet"
    pq.write_table(pq.read_table(test).slice(0, 1000), short)
    return Files(train, short, is_ag_news=True)


def learn(python: Path, files: Files, rows: str, work: Path, encoder: str) -> dict[str, dict[str, Any]]:
    """Train in the component's environment, and return what was measured for each way."""
    command = [python, ROOT / "benchmarks" / "news_child.py", EXAMPLE, files.train, files.test, rows, work]
    done = subprocess.run(
        [str(part) for part in (*command, *([encoder] if encoder else []))],
        env=read_settings().child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"The training failed: {done.stderr[-2000:]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@dataclass(frozen=True)
class Served:
    """What the endpoint did."""

    rows: list[dict[str, Any]]
    largest_difference: float
    other_labels: int
    texts: int
    failed: int


def serve(settings: Settings, version: ServedVersion, test: Path, work: Path, *, smoke: bool) -> Served:
    """Compare served with offline answers at several batch sizes, then load the endpoint."""
    texts = read_texts(test)[: 200 if smoke else 1000]
    inputs = {"text": np.array(texts, dtype=object)}
    offline = answers(version, inputs)
    signature = read_mlmodel(version.model).signature
    target = ProcessTarget(replace(settings, home=work / "home").prepare())
    status = target.apply(Route(version.component, Stage.PRODUCTION, [version], {1: 1.0}, Serve(deadline_ms=20_000)))
    try:
        largest, others = 0.0, 0
        with Scorer(status.endpoint.url) as scorer:
            for size in BATCHES:
                for start in range(0, len(texts), size):
                    part = slice(start, start + size)
                    scored = scorer.score(signature, {"text": inputs["text"][part]}).outputs
                    others += int(np.sum(scored["label"] != offline["label"][part]))
                    gaps = [np.abs(scored[name] - offline[name][part]).max() for name in CLASSES]
                    largest = max(largest, *map(float, gaps))
        rows, failed = load_it(status.endpoint.url, status.endpoint.pid, texts, 1 if smoke else 8)
        return Served(rows, largest, others, len(texts), failed)
    finally:
        target.remove(version.component, Stage.PRODUCTION)


def load_it(url: str, pid: int, texts: Sequence[str], seconds: float) -> tuple[list[dict[str, Any]], int]:
    """Load the endpoint with one text a request, after a warm-up that is not counted."""
    port = int(url.rpartition(":")[2])
    requests = [load.request("/invocations", json.dumps({"inputs": {"text": [text]}}).encode()) for text in texts[:200]]
    load.run(port, requests, connections=8, seconds=1)
    rows, failed = [], 0
    for connections in (1, 8, 64):
        window = load.run(port, requests, connections=connections, seconds=seconds, pid=pid)
        failed += window.failed
        rows.append(
            {
                "what": "endpoint", "connections": connections, "requests_per_s": round(window.rate, 1),
                "p50_ms": round(window.percentile_ms(50), 2), "p99_ms": round(window.percentile_ms(99), 2),
                "cpu_us_per_request": round(window.cpu_us, 1), "failed": window.failed,
            }
        )  # fmt: skip
    return rows, failed


def read_texts(path: Path) -> list[str]:
    """Return title and description of each row, as the example joins them."""
    if path.suffix == ".csv":
        import pyarrow.csv as pa_csv

        table: pa.Table = pa_csv.read_csv(path)
    else:
        table = pq.read_table(path)
    joined = zip(table.column("title").to_pylist(), table.column("description").to_pylist(), strict=True)
    return [" ".join(part for part in pair if part) for pair in joined]


def table(found: dict[str, dict[str, Any]], served: Served) -> list[dict[str, Any]]:
    """Return the rows of the document."""
    rounded = [
        {"what": name, **{key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}}
        for name, row in found.items()
    ]
    return [*rounded, *served.rows]


def claims(found: dict[str, dict[str, Any]], served: Served, files: Files) -> list[Claim]:
    """Return what is claimed, and whether it holds."""
    ours, machine = found["main"], found["tfidf_svc"]
    gap = round(machine["accuracy"] - ours["accuracy"], 4)
    seen = f"{ours['accuracy']:.4f} against {machine['accuracy']:.4f} on {files.test.name}"
    no_data = "" if files.is_ag_news else "AG News is not there; give its folder with --data"
    largest = served.largest_difference
    same = served.other_labels == 0 and largest <= 1e-5
    what = f"{served.texts} texts at batch {' and '.join(map(str, BATCHES))}; {served.other_labels} other labels"
    return [
        Claim("accuracy_under_tfidf_svc", gap, "<= 0.01", None if no_data else gap <= 0.01, no_data or seen),
        Claim(
            "train_cpu_s", round(ours["train_cpu_s"], 1), "<= 60", ours["train_cpu_s"] <= 60, "Lightning, one thread"
        ),
        Claim("served_minus_offline_probability", largest, "<= 1e-5 and the same labels", same, what),
        Claim("failed_requests", served.failed, "== 0", served.failed == 0, "1, 8 and 64 connections"),
        transformer_claim(found),
    ]


def transformer_claim(found: dict[str, dict[str, Any]]) -> Claim:
    name, bar = "transformer_above_main", "> 0 on equal rows"
    if "transformer" not in found:
        return Claim(name, None, bar, None, "needs minutes to an hour; run with --transformer ENCODER_FOLDER")
    theirs = found["transformer"]
    theirs.pop("model", None)
    value = round(theirs["accuracy"] - found["main"]["accuracy"], 4)
    return Claim(name, value, bar, value > 0, f"{theirs['accuracy']:.4f} after {theirs['train_cpu_s']:.0f} CPU s")


if __name__ == "__main__":
    main()
