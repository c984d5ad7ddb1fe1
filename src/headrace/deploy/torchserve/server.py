"""One TorchServe on this machine: installing it, starting and stopping its process, and its two HTTP interfaces."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from headrace.config.settings import Settings
from headrace.errors import EnvironmentFailed, Unavailable
from headrace.files import write_atomically
from headrace.processes import ProcessName, free_port, is_alive, start_detached, stop
from headrace.types import Json

VERSION = "0.12.0"
LAUNCH = Path(__file__).with_name("launch.py")
#: What TorchServe's worker imports beyond its own package.
FALLBACK_PACKAGES = ("psutil>=5.9", "pyyaml>=6", "packaging>=23")
UP_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Server:
    """A started TorchServe.

    Attributes:
        folder: its configuration, model store, logs.
        inference, management: URLs; the second is for headrace alone and listens on loopback.
    """

    folder: Path
    process: ProcessName
    inference: str
    management: str

    @property
    def model_log(self) -> Path:
        return self.folder / "logs" / "model_log.log"

    @property
    def server_log(self) -> Path:
        return self.folder / "logs" / "ts_log.log"

    def is_alive(self) -> bool:
        return is_alive(self.process)

    def call(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> httpx.Response:
        """Ask the management interface. Raises Unavailable where it does not answer."""
        try:
            return httpx.request(method, f"{self.management}{path}", params=dict(params or {}), timeout=timeout_s)
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
        stop(self.process, grace_s=15)
        _forget_sockets(self.folder)


def installed(settings: Settings) -> Path:
    """Return the folder that holds TorchServe, installing it (25 MB) on first use.

    TorchServe's own package lies in `home`, what its workers need beyond that in `fallback`: apart, so that a version's
    own packages come first.

    Raises:
        EnvironmentFailed: it cannot be fetched.
    """
    folder = settings.state / "tools" / f"torchserve-{VERSION}"
    if (folder / ".ready").exists():
        return folder
    from headrace.environment.packages import read_package_sources
    from headrace.environment.uv_command import find_uv, first_conflict

    uv = find_uv(settings)
    options = read_package_sources(settings.variables).uv_options()
    making = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for place, packages in (("home", [f"torchserve=={VERSION}"]), ("fallback", list(FALLBACK_PACKAGES))):
        done = uv.run(
            "pip", "install", "--python", sys.executable, "--no-deps", "--target", making / place, *options, *packages,
            cwd=making,
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            raise EnvironmentFailed(
                f"TorchServe {VERSION} cannot be installed: {first_conflict(done.stderr)}.",
                "Check the network and pip's settings (`pip config list`), then repeat the command.",
            )
    (making / ".ready").touch()
    if not folder.exists():  # Another process may have been faster.
        making.rename(folder)
    shutil.rmtree(making, ignore_errors=True)
    return folder


def java(settings: Settings) -> str:
    """Return a Java runtime. Raises Unavailable where there is none, or one that is too old."""
    home = settings.variables.get("JAVA_HOME")
    program = f"{home}/bin/java" if home else shutil.which("java", path=settings.variables.get("PATH"))
    remedy = "Install one: `apt-get install openjdk-17-jre-headless`, or serve with `target: process`."
    if program is None:
        raise Unavailable("TorchServe needs Java 17 and there is no `java` on PATH.", remedy)
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as cause:
        raise Unavailable(f"{program} does not run.", remedy) from cause
    found = done.stderr.partition('"')[2].partition(".")[0]
    if found.isdigit() and int(found) < 17:
        raise Unavailable(f"TorchServe needs Java 17; {program} is Java {found}.", remedy)
    return program


def configuration(*, host: str, inference: int, management: int, folder: Path, max_body: int, queue: int) -> str:
    """Return the `config.properties` of one TorchServe.

    Its tokens are off because its management listens on loopback; model snapshots are off because the ledger says what
    runs.
    """
    lines = {
        "inference_address": f"http://{host}:{inference}",
        "management_address": f"http://127.0.0.1:{management}",
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


def start(settings: Settings, folder: Path, *, port: int, max_body: int, queue: int, host: str = "127.0.0.1") -> Server:
    """Start TorchServe without models in a folder of its own, and wait until it answers.

    Raises:
        Unavailable: there is no Java, the port is taken, or it does not come up; the first cause is named.
    """
    home = installed(settings)
    program = java(settings)
    for name in ("store", "logs", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = _socket_folder(folder)
    management = free_port()
    config = folder / "config.properties"
    write_atomically(
        config,
        configuration(host=host, inference=port, management=management, folder=folder, max_body=max_body, queue=queue),
    )
    write_launcher(folder, home)
    variables = settings.child_environment(
        {"LOG_LOCATION": str(folder / "logs"), "METRICS_LOCATION": str(folder / "logs"), "TMPDIR": str(temporary)}
    )
    command = [
        program, f"-Dmodel_server_home={home / 'home'}", f"-Djava.io.tmpdir={temporary}", "-Xmx512m",
        "-XX:+UseSerialGC", "-cp", f"{home / 'home'}/ts/frontend/*", "org.pytorch.serve.ModelServer",
        "--python", str(folder / "python"), "-f", str(config), "-s", str(folder / "store"), "-ncs",
    ]  # fmt: skip
    process = start_detached(command, env=variables, cwd=folder, log=folder / "logs" / "console.log")
    server = Server(folder, process, f"http://{host}:{port}", f"http://127.0.0.1:{management}")
    try:
        _wait(server)
    except BaseException:
        server.stop()
        raise
    return server


def _socket_folder(folder: Path) -> Path:
    """Return where TorchServe may put its workers' sockets, whose paths may have 107 characters at most."""
    if len(str(folder / "tmp" / ".ts.sock.9999")) < 100:
        return folder / "tmp"
    _forget_sockets(folder)
    made = Path(tempfile.mkdtemp(prefix="headrace-ts-"))
    (folder / "tmp" / f"elsewhere-{made.name}").symlink_to(made)
    return made


def _forget_sockets(folder: Path) -> None:
    """Remove what a start made elsewhere, by the link to it."""
    for old in (folder / "tmp").glob("elsewhere-*"):
        shutil.rmtree(old.readlink(), ignore_errors=True)
        old.unlink(missing_ok=True)


def write_launcher(folder: Path, home: Path) -> None:
    """Write the program that TorchServe takes for its Python; see `launch`."""
    script = (
        "#!/bin/sh\n"
        f"export HEADRACE_TORCHSERVE_MAP='{folder / 'workers.json'}'\n"
        f"export HEADRACE_TORCHSERVE_FALLBACK='{home / 'fallback'}'\n"
        f"exec '{sys.executable}' -S '{LAUNCH}' \"$@\"\n"
    )
    write_atomically(folder / "python", script, mode=0o700)


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
