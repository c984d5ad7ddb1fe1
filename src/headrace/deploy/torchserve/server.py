"""One started TorchServe: its folder, its configuration, its two HTTP interfaces; where it runs is its launcher's."""

import json
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from headrace.deploy.base import Route
from headrace.errors import Unavailable
from headrace.files import write_atomically
from headrace.processes import free_port
from headrace.types import Json, ServedVersion

LAUNCH = Path(__file__).with_name("launch.py")
UP_WITHIN_S = 120


class Running(Protocol):
    """What a started TorchServe runs as."""

    @property
    def pid(self) -> int: ...

    def is_alive(self) -> bool: ...

    def stop(self) -> None:
        """End it with all of its workers, and wait until they are gone."""
        ...

    def as_json(self) -> Json:
        """Return what `Launcher.found` finds it by."""
        ...


class Launcher(Protocol):
    """Where TorchServe runs: as a process, or in a container.

    Attributes:
        name: of the folder below `run` that holds its endpoints.
    """

    @property
    def name(self) -> str: ...

    def start(self, folder: Path, route: Route, default: ServedVersion, *, port: int) -> "Server":
        """Start TorchServe without models, such that it can serve `default`, and wait until it answers."""
        ...

    def found(self, document: Mapping[str, Any]) -> Running:
        """Return what `Running.as_json` said."""
        ...

    def fit(self, route: Route, version: ServedVersion) -> str:
        """Return what a TorchServe must be started for to serve a version; one holds those of equal text."""
        ...

    def python(self, version: ServedVersion) -> str:
        """Return the interpreter of a version's workers, as TorchServe sees it."""
        ...

    def write_workers(self, folder: Path, workers: Mapping[str, Json]) -> None: ...

    def sweep(self, folder: Path) -> None:
        """Remove what a start in that folder may have left that nobody knows any more."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """A started TorchServe.

    Attributes:
        folder: its configuration, model store, logs.
        inference: URL.
        management: for headrace alone: a URL on loopback, or the path of a socket.
    """

    folder: Path
    running: Running
    inference: str
    management: str

    @property
    def model_log(self) -> Path:
        return self.folder / "logs" / "model_log.log"

    @property
    def server_log(self) -> Path:
        return self.folder / "logs" / "ts_log.log"

    def is_alive(self) -> bool:
        return self.running.is_alive()

    def call(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> httpx.Response:
        """Ask the management interface. Raises Unavailable where it does not answer."""
        socket = self.management if self.management.startswith("/") else ""
        transport = httpx.HTTPTransport(uds=socket) if socket else None
        base = "http://localhost" if socket else self.management
        try:
            with httpx.Client(transport=transport, timeout=timeout_s) as client:
                return client.request(method, f"{base}{path}", params=dict(params or {}))
        except httpx.HTTPError as cause:
            raise Unavailable(
                f"TorchServe does not answer at {self.management}: {type(cause).__name__}.", f"See {self.server_log}."
            ) from cause

    def model_log_since(self, mark: int) -> str:
        """Return what the model log holds from byte `mark` on, once it has stood still for a moment.

        A failed worker's last lines reach the log after the answer that it failed.
        """
        size, deadline = -1, time.monotonic() + 3
        while self.log_size() != size and time.monotonic() < deadline:
            size = self.log_size()
            time.sleep(0.25)
        with self.model_log.open("rb") as file:
            file.seek(mark)
            return file.read().decode(errors="replace")

    def log_size(self) -> int:
        """Return the present size of the model log."""
        return self.model_log.stat().st_size if self.model_log.exists() else 0

    def stop(self) -> None:
        """End it with all of its workers, and wait until they are gone."""
        self.running.stop()
        forget_sockets(self.folder)


def configuration(*, inference: str, management: str, folder: Path, max_body: int, queue: int) -> str:
    """Return the `config.properties` of one TorchServe, at whose place its folder is `folder`.

    Its tokens are off because nobody else reaches its management; model snapshots are off because the ledger says what
    runs.
    """
    lines = {
        "inference_address": inference,
        "management_address": management,
        "metrics_address": f"http://127.0.0.1:{free_port()}",
        # It listens for gRPC too; the fixed default ports would keep a second TorchServe from starting.
        "grpc_inference_port": str(free_port()),
        "grpc_management_port": str(free_port()),
        "model_store": str(folder / "store"),
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "enable_metrics_api": "true",
        "disable_system_metrics": "true",
        "load_models": "",
        "job_queue_size": str(queue),
        "max_request_size": str(max_body),
        "max_response_size": str(max_body),
        "default_workers_per_model": "1",
        "install_py_dep_per_model": "false",
        "allowed_urls": f"file://{folder}/store/.*",
        "cors_allowed_methods": "",
        "number_of_netty_threads": "4",
        "netty_client_threads": "4",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items() if value)


def prepare(folder: Path) -> Path:
    """Make an endpoint's folders, and return the one for TorchServe's temporary files."""
    for name in ("store", "logs", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.rmtree(folder / "tmp" / "models", ignore_errors=True)  # What a killed one had unpacked.
    return _socket_folder(folder)


def command(program: str, *, home: Path, temporary: Path, folder: Path) -> list[str]:
    """Return the command that starts TorchServe."""
    return [
        program, f"-Dmodel_server_home={home / 'home'}", f"-Djava.io.tmpdir={temporary}", "-Xmx512m",
        "-XX:+UseSerialGC", "-cp", f"{home / 'home'}/ts/frontend/*", "org.pytorch.serve.ModelServer",
        "--python", str(folder / "python"), "-f", str(folder / "config.properties"), "-s", str(folder / "store"),
        "-ncs",
    ]  # fmt: skip


def _socket_folder(folder: Path) -> Path:
    """Return where TorchServe may put its workers' sockets, whose paths may have 107 characters at most."""
    if len(str(folder / "tmp" / ".ts.sock.9999")) < 100:
        return folder / "tmp"
    forget_sockets(folder)
    made = Path(tempfile.mkdtemp(prefix="headrace-ts-"))
    (folder / "tmp" / f"elsewhere-{made.name}").symlink_to(made)
    return made


def forget_sockets(folder: Path) -> None:
    """Remove what a start made elsewhere, by the link to it."""
    for old in (folder / "tmp").glob("elsewhere-*"):
        shutil.rmtree(old.readlink(), ignore_errors=True)
        old.unlink(missing_ok=True)


def launcher_script(folder: Path, *, python: str, launch: Path, home: Path) -> str:
    """Return the program that TorchServe takes for its Python; see `launch`."""
    places = [folder / "workers.json", home / "fallback", python, launch]
    workers, fallback, interpreter, script = [shlex.quote(str(place)) for place in places]
    return (
        "#!/bin/sh\n"
        f"export HEADRACE_TORCHSERVE_MAP={workers}\n"
        f"export HEADRACE_TORCHSERVE_FALLBACK={fallback}\n"
        f'exec {interpreter} -S {script} "$@"\n'
    )


def write_workers(folder: Path, workers: Mapping[str, Json]) -> None:
    """Write which interpreter and variables each version's workers get; secrets are in it, so it is private."""
    write_atomically(folder / "workers.json", json.dumps(dict(workers)), mode=0o600)


def unpacked_name(archive: Path) -> str:
    """Return a new name for a copy of an archive in the store: TorchServe keeps unpacked archives by file name."""
    return f"{archive.stem}-{secrets.token_hex(4)}.mar"


def tail(path: Path, lines: int = 3) -> str:
    """Return a log's last lines as one sentence."""
    try:
        found: Sequence[str] = path.read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return (
        " | ".join(line.strip() for line in found if line.strip())
        if len(found) <= lines
        else " | ".join(found[-lines:])
    )


def up(server: Server) -> Server:
    """Wait until a started TorchServe answers; one that does not is stopped. Raises Unavailable."""
    try:
        _wait(server)
    except BaseException:
        server.stop()
        raise
    return server


def _wait(server: Server) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < deadline:
        if not server.is_alive():
            raise _not_up(server, "ended while starting")
        try:
            if httpx.get(f"{server.inference}/ping", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise _not_up(server, f"did not answer within {UP_WITHIN_S} s")


def _not_up(server: Server, what: str) -> Unavailable:
    from headrace.deploy.torchserve.log import server_cause

    console = server.folder / "logs" / "console.log"
    text = "".join(path.read_text(errors="replace") for path in (console, server.server_log) if path.exists())
    cause = server_cause(text)
    return Unavailable(
        f"TorchServe at {server.inference} {what}: {cause.fact if cause else tail(console)}",
        cause.remedy if cause else f"See {console}.",
    )
