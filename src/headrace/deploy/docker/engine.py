"""The one door to a Docker engine: its command line, which also speaks SSH and uses credential helpers."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.settings import Settings
from headrace.errors import Unavailable

#: What of the caller's environment tells docker which engine to use and who is asking.
VARIABLES = (
    "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "SSH_AUTH_SOCK",
)  # fmt: skip
BUILD_S = 3600.0
#: Who runs what headrace builds.
NOBODY = "10001:10001"


class EngineFailed(Unavailable):
    """A docker command failed; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built or pulled image.

    Attributes:
        id: digest of its configuration, `sha256:…`; names the content wherever it lies.
        layers: digests of its uncompressed layers, lowest first.
        digests: `repository@sha256:…` for each registry that it was pushed to or pulled from.
    """

    id: str
    layers: Sequence[str]
    labels: Mapping[str, str]
    user: str
    digests: Sequence[str]
    environment: Sequence[str]


@dataclass(frozen=True, slots=True)
class Engine:
    """A docker program with the environment that it runs in."""

    program: str
    variables: Mapping[str, str]

    def run(self, *arguments: str | Path, timeout_s: float = 120.0, stdin: str | None = None) -> str:
        """Run a docker command and return what it wrote to stdout. Raises EngineFailed."""
        try:
            done = subprocess.run(
                [self.program, *map(str, arguments)], env=dict(self.variables), input=stdin, capture_output=True,
                text=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as cause:
            raise EngineFailed(
                f"`docker {arguments[0]}` did not end within {timeout_s:g} s.", "Look at the engine: `docker info`."
            ) from cause
        if done.returncode != 0:
            raise EngineFailed(
                f"`docker {arguments[0]}` failed: {last_words(done.stderr or done.stdout)}", _remedy(done.stderr)
            )
        return done.stdout

    def build(
        self, context: Path, dockerfile: Path, *, tag: str, arguments: Mapping[str, str], labels: Mapping[str, str]
    ) -> Image:
        """Build an image from a folder. Raises EngineFailed with the failing step's words."""
        options: list[str] = []
        for name, value in arguments.items():
            options += ["--build-arg", f"{name}={value}"]
        for name, value in labels.items():
            options += ["--label", f"{name}={value}"]
        engine = Engine(self.program, {**self.variables, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"})
        engine.run(
            "build", "--network", "none", "--file", dockerfile, "--tag", tag, *options, context, timeout_s=BUILD_S
        )
        return self.image(tag)

    def image(self, name: str) -> Image:
        """Return what the engine knows of an image. Raises EngineFailed where it has none of that name."""
        [found] = json.loads(self.run("image", "inspect", name))
        config: dict[str, Any] = found["Config"] or {}
        return Image(
            id=found["Id"],
            layers=tuple(found["RootFS"].get("Layers") or ()),
            labels=dict(config.get("Labels") or {}),
            user=str(config.get("User") or ""),
            digests=tuple(found.get("RepoDigests") or ()),
            environment=tuple(config.get("Env") or ()),
        )

    def find(self, name: str) -> Image | None:
        """Return the image of that name or id, if the engine has one."""
        try:
            return self.image(name)
        except EngineFailed as error:
            if "No such image" not in error.fact:
                raise
        return None

    def has(self, name: str) -> bool:
        """Tell whether the engine has an image of that name or id."""
        return self.find(name) is not None

    def user(self, image_user: str) -> str:
        """Return UID:GID of whoever works with mounted folders: this process's own, never root on a rootful engine."""
        if "name=rootless" in self.run("info", "--format", "{{.SecurityOptions}}"):
            return "0:0"  # Which is who runs the engine.
        mine = f"{os.getuid()}:{os.getgid()}"
        named = re.fullmatch(r"[1-9]\d*(:\d+)?", image_user)
        return mine if os.getuid() else (image_user if named else NOBODY)

    @property
    def far(self) -> str:
        """Where the engine is, if that is another machine; empty for this one."""
        said = self.variables.get("DOCKER_HOST") or self.run(
            "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
        )
        host = said.strip()
        return "" if host.startswith(("unix://", "npipe://")) else host

    def require_local(self, why: str) -> None:
        """Raise Unavailable where the engine is on another machine."""
        if self.far:
            raise Unavailable(
                f"{why}, and the engine at {self.far} is on another.",
                "Unset DOCKER_HOST and DOCKER_CONTEXT here, or run `headrace worker` on that machine.",
            )

    def containers(self, label: str) -> list[str]:
        """Return the ids of all containers with a label (`name=value`), the stopped ones too."""
        return self.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()

    def remove(self, container: str) -> None:
        """Kill and remove a container; one that is gone is no error."""
        try:
            self.run("rm", "--force", "--volumes", container)
        except EngineFailed as error:
            if "No such container" not in error.fact and "already in progress" not in error.fact:
                raise


def find_engine(settings: Settings) -> Engine:
    """Return the docker program of this machine whose engine answers and that can build.

    Raises:
        Unavailable: there is none, or its engine does not answer.
    """
    wanted = settings.variables.get("HEADRACE_DOCKER")
    path = settings.variables.get("PATH", os.defpath)
    programs = [wanted] if wanted else _programs(path)
    if not programs:
        raise Unavailable(
            "There is no `docker` on PATH.",
            "Install Docker (Debian: `apt-get install docker.io`), or use `environment: uv`.",
        )
    passed = {name: settings.variables[name] for name in VARIABLES if name in settings.variables}
    variables = settings.child_environment(passed)
    program = next((one for one in programs if _builds(one, variables)), programs[0])
    engine = Engine(program, variables)
    try:
        engine.run("version", "--format", "{{.Server.Version}}", timeout_s=30)
    except EngineFailed as cause:
        where = settings.variables.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        raise Unavailable(
            f"No Docker engine answers at {where}: {cause.fact}",
            "Start it (`systemctl start docker`), or point DOCKER_HOST at one.",
        ) from cause
    return engine


def _programs(path: str) -> list[str]:
    found = [Path(folder) / "docker" for folder in path.split(os.pathsep)]
    return list(dict.fromkeys(str(one) for one in found if shutil.which(str(one))))


def _builds(program: str, variables: Mapping[str, str]) -> bool:
    """Tell whether a docker program can use BuildKit: by its plug-in, or built in as before version 23."""
    try:
        has_plugin = subprocess.run(
            [program, "buildx", "version"], env=dict(variables), capture_output=True, timeout=20, check=False
        )
        version = subprocess.run(
            [program, "--version"], env=dict(variables), capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    major = re.search(r"version (\d+)\.", version.stdout)
    return has_plugin.returncode == 0 or (major is not None and int(major[1]) < 23)


def last_words(output: str) -> str:
    """Return the sentence of an output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [re.sub(r"^#\d+ [\d.]+ ", "", line) for line in lines if re.match(r"^#\d+ [\d.]+ ", line)]
    errors = [line for line in lines if re.match(r"(?i)^(error|failed|denied|unauthorized)", line)]
    chosen = [*said[-1:], *(errors[-1:] or lines[-1:])]
    return " | ".join(dict.fromkeys(chosen))[:400] or "it said nothing"


def _remedy(stderr: str) -> str:
    if "permission denied" in stderr and "docker.sock" in stderr:
        return "Add yourself to the group `docker`, or use a rootless engine."
    if "Cannot connect to the Docker daemon" in stderr:
        return "Start it (`systemctl start docker`), or point DOCKER_HOST at one."
    if "no space left" in stderr:
        return "Make room: `docker system df`, `docker image prune`."
    if "unauthorized" in stderr or "denied" in stderr:
        return "Log in to the registry: `docker login HOST`."
    return ""
