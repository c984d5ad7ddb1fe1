"""Starting worker children and speaking to one over its control socket."""

import contextlib
import itertools
import math
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.errors import ModelRefused
from headrace.files import rotate
from headrace.provenance.formats import Formats, check_formats
from headrace.provenance.store import refuse_broken_seal
from headrace.registry.mlmodel import MlModel, read_mlmodel
from headrace.serving import crash, frames
from headrace.serving.layout import Rows
from headrace.types import Resources, ServedVersion

CHILD = Path(__file__).with_name("worker_child.py")
#: Counts the limited children that this process has started.
_STARTED = itertools.count()


@dataclass(frozen=True, slots=True)
class Threads:
    """Computing threads of one worker.

    Attributes:
        start: what a model begins with.
        shared: what a heavy one may have instead while other workers are busy.
        alone: the same while they are not.
    """

    start: int = 1
    shared: int = 1
    alone: int = 1


@dataclass(slots=True)
class Worker:
    """One child process with a model in it.

    Attributes:
        control: the parent's end of the socket pair; closing it ends the child.
        address: the Unix socket that fronts connect to, relative to the run folder; empty for none.
    """

    version: ServedVersion
    process: subprocess.Popen[bytes]
    control: socket.socket
    address: str
    log: Path
    ready: frames.Reply = field(default_factory=frames.Reply)
    sequence: int = 0

    def wait_ready(self, timeout_s: float) -> frames.Reply:
        """Wait until the model is loaded.

        Raises:
            ModelRefused: it cannot be loaded, or not in time; the message names the first cause.
        """
        self.ready, _ = self._receive(timeout_s, "load")
        return self.ready

    def ask(
        self, kind: str, rows: Rows, *, timeout_s: float, kept: frames.Kept | None = None
    ) -> tuple[frames.Reply, memoryview]:
        """Send one batch and return the answer.

        Raises:
            ModelRefused: the model failed on it, the child died, or no answer came in time.
        """
        self.sequence += 1
        return self._exchange(frames.request(self.sequence, kind, [rows], kept=kept), kind, timeout_s)

    def open(self) -> None:
        """Let fronts connect to `address`. Raises ModelRefused where the child died."""
        self.sequence += 1
        self._exchange(frames.command(self.sequence, "listen"), "listen", 30.0)

    def stop(self) -> None:
        """End the child and wait until it is gone."""
        with contextlib.suppress(OSError):
            self.control.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _exchange(self, frame: bytes, what: str, timeout_s: float) -> tuple[frames.Reply, memoryview]:
        self.control.settimeout(timeout_s)
        try:
            self.control.sendall(frame)
        except OSError as cause:
            raise self._ended() from cause
        return self._receive(timeout_s, what)

    def _receive(self, timeout_s: float, what: str) -> tuple[frames.Reply, memoryview]:
        deadline = time.monotonic() + timeout_s
        try:
            reply, view = self._read_frame(deadline)
        except TimeoutError as cause:
            subject = self.version.title
            raise ModelRefused(
                f"{subject} gave no answer to `{what}` within {timeout_s:g} s.", f"See {self.log}."
            ) from cause
        except ConnectionError as cause:
            raise self._ended() from cause
        if reply.error is not None:
            if reply.error.stage == "seal":
                _refuse_broken_seal(self.version)
            found = crash.of_failure(reply.error, self.version)
            raise ModelRefused(found.fact, found.remedy)
        return reply, view

    def _read_frame(self, deadline: float) -> tuple[frames.Reply, memoryview]:
        length, header_length = frames.PREFIX.unpack(self._read(frames.PREFIX.size, deadline))
        content = memoryview(self._read(length - 4, deadline))
        return frames.decode_reply(content[:header_length]), content[header_length:]

    def _read(self, size: int, deadline: float) -> bytearray:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            self.control.settimeout(max(deadline - time.monotonic(), 0.001))
            taken = self.control.recv_into(view)
            if not taken:
                raise ConnectionResetError("the child closed its socket")
            view = view[taken:]
        return content

    def _ended(self) -> ModelRefused:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        found = crash.of_exit(self.process.poll() or 0, self.version, peak_mb=self.ready.peak_mb)
        return ModelRefused(found.fact, f"{found.remedy} Its log: {self.log}")


def start_worker(
    version: ServedVersion,
    *,
    variables: Mapping[str, str],
    cwd: Path,
    log: Path,
    threads: Threads = Threads(),
    address: str = "",
) -> Worker:
    """Start a child that loads `version`, and return at once. Call it from a thread that outlives the child.

    Args:
        variables: a clean base environment; the version's own variables go on top.

    Raises:
        ModelRefused: the folder is no MLflow model or not what its seal says, loading it would unpickle and that is not
            allowed, or the interpreter cannot be started.
    """
    model, formats = _look(version)
    if model.pt2 is None and not model.has_pyfunc:
        raise ModelRefused(
            f"{version.title} has neither a pt2 archive nor the python_function flavor.",
            "Log it with `mlflow.pytorch.log_model` and a single-tensor input example, or as `mlflow.pyfunc`.",
        )
    ours, theirs = socket.socketpair()
    command = [str(version.python), "-I", "-u"]
    if "PYTHONPYCACHEPREFIX" in variables:  # `-I` hides the variable.
        command += ["-X", f"pycache_prefix={variables['PYTHONPYCACHEPREFIX']}"]
    command += [str(CHILD), "--model", str(version.model), "--seal", version.seal, "--threads", str(threads.start)]
    command += ["--control-fd", str(theirs.fileno()), "--parent", str(os.getpid()), "--listen", address]
    command += _limits(version.limits)
    if model.pt2 is not None:
        command += ["--pt2", model.pt2.relative_to(version.model).as_posix()]
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with theirs, rotate(log).open("ab") as output:
            process = subprocess.Popen(
                command,
                env=_environment(version, {**variables, **formats.worker_variables}, threads),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
    except OSError as cause:
        ours.close()
        raise ModelRefused(
            f"{version.title} cannot be started with {version.python}: {cause.strerror}.",
            "Build its environment again.",
        ) from cause
    return Worker(version, process, ours, address, log)


def _look(version: ServedVersion) -> tuple[MlModel, Formats]:
    """Return what a version's files say of themselves, and how they may be loaded; nothing is loaded here."""
    try:
        # MLflow's own switch against pickle refuses skops and TorchScript too, so the formats say how it must stand.
        return read_mlmodel(version.model), check_formats(version.model, allow_pickle=version.allow_pickle)
    except ModelRefused:
        if version.seal:  # A changed file is the first cause of whatever else is wrong.
            _refuse_broken_seal(version)
        raise


def _refuse_broken_seal(version: ServedVersion) -> None:
    remedy = f"headrace restore {version.component}/{version.version}" if version.version else ""
    refuse_broken_seal(version.model, version.seal, remedy)


def _limits(limits: Resources) -> list[str]:
    """Return the options for what a child may use; whole cores, as a process cannot be held to a part of one."""
    said = ["--memory", str(limits.memory_bytes)] if limits.memory else []
    if not limits.cpus or not hasattr(os, "sched_getaffinity"):
        return said
    known = sorted(os.sched_getaffinity(0))
    wanted = min(math.ceil(limits.cpus), len(known))
    # One after the other, so that the workers of one endpoint do not share a core while another idles; endpoints begin
    # at different ones.
    first = os.getpid() + next(_STARTED) * wanted
    cores = {known[(first + place) % len(known)] for place in range(wanted)}
    return [*said, "--cores", ",".join(map(str, sorted(cores)))]


def _environment(version: ServedVersion, variables: Mapping[str, str], threads: Threads) -> dict[str, str]:
    own = {
        "OMP_NUM_THREADS": str(threads.start),
        "MKL_NUM_THREADS": str(threads.start),
        "OPENBLAS_NUM_THREADS": str(threads.start),
        "HEADRACE_HEAVY_THREADS": f"{threads.shared},{threads.alone}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
    }
    return {**variables, **own, **version.environment_variables}
