"""The `docker` target: a version's workers are containers of its serve image, behind the endpoint of this machine.

The endpoint itself (routes, canaries, prediction ids and log, batching, metrics) is the `process` target's: a
supervisor with its fronts, outside the containers. Only where a worker's interpreter would be started, a container is.
Versions move as they do there: prepared, warmed and checked with golden answers before traffic moves.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.config.settings import Settings
from headrace.deploy.base import Route, Status
from headrace.deploy.docker.engine import Engine, EngineFailed, Image
from headrace.deploy.docker.gpus import gpu_options
from headrace.deploy.process import ProcessTarget
from headrace.errors import ModelRefused
from headrace.files import sha256_json, write_atomically
from headrace.types import Endpoint, Json, Resources, ServedVersion, Stage

LAUNCH = Path(__file__).with_name("launch.py")
SEAL = "org.headrace.seal"
ENDPOINT = "org.headrace.endpoint"
#: What a supervisor sets for every worker, besides the version's own variables.
WORKER_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
    "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "HEADRACE_HEAVY_THREADS",
)  # fmt: skip


def limit_options(limits: Resources) -> list[str]:
    """Return the engine's options for what a container may use."""
    options = ["--memory", limits.memory, "--memory-swap", limits.memory] if limits.memory else []
    return options + (["--cpus", f"{limits.cpus:g}"] if limits.cpus else [])


@dataclass(frozen=True, slots=True)
class DockerTarget:
    """Endpoints whose workers are containers on one engine, here or on another machine.

    Attributes:
        image_of: returns the serve image of a version, by name or id, building or pulling it where needed.
    """

    settings: Settings
    engine: Engine
    image_of: Callable[[ServedVersion], str]

    def apply(self, route: Route) -> Status:
        """Start what is missing and move the route; see `Target`. Raises ModelRefused for an image of other content."""
        images = {version.version: self._image(version) for version in route.versions}
        versions = [self._contained(version, route.stage, images[version.version]) for version in route.versions]
        status = self._inner.apply(replace(route, versions=versions))
        measured = {number: {**status.measured.get(number, {}), "image": image.id} for number, image in images.items()}
        return replace(status, measured=measured)

    def status(self, component: str, stage: Stage) -> Status | None:
        return self._inner.status(component, stage)

    def remove(self, component: str, stage: Stage) -> None:
        self._inner.remove(component, stage)
        for container in [*self.engine.containers(self.label(component, stage)), *self._of_old(component, stage)]:
            self.engine.remove(container)
        for folder in Path("/tmp").glob(f"{self._sockets(component, stage)}*"):  # noqa: S108 - left where one was killed
            shutil.rmtree(folder, ignore_errors=True)

    def label(self, component: str, stage: Stage) -> str:
        """Return the label of an endpoint's containers: this home's alone, as several may share an engine."""
        return f"{ENDPOINT}={component}-{stage.value}-{self._digest(component, stage)}"

    def _of_old(self, component: str, stage: Stage) -> Sequence[str]:
        """Return the endpoint's containers of earlier versions, whose label named no home but whose sockets do."""
        found = self.engine.containers(f"{ENDPOINT}={component}-{stage.value}")
        return [container for container in found if self._sockets(component, stage) in self._told(container)]

    def _told(self, container: str) -> str:
        """Return the container's name and what is mounted into it; nothing where it has just gone."""
        told = "{{.Name}}{{range .Mounts}} {{.Source}}{{end}}"
        try:
            return self.engine.run("container", "inspect", "--format", told, container)
        except EngineFailed as error:
            if "No such container" not in error.fact:
                raise
        return ""

    def _sockets(self, component: str, stage: Stage) -> str:
        """Return what the names of this endpoint's socket folders begin with."""
        return f"hr-{self._digest(component, stage)}-"

    def _digest(self, component: str, stage: Stage) -> str:
        """Return what tells this endpoint from those of other homes."""
        return sha256_json([str(self.settings.run), component, stage.value])[:10]

    def endpoints(self) -> Sequence[Endpoint]:
        return self._inner.endpoints()

    @property
    def _inner(self) -> ProcessTarget:
        return ProcessTarget(self.settings)

    def _image(self, version: ServedVersion) -> Image:
        """Return the version's image. Raises ModelRefused where it holds another model than the baseline says."""
        image = self.engine.image(self.image_of(version))
        if version.seal and image.labels.get(SEAL) != version.seal:
            raise ModelRefused(
                f"The image {image.id[:19]} of {version.component} version {version.version} holds the model "
                f"{image.labels.get(SEAL, 'without a seal')[:12]}, the baseline says {version.seal[:12]}.",
                f"Build it again: `headrace image build {version.component}/{version.version}`.",
            )
        return image

    def _contained(self, version: ServedVersion, stage: Stage, image: Image) -> ServedVersion:
        """Return the version with an interpreter that starts containers.

        Raises:
            Unavailable: its stage wants GPUs, and the engine cannot pass any on.
        """
        variables = [*WORKER_VARIABLES, *version.environment_variables, *version.secrets]
        label = self.label(version.component, stage)
        marks = ["--label", label, "--label", f"org.headrace.version={version.version}"]
        gpus = gpu_options(
            self.engine, version.limits.gpus, asked_by=f"stages.{stage}.limits.gpus: {version.limits.gpus}",
            otherwise="leave the line out",
        )  # fmt: skip
        plan: dict[str, Json] = {
            "docker": [self.engine.program],
            # By its digest: a tag that moves later moves nothing here.
            "image": image.id,
            "user": image.user or "10001:10001",
            "variables": list(variables),
            "sockets": self._sockets(version.component, stage),
            "far": self.engine.far,
            "endpoint": label,
            "options": [*marks, *limit_options(version.limits), *gpus],
        }
        return replace(version, python=self._launcher(version, stage, plan))

    def _launcher(self, version: ServedVersion, stage: Stage, plan: dict[str, Json]) -> Path:
        """Write the program that stands in for the version's interpreter; equal plans give the same program."""
        folder = self.settings.run / "docker" / f"{version.component}-{stage.value}"
        key = sha256_json(plan)[:16]
        write_atomically(folder / f"{key}.json", json.dumps(plan, indent=1))
        # Docker runs `ssh` to reach an engine elsewhere, which has its own settings at home.
        wanted = ("DOCKER_", "SSH_", "HOME", "PATH") if plan["far"] else ("DOCKER_",)
        passed = {name: value for name, value in self.engine.variables.items() if name.startswith(wanted)}
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in passed.items())
        words = [sys.executable, "-S", str(LAUNCH), str(folder / f"{key}.json")]
        script = f'#!/bin/sh\n{exports}exec {shlex.join(words)} "$@"\n'
        write_atomically(folder / f"python-{key}", script, mode=0o700)
        return folder / f"python-{key}"
