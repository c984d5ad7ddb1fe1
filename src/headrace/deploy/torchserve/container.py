"""TorchServe in a container of the component's own environment, on the engine of this machine.

Its folder is mounted read-only, but for its logs and its temporary files: what is on the host finds the same logs and
writes the same files as for a process. The port for predictions is published on loopback; the management interface is a
socket in that folder, which no other container reaches. Variables and secrets of a version come with its worker, in the
file that only the container's user reads, and stand in no `docker inspect`.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.docker.engine import Engine, EngineFailed, Image
from headrace.deploy.docker.gpus import gpu_options
from headrace.deploy.images.of_version import environment_of, images
from headrace.deploy.torchserve.archive import workers_of
from headrace.deploy.torchserve.runtime import installed
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
from headrace.files import sha256_json, write_atomically
from headrace.types import Json, ServedVersion

#: In the container: the endpoint's folder, and what the image holds.
FOLDER, HOME, PYTHON = Path("/run/torchserve"), Path("/opt/torchserve"), "/opt/environment/bin/python"
PORT = 8080
LABEL = "org.headrace.torchserve"
#: What Java takes beside the workers: its heap of 512 MB, threads and code.
JAVA_BYTES = 1 << 30
STOPS_WITHIN_S = 15


@dataclass(frozen=True, slots=True)
class Container:
    """A container with a TorchServe."""

    engine: Engine
    id: str

    @property
    def pid(self) -> int:
        """Of its first process, as the engine's machine counts; 0 where it has ended."""
        return int(self._state("Pid") or 0)

    def is_alive(self) -> bool:
        return self._state("Running") == "true"

    def stop(self) -> None:
        with contextlib.suppress(EngineFailed):
            self.engine.run("stop", "--time", str(STOPS_WITHIN_S), self.id)
        self.engine.remove(self.id)

    def as_json(self) -> Json:
        return {"container": self.id}

    def _state(self, name: str) -> str:
        try:
            return self.engine.run("container", "inspect", "--format", f"{{{{.State.{name}}}}}", self.id).strip()
        except EngineFailed as error:
            if "No such container" not in error.fact:
                raise
        return ""


@dataclass(frozen=True, slots=True)
class ContainerLauncher:
    """Starts TorchServe in containers, each for versions of one environment and one set of limits; see `Launcher`."""

    settings: Settings
    engine: Engine
    name: str = "torchserve-docker"

    def start(self, folder: Path, route: Route, default: ServedVersion, *, port: int) -> Server:
        """See `Launcher`. Raises Unavailable: no Java, no GPUs, an engine elsewhere, a port that is taken."""
        self.engine.require_local("TorchServe's container shares a folder with headrace")
        image = self._image(default)
        user = self.engine.user(image.user)
        self.sweep(folder)
        temporary = prepare(folder)
        management = temporary / "management.sock"
        management.unlink(missing_ok=True)
        _write(folder, temporary, user, management=f"unix:{FOLDER / 'tmp' / management.name}", route=route)
        gpus = gpu_options(
            self.engine, default.limits.gpus, asked_by=f"stages.{route.stage}.limits.gpus: {default.limits.gpus}",
            otherwise="leave the line out",
        )  # fmt: skip
        options = [*self._options(folder, temporary, user, port), *_limits(route, default), *gpus]
        words = command("java", home=HOME, temporary=FOLDER / "tmp", folder=FOLDER)
        # Not to the engine's own log, which grows without end.
        shell = ["sh", "-c", f'exec "$@" > {FOLDER}/logs/console.log 2>&1', "torchserve"]
        try:
            made = self.engine.run("run", *options, image.id, *shell, *words).strip()
        except EngineFailed:  # One that could not start, as its port is taken, was made all the same.
            self.sweep(folder)
            raise
        return up(Server(folder, Container(self.engine, made), f"http://127.0.0.1:{port}", str(management)))

    def found(self, document: Mapping[str, Any]) -> Container:
        return Container(self.engine, str(document["container"]))

    def fit(self, route: Route, version: ServedVersion) -> str:
        gpus = [version.limits.gpus] if version.limits.gpus else []
        return sha256_json([str(version.python), *_limits(route, version), *gpus])

    def python(self, version: ServedVersion) -> str:
        return PYTHON

    def write_workers(self, folder: Path, workers: Mapping[str, Json]) -> None:
        write_workers(folder, workers)
        _give(folder / "workers.json", f"{folder.stat().st_uid}")

    def sweep(self, folder: Path) -> None:
        for left in self.engine.containers(_label(folder)):
            self.engine.remove(left)

    def _options(self, folder: Path, temporary: Path, user: str, port: int) -> list[str]:
        """Return the engine's options, but for limits."""
        volumes = [f"{folder}:{FOLDER}:ro", f"{folder / 'logs'}:{FOLDER / 'logs'}", f"{temporary}:{FOLDER / 'tmp'}"]
        variables = {"LOG_LOCATION": "logs", "METRICS_LOCATION": "logs", "TMPDIR": "tmp"}
        label = _label(folder)
        return [
            "--detach", "--name", f"headrace-{self.name}-{folder.name}-{label[-8:]}", "--label", label, "--user", user,
            "--read-only", "--tmpfs", "/tmp", "--workdir", "/tmp", "--cap-drop", "ALL",  # noqa: S108
            "--security-opt", "no-new-privileges", "--publish", f"127.0.0.1:{port}:{PORT}",
            *(word for volume in volumes for word in ("--volume", volume)),
            *(word for name, place in variables.items() for word in ("--env", f"{name}={FOLDER / place}")),
        ]  # fmt: skip

    def _image(self, version: ServedVersion) -> Image:
        home = installed(self.settings)
        return images(self.engine, self.settings).torchserve(environment_of(version), home, LAUNCH)


def _write(folder: Path, temporary: Path, user: str, *, management: str, route: Route) -> None:
    """Write what TorchServe reads when it starts, and let the container's user have the folder."""
    config = configuration(
        inference=f"http://0.0.0.0:{PORT}", management=management, folder=FOLDER,
        max_body=route.serve.max_body_bytes, queue=route.serve.queue,
    )  # fmt: skip
    script = launcher_script(FOLDER, python=PYTHON, launch=HOME / LAUNCH.name, home=HOME)
    write_atomically(folder / "config.properties", config)
    write_atomically(folder / "python", script, mode=0o700)
    (folder / "logs" / "console.log").unlink(missing_ok=True)
    for path in (folder, temporary, *(folder / name for name in ("store", "logs", "config.properties", "python"))):
        _give(path, user)


def _label(folder: Path) -> str:
    """Return what marks the containers of one endpoint of one home."""
    return f"{LABEL}={sha256_json(str(folder))[:16]}"


def _limits(route: Route, default: ServedVersion) -> list[str]:
    """Return the engine's options for what the container may use: each worker is held to its own limits in there.

    Two versions are loaded while one takes the other's place.
    """
    limits, workers = default.limits, workers_of(route.serve)
    memory = str(JAVA_BYTES + 2 * workers * limits.memory_bytes)
    options = ["--memory", memory, "--memory-swap", memory] if limits.memory_bytes else []
    return options + (["--cpus", f"{1 + workers * limits.cpus:g}"] if limits.cpus else [])


def _give(path: Path, user: str) -> None:
    """Let the container's user read what headrace wrote as root."""
    if os.getuid() == 0:
        os.chown(path, int(user.partition(":")[0]), -1)
