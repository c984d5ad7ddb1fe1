"""Estimated quality beside NannyML's, on NannyML's own data."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.monitoring_parts import Found, Sizes, run_peer
from benchmarks.report import Claim
from headrace.evaluation.answers import Answers
from headrace.evaluation.base import Rows
from headrace.monitoring.columns import expand
from headrace.monitoring.reference import build
from headrace.types import Task


def estimates(sizes: Sizes) -> Found:
    """Mean error of estimated quality against what labels show, on NannyML's own data."""
    if not sizes.peer_windows:
        return Found(claims=[Claim("estimates_vs_nannyml", None, "<= NannyML's", None, "left out of the smoke run")])
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
                      row["headrace"] <= row["nannyml"],
                      f"mean error of {row['metric']} over {row['chunks']} chunks; apart by {row['apart']}, with a "
                      f"standard error of {row['standard error of apart']}")
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
    apart = np.array(ours) - np.array(theirs)
    error = float(apart.std(ddof=1)) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
    return {
        "part": "estimates", "data": path.stem, "metric": "accuracy" if is_class else "mean absolute error",
        "chunks": len(ours), "headrace": round(float(np.mean(ours)), 6), "nannyml": round(float(np.mean(theirs)), 6),
        "apart": round(float(apart.mean()), 6), "standard error of apart": round(error, 6),
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
