"""A training in a container: what it needs, and the supervised command that runs it.

The command is `contain.py`, on headrace's side; `inside.py` is the container's first process.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from headrace.config.component import Component
from headrace.environment.base import Environment
from headrace.errors import InvalidConfig, Unavailable
from headrace.files import sha256_json, write_atomically

CONTAIN = Path(__file__).with_name("contain.py")
LABEL = "org.headrace.training"
#: Where the train image has the project.
PROJECT = "/opt/project"
#: In the container, whose network is its own: where MLflow answers that listens on the machine's loopback.
PORT = 15000
#: What a training may see of the caller's variables; all other places and programs are the image's own.
PASSED = ("LANG", "LC_ALL", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
          "HF_HUB_OFFLINE", "DO_NOT_TRACK", "GIT_PYTHON_REFRESH", "PYTHONUNBUFFERED")  # fmt: skip
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be trained in a container.

    Attributes:
        project: the checkout's project folder; the train image gets a copy of it.
        commit: empty where none holds the code.
        tell: hears what takes its time.
    """

    component: Component
    environment: Environment
    project: Path
    commit: str
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Container:
    """What a training's container is made of.

    Attributes:
        docker: the program; `engine` are the variables that lead it to its engine.
        image: the train image's id; `tag` what people call it.
        user: UID:GID of all that runs in it.
        options: of `docker create`: limits, GPUs, network.
        tracking: the URL of the MLflow server.
        writes: folders that MLflow's client writes to by itself, where no server does.
        memory: the limit, for the message where it is hit.
        variables: the project's own (`docker_env`).
    """

    docker: str
    engine: Mapping[str, str]
    image: str
    tag: str
    user: str
    options: tuple[str, ...]
    tracking: str
    writes: tuple[Path, ...] = ()
    memory: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, str]:
        """What a run is tagged with, in MLflow's own words."""
        return {
            "mlflow.project.env": "docker",
            "mlflow.docker.image.uri": self.tag,
            "mlflow.docker.image.id": self.image,
        }


class Containers(Protocol):
    """Gives what a training's container is made of."""

    def check(self, component: Component) -> None:
        """Raise Unavailable where the component cannot be trained in a container here, whatever its code is."""
        ...

    def make(self, wish: Wish) -> Container:
        """Return what the container is made of, building its image where it is not there; a repeat gives the same.

        Raises:
            InvalidConfig, EnvironmentFailed, Unavailable: as for any image.
        """
        ...


class NoContainers:
    """An installation that trains in processes only."""

    def check(self, component: Component) -> None:
        raise Unavailable(f"{component.component} cannot be trained in a container here.", "Write `training: process`.")

    def make(self, wish: Wish) -> Container:
        self.check(wish.component)
        raise AssertionError


@dataclass(frozen=True, slots=True)
class Errand:
    """A supervised command.

    Attributes:
        env: what the command gets; for the container, what is passed on into it too.
        end: ends what the command has started outside its own processes.
    """

    command: Sequence[str | Path]
    env: Mapping[str, str]
    end: Sequence[str | Path] = ()


def errand(
    container: Container, folder: Path, *, command: str, env: Mapping[str, str], reads: Sequence[Path]
) -> Errand:
    """Write down what the container is, and return the command that runs it.

    Args:
        command: the entry point's, for a shell in the project's folder.
        env: the variables that the training would have as a process; of these it gets what means something in there.
        reads: files and folders that it reads, which it finds under the same paths.
    """
    folder = folder.absolute()
    uri, address = reached(container.tracking, container.options)
    passed = {name: value for name, value in env.items() if name in PASSED or name.startswith("MLFLOW_")}
    passed |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri, **container.variables}
    authorities = {name: env[name] for name in CERTIFICATES if Path(env.get(name, "")).is_file()}
    name = f"headrace-train-{sha256_json(str(folder))[:16]}"
    plan = {
        "docker": container.docker, "engine": dict(container.engine), "name": name, "image": container.image,
        "user": container.user, "memory": container.memory,
        "options": ["--label", f"{LABEL}={folder}", *container.options],
        "reads": [str(path) for path in dict.fromkeys([*reads, *map(Path, authorities.values())])],
        "writes": [str(path) for path in container.writes], "work": str(folder / "container"),
        "log": str(folder / "log"), "tracking": address, "port": PORT if address else 0, "project": PROJECT,
        "command": command, "pass": [*passed, *authorities],
    }  # fmt: skip
    path = folder / "container.json"
    write_atomically(path, json.dumps(plan, indent=1))
    run: list[str | Path] = [sys.executable, "-I", CONTAIN, path]
    return Errand(run, {**env, **passed}, [*run, "--end"])


def reached(tracking: str, options: Sequence[str]) -> tuple[str, str]:
    """Return MLflow's URL as the container knows it, and HOST:PORT on this machine where it is carried there.

    Raises:
        InvalidConfig: a container cannot reach it.
    """
    parts = urlsplit(tracking)
    if parts.scheme not in ("http", "https"):
        raise InvalidConfig(
            f"MLFLOW_TRACKING_URI is `{tracking}`, which a container cannot reach.",
            "Name an MLflow server (http://…), or unset it: headrace then starts one over its own store.",
        )
    network = options[options.index("--network") + 1] if "--network" in options else ""
    is_loopback = parts.hostname == "localhost" or (parts.hostname or "").startswith("127.") or parts.hostname == "::1"
    if not is_loopback and network == "none":
        raise InvalidConfig(
            f"The MLflow server is at {parts.hostname}, and `training.network: none` in headrace.yaml leaves the "
            "container no way to it.",
            "Leave `network` out, or name a network that reaches it.",
        )
    if not is_loopback or network == "host":
        return tracking, ""
    user, at, _ = parts.netloc.rpartition("@")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{PORT}")), f"{parts.hostname}:{port}"
