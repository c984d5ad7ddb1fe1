"""What a model's failure in preflight comes from: the first cause, found in the worker's log, with what to do about it.

`serving.crash` knows what can be told from an exception's own words; here the traceback helps.
"""

import re
from dataclasses import dataclass

from headrace.errors import ModelRefused


@dataclass(frozen=True, slots=True)
class Cause:
    """One known cause: a pattern over the worker's log, and the sentences with the pattern's groups."""

    pattern: str
    fact: str
    remedy: str


#: The first that matches counts.
KNOWN = (
    Cause(
        r"ModuleNotFoundError: No module named '(?P<what>[\w.]+)'",
        "it imports `{what}`, which its environment does not have",
        "Add `{what}` to the project's python_env.yaml or requirements.txt, and train again",
    ),
    Cause(
        r"ImportError: cannot import name '(?P<what>\w+)' from '(?P<where>[\w.]+)'",
        "`{where}` in its environment has no `{what}`: it is another version than the model was written for",
        "Pin the version of `{where}` that has it in the project's requirements, and train again",
    ),
    Cause(
        r"(?:OSError|ImportError): (?P<what>lib[\w.+-]+): cannot open shared object file",
        "the system library `{what}` is not installed here",
        "Install the system package that has `{what}`, or pin a wheel that brings it along",
    ),
    Cause(
        r"(?:os\.environ|<frozen os>)[\s\S]*?KeyError: '(?P<what>\w+)'",
        "it reads the environment variable `{what}`, which is not set",
        "Name it in headrace.yaml: `stages: {{dev: {{secrets: [{what}]}}, production: {{secrets: [{what}]}}}}`",
    ),
    Cause(
        r"(?:exported on a GPU|deserialize object on a CUDA device|Torch not compiled with CUDA|No CUDA GPUs)",
        "it was exported on a GPU and there is none here",
        "Move it to the CPU before it is logged: `model.to('cpu')`",
    ),
    Cause(
        r"Can't get attribute '(?P<what>\w+)' on <module '(?P<where>[\w.]+)'",
        "its pickle needs the class `{where}.{what}`, which cannot be imported here",
        "Log it as pt2 (`serialization_format=\"pt2\"`), or pass the module with `code_paths=[…]`",
    ),
    Cause(
        r"SyntaxError: (?P<what>[^\n]+)",
        "its code cannot be read by this Python ({what})",
        "Correct the code, or serve it with the Python that trained it: see python_env.yaml",
    ),
    Cause(
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '(?P<what>[^']+)'",
        "it opens `{what}`, which does not exist here",
        "Log the file with the model (`artifacts={{…}}`) and open it by `context.artifacts[…]`",
    ),
    Cause(
        r"(?:ConnectionRefusedError|gaierror|NewConnectionError|ConnectTimeout|URLError)[^\n]*",
        "it needs the network while it loads",
        "Log what it fetches with the model (`artifacts={{…}}`), so that serving needs no network",
    ),
    Cause(
        r"PytorchStreamReader|BadZipFile|failed finding central directory|UnicodeDecodeError|invalid load key",
        "a file of it is damaged",
        "Fetch the version's files again; `headrace baseline verify` names the file",
    ),
    Cause(
        r"(?:MemoryError|DefaultCPUAllocator|Unable to allocate|Cannot allocate memory)[^\n]*",
        "it needs more memory than there is",
        "Give it more memory, or make the model smaller",
    ),
    Cause(
        r"Guard failed: [^\n]*stride\(\)",
        "it was exported from a slice of an array, and takes slices only",
        "Log it again with a copy of the slice: `input_example=np.ascontiguousarray(X[:2])`",
    ),
    Cause(
        r"Guard failed: [^\n]*\[0\] == (?P<what>\d+)",
        "its graph was exported for a batch of {what} only",
        "Export it with an input example of 2 rows or more: `input_example=X[:2]`",
    ),
    Cause(
        r"(?:Guard failed|mat1 and mat2 shapes|size of tensor|Incompatible input types|Shape of input"
        r"|expected scalar type|must have the same dtype|features, but \w+ is expecting"
        r"|could not (?:be )?broadcast|cannot reshape)[^\n]*",
        "it takes other inputs than its signature says",
        "Log it again with `signature=mlflow.models.infer_signature(X, answers)` from what it is really given",
    ),
    Cause(
        r"(?P<what>\w*(?:UnpicklingError|PicklingError)|weights_only)[^\n]*",
        "it is a pickle that cannot be read here",
        "Log it as pt2 (`serialization_format=\"pt2\"`)",
    ),
)  # fmt: skip


def explain(error: ModelRefused, log: str) -> tuple[str, str]:
    """Return the fact and the remedy of a failure; the error's own where the log says no more."""
    for cause in KNOWN:
        found = re.search(cause.pattern, f"{log}\n{error.fact}")
        if found is not None:
            named = {name: value or "" for name, value in found.groupdict().items()}
            return cause.fact.format(**named), cause.remedy.format(**named)
    return error.fact, error.remedy


def last_frame(log: str) -> str:
    """Return where the innermost frame of the model's own code was, from a stack that faulthandler wrote."""
    frames = re.findall(r'File "([^"]+)", line (\d+) in (\w+)', log)
    own = [frame for frame in frames if "site-packages" not in frame[0] and "/lib/python" not in frame[0]]
    named = next((frame for frame in own if not frame[0].endswith("worker_child.py")), None)
    if named is None:
        return ""
    path, line, function = named
    return f"{path.rpartition('/')[2]}, line {line}, in `{function}`"
