"""Preflight: will this model serve? Asked of the very worker and interpreter that will, with every finding at once.

    preflight(version, …) -> Preflight      # .findings, first cause first; .numbers; .is_ready

Nothing is loaded before the static checks have passed: a folder that would unpickle is not tried out.
"""

import contextlib
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
from packaging.version import InvalidVersion, Version

from headrace.environment.distributions import installed
from headrace.errors import EnvironmentFailed, HeadraceError, ModelRefused
from headrace.lifecycle.evidence.causes import explain, last_frame
from headrace.provenance import golden
from headrace.provenance.baseline import packages as pinned
from headrace.provenance.compare import compare_packages
from headrace.provenance.formats import check_formats
from headrace.registry.mlmodel import MlModel, read_mlmodel
from headrace.serving import frames
from headrace.serving.layout import ANY_TENSOR, Rows, rows_of
from headrace.serving.warmup import example_rows
from headrace.serving.worker import Worker, start_worker
from headrace.types import Json, ServedVersion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to do about it; `is_blocking` unless the model would serve all the same."""

    check: str
    fact: str
    remedy: str
    is_blocking: bool = True

    def __str__(self) -> str:
        return f"{self.fact}. {self.remedy}"


@dataclass(slots=True)
class Preflight:
    """What was found. `numbers`: load_s, peak_mb, rows_checked, forward_ms by number of rows, golden_rows."""

    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, Json] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return not any(finding.is_blocking for finding in self.findings)

    def sentence(self) -> str:
        """Return what was measured, and what is advised, in a line."""
        told = [measured(self.numbers)] if self.numbers else []
        told += [f"golden answers at {self.numbers['golden_rows']} rows"] if "golden_rows" in self.numbers else []
        return "; ".join([", ".join(told), *(finding.fact for finding in self.findings)]).strip("; ")

    def refuse(self) -> None:
        """Raise ModelRefused with the first blocking finding, and count the others."""
        blocking = [finding for finding in self.findings if finding.is_blocking]
        if blocking:
            others = f" ({len(blocking) - 1} more findings: `headrace check`)" if len(blocking) > 1 else ""
            raise ModelRefused(f"{blocking[0].fact}{others}", blocking[0].remedy)


def measured(numbers: Mapping[str, Json]) -> str:
    """Return what a load and the first answers took: `loaded in 1.2 s, 312 MB, 0.21 ms for 1 row`."""
    forward = numbers.get("forward_ms")
    told = [f"loaded in {float(str(numbers['load_s'])):.1f} s"] if "load_s" in numbers else []
    told += [f"{float(str(numbers['peak_mb'])):.0f} MB"] if "peak_mb" in numbers else []
    for rows, ms in forward.items() if isinstance(forward, dict) else ():
        told.append(f"{float(str(ms)):.2g} ms for {rows} row{'' if rows == '1' else 's'}")
    return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a load and each batch may take, and how much memory the worker may hold."""

    timeout_s: float = 120.0
    memory_mb: float | None = None


def preflight(
    version: ServedVersion,
    *,
    variables: Mapping[str, str],
    trained_with: Mapping[str, str] | None = None,
    trained_python: str = "",
    limits: Limits = Limits(),
) -> Preflight:
    """Check a model in the interpreter that will serve it: look at it, load it, ask it.

    Args:
        variables: the worker's base environment.
        trained_with: distributions at training; None takes what the model's own requirements.txt pins.
        trained_python: the Python at training; empty takes what the MLmodel says.
    """
    result = inspect(version, variables=variables, trained_with=trained_with, trained_python=trained_python)
    may_load = not any(finding.check == "files" for finding in result.findings)
    if may_load and all(finding.check == "environment" for finding in result.findings if finding.is_blocking):
        _try(version, variables, limits, result)
    result.findings.sort(key=lambda finding: not finding.is_blocking)
    return result


def inspect(
    version: ServedVersion,
    *,
    variables: Mapping[str, str],
    trained_with: Mapping[str, str] | None = None,
    trained_python: str = "",
) -> Preflight:
    """Return what can be told without loading the model: its files, its signature, its interpreter. See `preflight`."""
    result = Preflight()
    model = _readable(version, result)
    if model is None:
        return result
    result.findings += _static(model)
    result.findings += _interpreter(version, model, variables, trained_with, trained_python)
    result.findings.sort(key=lambda finding: not finding.is_blocking)
    return result


def _readable(version: ServedVersion, result: Preflight) -> MlModel | None:
    try:
        model = read_mlmodel(version.model)
        check_formats(version.model, allow_pickle=version.allow_pickle)
    except HeadraceError as error:
        result.findings.append(Finding("files", error.fact, error.remedy))
        return None
    return model


def _static(model: MlModel) -> list[Finding]:
    found = [
        Finding(
            "files", f"the MLmodel names `{path}`, which is missing", "Log the model again; a file was lost on the way"
        )
        for path in _named_files(model)
        if not (model.folder / path).exists()
    ]
    if model.signature is None:
        remedy = "Log it with `signature=mlflow.models.infer_signature(X, answers)`"
        found.append(Finding("signature", "the model has no signature, so requests cannot be checked", remedy))
    return found


def _named_files(model: MlModel) -> list[str]:
    pyfunc = model.flavors.get("python_function", {})
    named = [str(pyfunc[key]) for key in ("data", "model_path", "python_model") if pyfunc.get(key)]
    artifacts = pyfunc.get("artifacts")
    for artifact in artifacts.values() if isinstance(artifacts, dict) else ():
        if isinstance(artifact, dict) and artifact.get("path"):
            named.append(str(artifact["path"]))
    return named


def _interpreter(
    version: ServedVersion,
    model: MlModel,
    variables: Mapping[str, str],
    trained_with: Mapping[str, str] | None,
    python: str,
) -> list[Finding]:
    """Compare the interpreter with what the model was trained in."""
    try:
        here = installed(version.python, variables)
    except EnvironmentFailed as error:
        remedy = f"Build it again: `headrace restore {version.component}/{version.version}`"
        return [Finding("environment", error.fact, remedy)]
    trained_python = python or str(model.flavors.get("python_function", {}).get("python_version") or "")
    found = []
    if trained_python and trained_python.rpartition(".")[0] != here.python.rpartition(".")[0]:
        fact = f"Python {trained_python} at training, {here.python} here"
        found.append(
            Finding("environment", fact, "Serve it in its own environment: `environment: uv` in headrace.yaml")
        )
    wanted = trained_with if trained_with is not None else _requirements(model)
    present = {
        name: version if is_same_version(version, here.packages[name]) else here.packages[name]
        for name, version in wanted.items()
        if name in here.packages
    }
    gaps = compare_packages(wanted, present)
    if gaps:
        fact = "; ".join(gaps[:6]) + (f"; and {len(gaps) - 6} more" if len(gaps) > 6 else "")
        found.append(
            Finding("environment", fact, "Serve it in its own environment: `environment: uv` in headrace.yaml")
        )
    return found


def is_same_version(one: str, other: str) -> bool:
    """Tell whether two spellings are one version: indexes say 2024.7.4 where a package may call itself 2024.07.04."""
    try:
        return one == other or Version(one) == Version(other)
    except InvalidVersion:
        return False


def _requirements(model: MlModel) -> dict[str, str]:
    path = model.folder / "requirements.txt"
    text = path.read_text() if path.is_file() else ""
    return {name.replace("_", "-"): version.split("+")[0] for name, version in pinned(text).items()}


def _try(version: ServedVersion, variables: Mapping[str, str], limits: Limits, result: Preflight) -> None:
    """Start the worker, warm it up, and compare its answers at two batch sizes."""
    with tempfile.TemporaryDirectory(prefix="preflight-") as name:
        folder = Path(name)
        log = folder / "worker.log"
        try:
            worker = start_worker(version, variables=variables, cwd=folder, log=log)
        except ModelRefused as error:
            result.findings.append(Finding("load", error.fact, error.remedy))
            return
        with _Watch(worker, limits, log) as watch:
            ready = watch.during("load", lambda: worker.wait_ready(limits.timeout_s), result)
            if ready is None:
                return
            result.numbers |= {"load_s": ready.load_s, "peak_mb": ready.peak_mb}
            rows, must_answer = example_rows(version)
            reply = watch.during("predict", lambda: worker.ask("warm", rows, timeout_s=limits.timeout_s), result)
            if reply is None:
                return
            _measure(reply[0], rows, result)
            if version.golden is not None:
                watch.during("golden", lambda: _golden(worker, version, limits, result), result)
            if must_answer:
                _judge_rows(reply[0], rows, result)


def _measure(reply: frames.Reply, rows: Rows, result: Preflight) -> None:
    warm = reply.warm
    if warm is None:
        return
    result.numbers |= {"forward_ms": dict(warm.forward_ms), "peak_mb": warm.peak_mb, "rows_checked": rows.count}
    if warm.fixed_rows:
        fact = f"its graph takes batches of exactly {warm.fixed_rows} rows; fewer are padded, which costs time"
        remedy = "Export it with an input example of 2 rows or more: `input_example=X[:2]`"
        result.findings.append(Finding("predict", fact, remedy, is_blocking=False))


def _judge_rows(reply: frames.Reply, rows: Rows, result: Preflight) -> None:
    """Say so where requests cannot be joined.

    Too few answers are the cause of golden ones that are not met, and told first; other answers than at training's are
    the cause of this, and told before it.
    """
    if reply.warm is not None and not reply.warm.by_row:
        fact = f"it does not answer row by row: {rows.count} rows at once are not answered as each by itself"
        remedy = "Have `predict` return one answer for each input row, whatever the others are"
        are_too_few = any(one.check == "golden" and "has shape" in one.fact for one in result.findings)
        result.findings.insert(0 if are_too_few else len(result.findings), Finding("predict", fact, remedy))


def _golden(worker: Worker, version: ServedVersion, limits: Limits, result: Preflight) -> None:
    """Compare golden answers twice, all rows at once and half of them."""
    assert version.golden is not None
    expected = golden.load(version.golden)
    signature = read_mlmodel(version.model).signature or ANY_TENSOR
    total = len(next(iter(expected.inputs.values())))
    sizes = list(dict.fromkeys((total, max(total // 2, 1))))
    for count in sizes:
        part = golden.first_rows(expected, count)
        rows = rows_of(signature, part.inputs)
        answered = frames.outputs(*worker.ask("predict", rows, timeout_s=limits.timeout_s)).as_arrays()
        sentence = golden.compare(part, answered)
        if sentence:
            fact = f"it does not give the answers of its training: with {count} rows, {sentence}"
            remedy = "If it draws random numbers, fix the seed or call `model.eval()`; else the environment differs"
            result.findings.append(Finding("golden", fact, remedy))
            return
    result.numbers["golden_rows"] = " and ".join(map(str, sizes))


class _Watch:
    """Watches a worker's memory, and finds the cause where it fails."""

    def __init__(self, worker: Worker, limits: Limits, log: Path) -> None:
        self._worker, self._limits, self._log = worker, limits, log
        self._done = threading.Event()
        self._over_mb = 0.0
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._worker.stop()
        self._thread.join()

    def _poll(self) -> None:
        limit = self._limits.memory_mb
        process = psutil.Process(self._worker.process.pid) if limit else None
        while process and limit and not self._done.wait(0.02):
            try:
                held = process.memory_info().rss / (1 << 20)
            except psutil.Error:
                return
            if held > limit:
                self._over_mb = held
                self._worker.process.kill()
                return

    def during(self, check: str, work: Callable[[], T], result: Preflight) -> T | None:
        """Return what `work` gives; None where it failed, with the cause among the findings."""
        try:
            return work()
        except ModelRefused as error:
            result.findings.append(self._cause(check, error))
        return None

    def _cause(self, check: str, error: ModelRefused) -> Finding:
        if self._over_mb:
            limit = f"{self._limits.memory_mb:.0f} MB"
            fact = f"it held {self._over_mb:.0f} MB when it was to {check}; the limit is {limit}"
            return Finding("memory", fact, "Give it more memory, or make the model smaller")
        if isinstance(error.__cause__, TimeoutError):
            return self._hang(check)
        log = self._log.read_text(errors="replace")
        start = log.find("Traceback (most recent call last)")
        fact, remedy = explain(error, log[start:] if start >= 0 else "")
        place = last_frame(log) if "Fatal Python error" in log else ""
        return Finding(check, f"{fact} (at {place})" if place else fact, remedy)

    def _hang(self, check: str) -> Finding:
        """Have the worker write its stack, and say where it was."""
        self._worker.process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._worker.process.wait(10)
        place = last_frame(self._log.read_text(errors="replace"))
        at = f"; it was at {place}" if place else ""
        fact = f"it did not {check} within {self._limits.timeout_s:g} s{at}"
        return Finding(check, fact, "See what it waits for there: a server, a lock, a download, an endless loop")
