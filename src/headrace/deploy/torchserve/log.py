"""Why TorchServe could not start a model: the first cause, found in its logs. Pure: text in, a fact and a remedy out.

TorchServe answers `Failed to start workers for model …` whatever happened. The cause is in `model_log.log`, and is
seldom the last error there: looking for a handler, TorchServe tries its own module of that name and reports that this
one is missing; loading a model, it wraps whatever it got in `500 - Unknown exception`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_LINE = re.compile(r"^\S+ \[\w+ *\] (?P<stream>W-\d+-(?P<model>.+?)-std(?:out|err)) MODEL_LOG - (?P<text>.*)$")
#: What torch's own logging puts before each line.
_TORCH_PREFIX = re.compile(r"^[IWEF]\d{4} [\d:.]+ \d+ [^\]]+\] ?")
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)')
_EXCEPTION = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
#: TorchServe's own files through which a failure passes that ends a worker or a request.
_FATAL = ("/ts/model_service_worker.py", "/ts/model_loader.py", "/ts/service.py")
#: Where TorchServe unpacks archives.
_ARCHIVE = re.compile(r"/models/[0-9a-f]{32}/(?P<path>.+)$")
#: Failures that only point at a warning before them.
_POINTS_UP = re.compile(r"(?:warnings|logs?|errors?) above")


@dataclass(frozen=True, slots=True)
class Cause:
    """The first cause: one sentence, and what to do."""

    fact: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a model's.

    Attributes:
        at: its place in the log.
        stream: which worker's, and whether it is its standard output or its standard error.
    """

    at: int
    stream: str
    text: str


@dataclass(slots=True)
class _Raised:
    """One exception of a traceback.

    Attributes:
        at: where in the log its first line stands.
        cause: the one before, where Python says that this one came of it.
    """

    at: int = 0
    frames: list[tuple[str, int]] = field(default_factory=list)
    type: str = ""
    message: str = ""
    cause: "_Raised | None" = None

    @property
    def is_fatal(self) -> bool:
        return any(file.endswith(_FATAL) for file, _ in self.frames)

    @property
    def place(self) -> str:
        """The innermost line that is in the archive, as ` (handler.py, line 7)`."""
        for file, line in reversed(self.frames):
            if found := _ARCHIVE.search(file):
                return f" ({found['path']}, line {line})"
        return ""


#: (pattern over "type: message", fact, remedy); the first that matches counts. `{place}` says where.
_KNOWN = (
    (
        r"ModuleNotFoundError: No module named '(?P<what>[\w.]+)'",
        "The module `{what}` is not installed and not in the archive{place}.",
        "A package: add it to the model's requirements. A file of yours: add it to the archive with --extra-files.",
    ),
    (
        r"(?:ImportError|OSError): (?P<what>lib[\w.+-]+): cannot open shared object file",
        "The system library `{what}` is missing{place}.",
        "Install the system package that has it in the image.",
    ),
    (
        r"(?:SyntaxError|IndentationError|TabError): (?P<what>.*)",
        "{place_first} is no valid Python: {what}.",
        "Correct it; `python -m py_compile handler.py` finds it before TorchServe does.",
    ),
    (
        r"RuntimeError: Error\(s\) in loading state_dict for (?P<net>\w+):\s*(?P<what>.*)",
        "The weights do not fit the network {net}: {what}{place}.",
        "Build the archive from the network definition that these weights were saved from.",
    ),
    (
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '(?:[^']*/)?(?P<what>[^'/]+)'",
        "The file `{what}` is not in the archive{place}.",
        "Add it when the archive is built: --extra-files {what}.",
    ),
    (
        r"(?:failed finding central directory|PytorchStreamReader|invalid load key|unexpected EOF|corrupt|BadZipFile"
        r"|Invalid magic number|UnpicklingError: (?:pickle data was truncated|unpickling stack))",
        "The weights in the archive are damaged or cut off{place}.",
        "Save the weights again, compare their SHA-256 with the original's, and build the archive again.",
    ),
    (
        r"(?:schema version|Unrecognized operator set|produced by a newer version|Unsupported operator|newer version of"
        r" Py[Tt]orch|_has_compatible_shallow_copy_type|Unknown builtin op)",
        "The model was saved by another version of torch than the one that is installed{place}: {message}.",
        "Install the torch version that saved it, or export the model again with this one.",
    ),
    (
        r"(?:MemoryError|not enough memory|out of memory|Cannot allocate memory|bad_alloc|Unable to allocate"
        r"|System out of memory)",
        "The worker ran out of memory{place}: {message}.",
        "Give it more memory, fewer workers, or a smaller model.",
    ),
    (
        r"(?:Torch not compiled with CUDA|CUDA device but torch\.cuda|No CUDA GPUs|Found no NVIDIA driver)",
        "The model wants a GPU and there is none here{place}.",
        "Load it with `map_location='cpu'`, or run TorchServe where there is a GPU.",
    ),
    (
        r"(?:weights_only|Weights only load failed|MLFLOW_ALLOW_PICKLE|serialization_format)",
        "The model can only be loaded by unpickling, which is refused{place}.",
        "Save a state_dict or an exported program (pt2), or allow pickle for this component: `allow_pickle: true`.",
    ),
    (
        r"SealBroken: (?P<what>.*)",
        "The model in the archive is not the one that was sealed: {what}.",
        "Build the archive again from the verified copy.",
    ),
    (
        r"Expected only one class in custom service code",
        "The handler file defines several classes, so that TorchServe cannot tell which one serves.",
        "Define a module-level function `handle(data, context)` in it, or move the other classes to another file.",
    ),
)


def first_cause(log: str, model: str, *, version: str = "") -> Cause | None:
    """Return why a model's worker failed, from the text of `model_log.log`; None where the log does not say.

    Args:
        log: may hold other models' lines, and several attempts: the first that failed counts.
        model, version: as registered; without a version, any.
    """
    lines = list(_lines_of(log, model, version))
    # Two threads write this log, one for each stream: their lines mix, and what was printed before may stand after.
    streams = dict.fromkeys(line.stream for line in lines)
    found = (one for stream in streams for one in _exceptions([line for line in lines if line.stream == stream]))
    raised = sorted(found, key=lambda one: one.at)
    root = next((one for one in raised if one.is_fatal), None)
    if root is None:
        return _without_traceback([line.text for line in lines])
    while root.cause is not None:
        root = root.cause
    if _POINTS_UP.search(root.message):
        others = [one for one in raised if not one.is_fatal and one is not root]
        before = [one for one in others if one.at < root.at]
        if others:
            root = _named_like(root, before[-1] if before else others[0])
    return _told(root)


def server_cause(log: str) -> Cause | None:
    """Return why TorchServe itself did not come up, from its console output; None where it does not say."""
    if found := re.search(r"Failed to bind to address: \S+?:(?P<port>\d+)", log):
        return Cause(
            f"Port {found['port']} is taken.", f"See who has it with `ss -ltnp | grep {found['port']}`, or set another."
        )
    if found := re.search(r"UnsupportedClassVersionError", log):
        return Cause(
            "This Java is too old for TorchServe.", "Install Java 17: `apt-get install openjdk-17-jre-headless`."
        )
    if found := re.search(r"(?:OutOfMemoryError|insufficient memory for the Java)[^\n]*", log):
        return Cause("Java ran out of memory.", "Give TorchServe more memory.")
    if found := re.search(
        r"^(?:Caused by: |Exception in thread \S+ )(?P<what>[\w.$]+(?:: [^\n]+)?)", log, re.MULTILINE
    ):
        return Cause(f"TorchServe failed with {found['what']}.", "Its console log has the whole trace.")
    return None


def answer_cause(status: int, answer: str) -> Cause | None:
    """Return what an answer of the management interface means by itself; None where only the log knows."""
    if "Token Authentication failed" in answer:
        return Cause(
            "TorchServe asks for a token: its token authorisation is on.",
            "Send the key of its key_file.json as `Authorization: Bearer …`, or start it with --disable-token-auth and "
            "let only loopback reach it.",
        )
    if status == 405 and "management" in answer.lower():
        return Cause("TorchServe does not let models be registered.", "Start it with --enable-model-api.")
    if "Failed to start workers" in answer:
        return None
    message = re.search(r'"message": "(?P<what>[^"]+)"', answer)
    return Cause(f"TorchServe answered {status}: {message['what'] if message else answer.strip()[:200]}.", "")


def _lines_of(log: str, model: str, version: str) -> Iterator[_Line]:
    name = re.compile(rf"{re.escape(model)}_{re.escape(version) if version else '[^_]+'}")
    stream = ""
    for at, raw in enumerate(log.splitlines()):
        if found := _LINE.match(raw):
            stream = found["stream"] if name.fullmatch(found["model"]) else ""
            if stream:
                yield _Line(at, stream, _TORCH_PREFIX.sub("", found["text"]))
        elif stream and not re.match(r"^\d{4}-\d\d-\d\dT", raw):
            yield _Line(at, stream, raw)


def _exceptions(lines: Sequence[_Line]) -> Iterator[_Raised]:
    """Yield what was raised, from the lines of one stream."""
    current: _Raised | None = None
    last: _Raised | None = None
    is_chained = False
    texts = [line.text for line in lines]
    for place, line in enumerate(texts):
        if line.startswith("Traceback (most recent call last):"):
            current, is_chained = _Raised(lines[place].at, cause=last if is_chained else None), False
        elif line.strip() in _CHAINED:
            is_chained = True
        elif current is not None:
            if frame := _FRAME.match(line):
                current.frames.append((frame["file"], int(frame["line"])))
            elif (found := _EXCEPTION.match(line)) and current.frames:
                current.type, current.message = (
                    found["type"].rpartition(".")[2],
                    _message(found["message"], texts[place:]),
                )
                yield current
                last, current = current, None


def _message(first: str | None, lines: Sequence[str]) -> str:
    """Return an exception's message with its indented further lines."""
    parts = [(first or "").strip()]
    for line in lines[1:6]:
        if not line.startswith("\t"):
            break
        parts.append(line.strip())
    return " ".join(part for part in parts if part)


def _named_like(pointer: _Raised, cause: _Raised) -> _Raised:
    return _Raised(pointer.at, [*cause.frames, *pointer.frames], cause.type, cause.message)


def _told(root: _Raised) -> Cause:
    text = f"{root.type}: {root.message}"
    place = root.place
    words = {
        "place": place,
        "place_first": place.strip(" ()") or "The handler",
        "message": _short(root.message) or root.type,
    }
    for pattern, fact, remedy in _KNOWN:
        if found := re.search(pattern, text):
            groups = words | {name: _short(value or "") for name, value in found.groupdict().items()}
            return Cause(fact.format(**groups), remedy.format(**groups))
    return Cause(f"The handler failed with {_short(text)}{place}.", "The whole trace is in model_log.log.")


def _without_traceback(lines: Sequence[str]) -> Cause | None:
    text = "\n".join(lines)
    if not lines:
        return None
    if "Torch worker started." in text:
        return Cause(
            "The worker was killed while it loaded the model, without a word; systems do that when memory runs out.",
            "Give it more memory; `dmesg | grep -i oom` on the host says for certain.",
        )
    said = [line for line in lines if line.strip()]
    return Cause(f"The worker ended before it started: {_short(said[-1])}.", "Check the interpreter that it runs in.")


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(".:")
    return line if len(line) <= 240 else line[:237] + "…"
