"""The servers that are compared: how each is set up, started, asked and stopped."""

import contextlib
import json
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import load
from headrace import processes
from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.environment.packages import read_package_sources
from headrace.environment.uv_command import find_uv
from headrace.types import Json, ServedVersion, Stage

HERE = Path(__file__).parent
START_S = 180.0


@dataclass
class Running:
    """A server that answers.

    Attributes:
        pid: the root of its process tree.
        cold_s: from the start to the first good answer.
        requests: one for each row.
    """

    name: str
    port: int
    pid: int
    cold_s: float
    requests: list[bytes]
    stop: Callable[[], None]

    def pause(self) -> None:
        """Stop its processes where they stand: some peers poll while they have nothing to do, at others' expense."""
        for process in load.tree(self.pid):
            with contextlib.suppress(psutil.NoSuchProcess):  # A short-lived child has ended meanwhile.
                process.suspend()

    def resume(self) -> None:
        """Let its processes go on, children first, so that no parent misses them."""
        with contextlib.suppress(psutil.NoSuchProcess):  # One that has died must not keep others from being stopped.
            for process in reversed(load.tree(self.pid)):
                process.resume()


@dataclass
class Place:
    """What peers are made from: the models of one workload, the interpreter that they need, and rows."""

    settings: Settings
    python: Path
    models: Path
    kind: str
    rows: list[Any]
    cores: int

    @property
    def workers(self) -> int:
        """A cheap model gets one worker, a heavy one all cores; the same for everybody."""
        return self.cores if self.kind == "encoder" else 1


def scoring(place: Place, row: Any) -> bytes:
    return json.dumps({"inputs": [row]} if place.kind == "mlp" else {"dataframe_records": [{"text": row}]}).encode()


def ours(place: Place, *, log_sample: float = 1.0) -> Running:
    """headrace as it comes: process workers, prediction log on."""
    serve = Serve(workers=place.workers, deadline_ms=30_000, log_sample=log_sample)
    name = "headrace" if log_sample else "headrace-without-log"
    requests = [load.request("/invocations", scoring(place, row)) for row in place.rows]
    kind = place.kind if log_sample else f"{place.kind}-nolog"
    version = ServedVersion(kind, 1, place.models / place.kind, place.python)
    target = ProcessTarget(place.settings)
    start = time.perf_counter()
    status = target.apply(Route(kind, Stage.PRODUCTION, [version], {1: 1.0}, serve))
    port = int(status.endpoint.url.rpartition(":")[2])
    _first_answer(port, requests[0])
    cold_s = time.perf_counter() - start
    return Running(name, port, status.endpoint.pid, cold_s, requests, lambda: target.remove(kind, Stage.PRODUCTION))


def torchserve(place: Place) -> Running:
    """TorchServe with batching and a handler of a few lines, as its users write it."""
    from headrace.deploy.torchserve import process
    from headrace.deploy.torchserve.launch import ANY

    folder = place.settings.home / f"torchserve-{place.kind}"
    port = processes.free_port()
    start = time.perf_counter()
    server = process.start(place.settings, folder, port=port, max_body=10_000_000, queue=1024)
    try:
        variables: dict[str, Json] = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process.write_workers(folder, {ANY: {"python": str(place.python), "variables": variables}})
        _write_archive(place, folder / "store" / "model.mar")
        options = {"url": "model.mar", "model_name": place.kind, "initial_workers": str(place.workers)}
        batching = {"batch_size": "8", "max_batch_delay": "1", "synchronous": "true"}
        answer = server.call("POST", "/models", params={**options, **batching}, timeout_s=START_S)
        if answer.status_code != 200:
            raise RuntimeError(f"TorchServe refused the model: {answer.text}")
        path = f"/predictions/{place.kind}"
        requests = [load.request(path, json.dumps({"input": row}).encode()) for row in place.rows]
        _first_answer(port, requests[0])
    except BaseException:
        server.stop()
        raise
    cold_s = time.perf_counter() - start
    return Running("torchserve", port, server.running.pid, cold_s, requests, server.stop)


def _write_archive(place: Place, path: Path) -> None:
    manifest = {
        "runtime": "python",
        "model": {"modelName": place.kind, "modelVersion": "1", "handler": "torchserve_handler.py"},
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name in ("torchserve_handler.py", "workloads.py"):
            archive.write(HERE / name, name)
        archive.write(place.models / f"{place.kind}-weights" / f"{place.kind}.npz", f"{place.kind}.npz")


def mlflow(place: Place) -> Running:
    """`mlflow models serve` in the component's environment."""
    port = processes.free_port()
    command = [
        place.python,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        place.models / place.kind,
        "--env-manager",
        "local",
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
    ]
    requests = [load.request("/invocations", scoring(place, row)) for row in place.rows]
    return _started(place, "mlflow", command, port, requests)


def litserve(place: Place) -> Running:
    """LitServe with batching, in an environment of its own."""
    folder = place.settings.state / "cache" / "benchmark-environments" / "litserve"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        uv = find_uv(place.settings)
        options = read_package_sources(place.settings.variables).uv_options()
        for arguments in (
            ["venv", "--clear", "--python", place.python, folder],
            ["pip", "install", "--python", python, *options, "torch==2.13.0", "numpy", "pandas", "litserve"],
        ):
            done = uv.run(*arguments, cwd=place.settings.home)
            if done.returncode:
                raise RuntimeError(f"LitServe cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        (folder / ".ready").touch()
    port = processes.free_port()
    command = [
        python,
        HERE / "litserve_app.py",
        place.kind,
        place.models / f"{place.kind}-weights",
        str(port),
        str(place.workers),
    ]
    requests = [load.request("/predict", json.dumps({"input": row}).encode()) for row in place.rows]
    return _started(place, "litserve", command, port, requests)


def echo(place: Place) -> Running:
    """The bare engine."""
    port = processes.free_port()
    requests = [load.request("/invocations", scoring(place, row)) for row in place.rows]
    return _started(place, "echo", [sys.executable, "-m", "benchmarks.echo", str(port)], port, requests)


def _started(place: Place, name: str, command: list[Any], port: int, requests: list[bytes]) -> Running:
    log = place.settings.home / f"{name}-{place.kind}.log"
    path = f"{Path(command[0]).parent}:{place.settings.variables.get('PATH', '')}"
    store = f"sqlite:///{place.settings.home}/peer.db"
    extra = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_TRACKING_URI": store, "PATH": path}
    start = time.perf_counter()
    started = processes.start_detached(command, env=place.settings.child_environment(extra), cwd=HERE.parent, log=log)
    try:
        _first_answer(port, requests[0], started)
    except BaseException as error:
        processes.stop(started, grace_s=2)
        words = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{name} did not start: {error} {words}") from error
    owner = _owner(port)
    family = {process.pid for process in processes.family(started)}
    if owner is not None and owner not in family:
        processes.stop(started, grace_s=2)
        raise RuntimeError(f"port {port} belongs to process {owner}, not to {name}")
    cold_s = time.perf_counter() - start
    return Running(name, port, started.pid, cold_s, requests, lambda: processes.stop(started, grace_s=5))


def _first_answer(port: int, request: bytes, process: processes.ProcessName | None = None) -> None:
    head, _, body = request.partition(b"\r\n\r\n")
    path = head.split(b" ")[1].decode()
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            url = f"http://127.0.0.1:{port}{path}"
            answer = httpx.post(
                url, content=body, headers={"content-type": "application/json"}, trust_env=False, timeout=30
            )
            if answer.status_code == 200:
                return
            last = f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            last = repr(error)
        if process is not None and not processes.is_alive(process):
            raise RuntimeError("it ended")
        time.sleep(0.1)
    raise TimeoutError(f"no good answer within {START_S:g} s ({last})")


def _owner(port: int) -> int | None:
    """Return who listens on a port, where the system tells."""
    try:
        found = [
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port
        ]
    except psutil.AccessDenied:
        return None
    return found[0] if found else None
