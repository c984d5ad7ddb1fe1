"""TorchServe as a process of this machine, whose workers run in the environments of this machine."""

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.torchserve.runtime import installed, java
from headrace.deploy.torchserve.server import (
    LAUNCH,
    Server,
    command,
    configuration,
    launcher_script,
    prepare,
    up,
    write_workers,
)
from headrace.files import write_atomically
from headrace.processes import ProcessName, free_port, is_alive, start_detached, stop
from headrace.types import Json, ServedVersion

#: Which process was started in a folder, so that one whose starter was killed meanwhile is found and ended.
STARTED = "process.json"


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine."""

    name: ProcessName

    @property
    def pid(self) -> int:
        return self.name.pid

    def is_alive(self) -> bool:
        return is_alive(self.name)

    def stop(self) -> None:
        stop(self.name, grace_s=15)

    def as_json(self) -> Json:
        return self.name.as_json()


@dataclass(frozen=True, slots=True)
class ProcessLauncher:
    """Starts TorchServe as a process. One serves versions of any environment; see `Launcher`."""

    settings: Settings
    name: str = "torchserve"

    def start(self, folder: Path, route: Route, default: ServedVersion, *, port: int) -> Server:
        return start(self.settings, folder, port=port, max_body=route.serve.max_body_bytes, queue=route.serve.queue)

    def found(self, document: Mapping[str, Any]) -> Process:
        return _process(document)

    def fit(self, route: Route, version: ServedVersion) -> str:
        return ""

    def python(self, version: ServedVersion) -> str:
        return str(version.python)

    def write_workers(self, folder: Path, workers: Mapping[str, Json]) -> None:
        write_workers(folder, workers)

    def sweep(self, folder: Path) -> None:
        sweep(folder)


def sweep(folder: Path) -> None:
    """End what a start in that folder left running; nothing where its starter has ended it, or was never there."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        _process(json.loads((folder / STARTED).read_text())).stop()


def _process(document: Mapping[str, Any]) -> Process:
    return Process(ProcessName(int(document["pid"]), float(document["started"])))


def start(settings: Settings, folder: Path, *, port: int, max_body: int, queue: int, host: str = "127.0.0.1") -> Server:
    """Start TorchServe without models in a folder of its own, and wait until it answers.

    Raises:
        Unavailable: there is no Java, the port is taken, or it does not come up; the first cause is named.
    """
    home = installed(settings)
    program = java(settings)
    sweep(folder)
    temporary = prepare(folder)
    management = f"http://127.0.0.1:{free_port()}"
    inference = f"http://{host}:{port}"
    config = configuration(inference=inference, management=management, folder=folder, max_body=max_body, queue=queue)
    write_atomically(folder / "config.properties", config)
    launcher = launcher_script(folder, python=sys.executable, launch=LAUNCH, home=home)
    write_atomically(folder / "python", launcher, mode=0o700)
    variables = settings.child_environment(
        {"LOG_LOCATION": str(folder / "logs"), "METRICS_LOCATION": str(folder / "logs"), "TMPDIR": str(temporary)}
    )
    words = command(program, home=home, temporary=temporary, folder=folder)
    process = Process(start_detached(words, env=variables, cwd=folder, log=folder / "logs" / "console.log"))
    write_atomically(folder / STARTED, json.dumps(process.as_json()))
    return up(Server(folder, process, inference, management))
