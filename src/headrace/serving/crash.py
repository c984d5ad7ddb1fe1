"""Why a worker failed, as a fact and a remedy. The first cause, not the last symptom."""

import re
import signal
from dataclasses import dataclass
from enum import StrEnum

from headrace.serving.frames import Failure
from headrace.types import ServedVersion


class Cause(StrEnum):
    """The classes of failure, also the label of the error counter."""

    SEAL = "seal broken"
    MISSING_MODULE = "missing module"
    OUT_OF_MEMORY = "out of memory"
    SEGFAULT = "segfault"
    WRONG_INPUT = "wrong dtype or shape"
    TIMEOUT = "timeout"
    PICKLE = "cannot unpickle"
    WRONG_PYTHON = "wrong python"
    MISSING_LIBRARY = "missing system library"
    GPU = "gpu export on cpu"
    MODEL = "model error"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Crash:
    """One failure, told."""

    cause: Cause
    fact: str
    remedy: str


#: (cause, pattern over "type: message", remedy); the first that matches counts. `{…}` are the pattern's groups.
KNOWN = (
    (Cause.SEAL, r"SealBroken: (?P<what>.*)", "Run `headrace baseline verify {name}` to see which file differs."),
    (
        Cause.MISSING_LIBRARY,
        r"(?:ImportError|OSError): (?P<what>lib[\w.+-]+): cannot open shared object file",
        "Install the system package that has `{what}`, or pin a wheel that brings it along.",
    ),
    (
        Cause.WRONG_PYTHON,
        r"(?:unsupported pickle protocol|bad magic number|unknown opcode|code\(\) argument|SyntaxError)",
        "Serve it with the Python that trained it: check `python_env.yaml` and build the environment again.",
    ),
    (
        Cause.GPU,
        r"(?:exported on a GPU|deserialize object on a CUDA device|Torch not compiled with CUDA|No CUDA GPUs"
        r"|Found no NVIDIA driver)",
        "Save it with `model.to('cpu')` before `log_model`, or serve it on a machine with a GPU.",
    ),
    (
        Cause.PICKLE,
        r"(?:UnpicklingError|weights_only|MLFLOW_ALLOW_PICKLE|Can't get attribute|invalid load key|PickleError)",
        "Log it with `mlflow.pytorch.log_model(..., serialization_format='pt2')` or set `allow_pickle: true`.",
    ),
    (
        Cause.MISSING_MODULE,
        r"ModuleNotFoundError: No module named '(?P<what>[\w.]+)'",
        "Add `{what}` to the project's `python_env.yaml` or requirements and train again.",
    ),
    (
        Cause.OUT_OF_MEMORY,
        r"(?:MemoryError|not enough memory|out of memory|Cannot allocate memory|Unable to allocate)",
        "",
    ),
    (
        Cause.WRONG_INPUT,
        r"Guard failed: [^\n]*stride\(\)",
        "It was exported from a slice of an array, and takes slices only: log it again with "
        "`input_example=np.ascontiguousarray(X[:2])`.",
    ),
    (
        Cause.WRONG_INPUT,
        r"(?:Guard failed|mat1 and mat2|expected scalar type|size of tensor|shapes cannot be multiplied|Expected input"
        r"|invalid shape|Incompatible input types|could not broadcast|dtype|mismatch in its core dimension|not aligned"
        r"|X has \d+ features)",
        "The model takes other inputs than its signature says: log it again with an input example of two or more rows.",
    ),
)


def of_failure(failure: Failure, version: ServedVersion) -> Crash:
    """Return what an exception in a worker means."""
    text = f"{failure.type}: {failure.message}"
    subject = version.title
    verb = "cannot be loaded" if failure.stage in ("load", "seal") else "failed to predict"
    for cause, pattern, remedy in KNOWN:
        found = re.search(pattern, text)
        if found is not None:
            told = _more_memory(version) if cause is Cause.OUT_OF_MEMORY else remedy
            groups = {"name": f"{version.component}/{version.version}", "what": ""} | found.groupdict()
            return Crash(cause, f"{subject} {verb}: {_short(text)}", told.format(**groups))
    remedy = "The worker's log has the whole traceback."
    if failure.stage == "load":
        remedy = _or_memory(version, remedy)
    return Crash(Cause.MODEL, f"{subject} {verb}: {_short(text)}", remedy)


def of_exit(code: int, version: ServedVersion, *, peak_mb: float = 0.0) -> Crash:
    """Return what a worker's sudden end means; a negative code is a signal, a peak of 0 that it had not loaded yet."""
    subject = f"The worker of {version.title}"
    if -code == signal.SIGKILL:
        return Crash(
            Cause.KILLED,
            f"{subject} was killed (signal 9) at {peak_mb:.0f} MB; the system does that when memory runs out.",
            _more_memory(version),
        )
    if -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        name = signal.Signals(-code).name
        remedy = "A compiled dependency is broken or mismatched: pin the versions that trained the model."
        return Crash(
            Cause.SEGFAULT,
            f"{subject} crashed in native code ({name}).",
            _or_memory(version, remedy) if not peak_mb else remedy,
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    remedy = "The worker's log has its last words."
    return Crash(Cause.MODEL, f"{subject} ended with {how}.", remedy if peak_mb else _or_memory(version, remedy))


def _more_memory(version: ServedVersion) -> str:
    if version.limits.memory:
        return (
            f"Its stage gives each worker {version.limits.memory}: raise `limits.memory` below `stages` in "
            "headrace.yaml, or make `serve.max_batch` smaller."
        )
    return "Give it more memory, a smaller `serve.max_batch`, or fewer `serve.workers`."


def _or_memory(version: ServedVersion, remedy: str) -> str:
    """Return a remedy for what may be a lack of memory: libraries that are refused some while loading end anyhow."""
    return f"{_more_memory(version)} {remedy}" if version.limits.memory else remedy


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "…"
