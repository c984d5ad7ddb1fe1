"""The news classifier: accuracy and training cost beside TF-IDF + LinearSVC and a bare PyTorch loop, then the endpoint.

    .venv/bin/python -m benchmarks.news --json [--smoke] [--data FOLDER] [--transformer ENCODER_FOLDER [--rows 2500]]
    .venv/bin/python -m benchmarks.news --json --choose [--transformer ENCODER_FOLDER]

AG News is read from `../shared/data` unless `--data` says where else. Without it the project's own headlines are used,
and what needs AG News is printed as not measured. `--choose` tries settings on validation rows, reads no test file,
and says whether the scripts' defaults are what wins.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import load
from benchmarks.news_protocols import ASKERS, MODEL
from benchmarks.report import ROOT, Claim, report
from headrace.config.component import Serve
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.environment.uv import UvEnvironments
from headrace.serving.offline import answers
from headrace.serving.worker_child import folder_digest
from headrace.types import ServedVersion, Stage

EXAMPLE = ROOT / "examples" / "news_classifier"
CLASSES = ("world", "sports", "business", "science")
BATCHES = (1, 64)
SMOKE_ROWS = 2000
#: The defaults of train.py and transformer.py.
CHOSEN: dict[str, dict[str, Any]] = {
    "main": {"kinds": ["word", "stem", "pair"], "fewest_texts": 2, "dropout": 0.5, "learning_rate": 0.0025},
    "transformer": {"learning_rate": 5e-5, "epochs": 2},
}
Found = dict[str, dict[str, Any]]


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
    parser.add_argument("--choose", action="store_true", help="try settings on validation rows (many minutes)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--transformer", default="", help="also fine-tune this encoder (many minutes on a CPU)")
    parser.add_argument("--rows", type=int, default=2500, help="what the transformer and its rivals learn from")
    options = parser.parse_args()
    settings = read_settings().prepare()
    environments = UvEnvironments(settings)
    environment = environments.build(environments.lock(EXAMPLE), progress=lambda text: print(text, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="news-") as scratch:
        work = Path(scratch)
        files = find_files(options.data, work, smoke=options.smoke)
        child = Child(environment.python, files, work)
        if options.choose:
            print(choose(child, options.transformer, options.rows))
            return
        found = child.learn(SMOKE_ROWS if options.smoke else 0)
        equal = child.learn(options.rows, options.transformer) if options.transformer else {}
        model = Path(found["main"].pop("model"))
        version = ServedVersion(MODEL, 1, model, environment.python, seal=folder_digest(str(model)))
        served = serve(settings, version, files.test, work, smoke=options.smoke)
        print(report("news", table(found, equal, served), claims(found, equal, served, files)))


@dataclass(frozen=True)
class Child:
    """What runs in the component's own environment."""

    python: Path
    files: Files
    work: Path

    def learn(self, rows: int, encoder: str = "") -> dict[str, dict[str, Any]]:
        """Train on so many rows (0: all), and return what was measured for each way."""
        work = self.work / f"rows-{rows}"
        work.mkdir()
        found: dict[str, dict[str, Any]] = self._run(
            "news_child.py", self.files.train, self.files.test, rows, work, encoder
        )
        return found

    def choose(self, rows: int, encoder: str = "") -> list[dict[str, Any]]:
        """Try settings, and return what validation says of each."""
        found: list[dict[str, Any]] = self._run("news_choice.py", self.files.train, rows, self.work, encoder)
        return found

    def _run(self, script: str, *words: Any) -> Any:
        done = subprocess.run(
            [str(word) for word in (self.python, ROOT / "benchmarks" / script, EXAMPLE, *words) if word != ""],
            env=read_settings().child_environment(), stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{script} failed; see above.")
        return json.loads(done.stdout.strip().splitlines()[-1])


def choose(child: Child, encoder: str, rows: int) -> str:
    """Return the document that says which settings validation likes best, and whether they are the scripts' own."""
    tried = child.choose(rows, encoder) if encoder else child.choose(0)
    own = CHOSEN["transformer" if encoder else "main"]
    chosen = {name: tried[-1][name] for name in own}
    claim = Claim("defaults_are_what_validation_chose", json.dumps(chosen), json.dumps(own), chosen == own)
    return report("news --choose", tried, [claim])


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


@dataclass(frozen=True)
class Served:
    """What the endpoint did."""

    rows: list[dict[str, Any]]
    compared: dict[str, float]
    other_labels: int
    texts: int
    failed: int


def serve(settings: Settings, version: ServedVersion, test: Path, work: Path, *, smoke: bool) -> Served:
    """Compare served with offline answers at several batch sizes, then load the endpoint."""
    texts = read_texts(test)[: 200 if smoke else 1000]
    inputs = {"text": np.array(texts, dtype=object)}
    offline = answers(version, inputs)
    target = ProcessTarget(replace(settings, home=work / "home").prepare())
    status = target.apply(Route(version.component, Stage.PRODUCTION, [version], {1: 1.0}, Serve(deadline_ms=20_000)))
    try:
        compared, others = {}, 0
        with httpx.Client(base_url=status.endpoint.url, timeout=60, trust_env=False) as client:
            for ask, size in itertools.product(ASKERS, BATCHES):
                answered = [row for at in range(0, len(texts), size) for row in ask(client, texts[at : at + size])]
                others += sum(row["label"] != label for row, label in zip(answered, offline["label"], strict=True))
                gaps = [np.abs([row[name] for row in answered] - offline[name]).max() for name in CLASSES]
                compared[f"{ask.__name__} at {size}"] = float(max(gaps))
        rows, failed = load_it(status.endpoint.url, status.endpoint.pid, texts, 1 if smoke else 8)
        return Served(rows, compared, others, len(texts), failed)
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


def table(found: Found, equal: Found, served: Served) -> list[dict[str, Any]]:
    """Return the rows of the document."""
    rows = [{"what": name, **row} for name, row in found.items()]
    rows += [{"what": f"{name}, equal rows", **row} for name, row in equal.items()]
    for row in rows:
        row.pop("model", None)
    rounded = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows
    ]
    differences = [{"what": f"served by {name}", "largest_difference": gap} for name, gap in served.compared.items()]
    return [*rounded, *differences, *served.rows]


def claims(found: Found, equal: Found, served: Served, files: Files) -> list[Claim]:
    """Return what is claimed, and whether it holds."""
    ours, machine = found["main"], found["tfidf_svc"]
    gap = round(machine["accuracy"] - ours["accuracy"], 4)
    seen = f"{ours['accuracy']:.4f} against {machine['accuracy']:.4f} on {ours['test_rows']} rows of {files.test.name}"
    no_data = "" if files.is_ag_news else "AG News is not there; give its folder with --data"
    largest = max(served.compared.values())
    same = served.other_labels == 0 and largest <= 1e-5
    what = f"{served.texts} texts by {len(served.compared)} protocols and batches; {served.other_labels} other labels"
    return [
        Claim("accuracy_under_tfidf_svc", gap, "<= 0.01", None if no_data else gap <= 0.01, no_data or seen),
        Claim(
            "train_cpu_s", round(ours["train_cpu_s"], 1), "<= 60", ours["train_cpu_s"] <= 60, "Lightning, one thread"
        ),
        Claim("served_minus_offline_probability", largest, "<= 1e-5 and the same labels", same, what),
        Claim("failed_requests", served.failed, "== 0", served.failed == 0, "1, 8 and 64 connections"),
        transformer_claim(equal),
    ]


def transformer_claim(equal: Found) -> Claim:
    name, bar = "transformer_above_main", "> 0 on equal rows"
    if not equal:
        return Claim(name, None, bar, None, "needs many minutes; run with --transformer ENCODER_FOLDER")
    ours, theirs = equal["main"], equal["transformer"]
    value = round(theirs["accuracy"] - ours["accuracy"], 4)
    seen = f"{theirs['accuracy']:.4f} against {ours['accuracy']:.4f} on {ours['test_rows']} test rows; learned from "
    seen += f"{ours['rows']} rows each, in {theirs['train_cpu_s']:.0f} against {ours['train_cpu_s']:.1f} CPU s"
    return Claim(name, value, bar, value > 0, seen)


if __name__ == "__main__":
    main()
