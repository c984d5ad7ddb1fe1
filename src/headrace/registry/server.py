"""MLflow's own UI over headrace's store: started lean, on loopback, in a session of its own."""

import fcntl
import json
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec

import httpx

from headrace import processes
from headrace.config.settings import Settings
from headrace.errors import InvalidConfig, Unavailable
from headrace.files import write_atomically
from headrace.processes import ProcessName
from headrace.registry.mlflow import MLFLOW_VARIABLES, MlflowRegistry

#: Without these MLflow starts four workers and a job runner: 2 GB and 40 s instead of 0.5 GB and 15 s.
LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True, slots=True)
class MlflowServer:
    """A running MLflow server."""

    url: str
    process: ProcessName


def start(settings: Settings) -> MlflowServer:
    """Start the server, or return the one that runs. It answers some seconds later: see `wait_until_ready`.

    The port is kept from one start to the next as long as it is free.

    Raises:
        Conflict: never here; two callers at once get the same server.
        Unavailable: the store cannot be written.
    """
    settings.run.mkdir(parents=True, exist_ok=True)
    with (settings.run / "mlflow-server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = running(settings)
        if known is not None:
            return known
        MlflowRegistry(settings).versions("none")  # makes the tables before the server does
        port = _port(settings)
        process = processes.start_detached(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                "--backend-store-uri", settings.mlflow_uri, "--default-artifact-root", str(settings.artifacts),
                "--no-serve-artifacts",
            ],
            env=settings.child_environment(MLFLOW_VARIABLES | LEAN),
            cwd=settings.home,
            log=settings.run / "mlflow-server.log",
        )  # fmt: skip
        write_atomically(settings.run / "mlflow-server.json", json.dumps({"port": port, **process.as_json()}))
        return MlflowServer(f"http://127.0.0.1:{port}", process)


@dataclass(frozen=True, slots=True)
class Foreground:
    """A command and its whole environment. Secrets are in the environment alone, where others cannot read them."""

    command: list[str]
    environment: dict[str, str] = field(repr=False)


def foreground(settings: Settings, *, host: str, port: int, allowed_hosts: str) -> Foreground:
    """Return MLflow's server over the parts that the settings name, artifacts handed out by it and kept in S3.

    Clients need neither the database nor the object store.

    Raises:
        InvalidConfig: no database is named, or boto3 is missing for S3.
    """
    if settings.mlflow_database_url is None:
        raise InvalidConfig(
            "Nothing says which database MLflow keeps its tables in.",
            "Set HEADRACE_MLFLOW_DATABASE_URL_FILE to a file that holds its URL.",
        )
    own: dict[str, str] = {"MLFLOW_BACKEND_STORE_URI": settings.mlflow_database_url}
    places = settings.artifacts_url or str(settings.artifacts)
    if places.startswith("s3:"):
        if find_spec("boto3") is None:
            raise InvalidConfig("MLflow needs boto3 for artifacts in S3.", "pip install 'headrace[s3]'")
        own |= settings.s3.as_variables()
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--serve-artifacts", "--artifacts-destination", places]
    command += ["--allowed-hosts", allowed_hosts] if allowed_hosts else []
    return Foreground(command, settings.child_environment(MLFLOW_VARIABLES | LEAN | own))


def running(settings: Settings) -> MlflowServer | None:
    """Return the server that `start` started, if it is alive."""
    try:
        known = json.loads((settings.run / "mlflow-server.json").read_text())
        process = ProcessName(known["pid"], known["started"])
        return MlflowServer(f"http://127.0.0.1:{known['port']}", process) if processes.is_alive(process) else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def wait_until_ready(server: MlflowServer, settings: Settings, *, timeout_s: float = 180.0) -> None:
    """Return when the server answers. Raises Unavailable with the end of its log."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and processes.is_alive(server.process):
        try:
            if httpx.get(f"{server.url}/health", timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    log = settings.run / "mlflow-server.log"
    last = log.read_text(errors="replace").strip().rpartition("\n")[2] if log.exists() else ""
    raise Unavailable(f"The MLflow server did not come up within {timeout_s:.0f} s: {last}", f"Read {log}.")


def stop(settings: Settings) -> None:
    """Stop the server with all its children; no error where none runs."""
    known = running(settings)
    if known is not None:
        processes.stop(known.process, grace_s=5.0)


def _port(settings: Settings) -> int:
    """Return the port of the last start if it is free, else another free one."""
    import socket

    try:
        port = int(json.loads((settings.run / "mlflow-server.json").read_text())["port"])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        return port
    except (OSError, ValueError, KeyError):
        return processes.free_port()
