"""The only place that names concrete back ends. Each is imported when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from headrace.clock import SystemClock
from headrace.config.component import Component, EnvironmentKind
from headrace.config.settings import Settings
from headrace.deploy.base import Target
from headrace.environment.base import Environments
from headrace.errors import InvalidConfig
from headrace.ledger.base import Ledger
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.base import PredictionLog
from headrace.registry.base import Registry
from headrace.training.container import Container, Wish

if TYPE_CHECKING:
    from headrace.deploy.docker.engine import Engine

if TYPE_CHECKING:
    from headrace.predictions.segments import SegmentLog
    from headrace.registry.server import Foreground


def rooms(settings: Settings) -> Rooms:
    """Return the back ends that the settings ask for."""

    @cache
    def environments(kind: EnvironmentKind) -> Environments:
        return environments_of(settings, kind)

    return Rooms(
        settings=settings,
        clock=SystemClock(),
        registry=registry(settings),
        ledger=ledger(settings),
        target=target(settings),
        environments=environments,
        predictions=prediction_log(settings),
        containers=EngineContainers(settings),
    )


def registry(settings: Settings) -> Registry:
    """Return the door to MLflow."""
    from headrace.registry.mlflow import MlflowRegistry

    return MlflowRegistry(settings)


def ledger(settings: Settings) -> Ledger:
    """Return the ledger; reading it needs nothing else."""
    from headrace.ledger.sql import SqlLedger

    return SqlLedger(settings.ledger_url, SystemClock())


def target(settings: Settings) -> Target:
    """Return where stages run."""
    if settings.target == "process":
        from headrace.deploy.process import ProcessTarget

        return ProcessTarget(settings)
    if settings.target == "torchserve":
        from headrace.deploy.torchserve.process import ProcessLauncher
        from headrace.deploy.torchserve.target import TorchServeTarget

        return TorchServeTarget(settings, ProcessLauncher(settings))
    if settings.target == "torchserve-docker":
        from headrace.deploy.docker.engine import find_engine
        from headrace.deploy.torchserve.container import ContainerLauncher
        from headrace.deploy.torchserve.target import TorchServeTarget

        return TorchServeTarget(settings, ContainerLauncher(settings, find_engine(settings)))
    if settings.target == "docker":
        from headrace.deploy.docker.engine import find_engine
        from headrace.deploy.docker.target import DockerTarget
        from headrace.deploy.images.of_version import ServeImages

        engine = find_engine(settings)
        return DockerTarget(settings, engine, ServeImages(engine, settings))
    raise InvalidConfig(
        f"HEADRACE_TARGET is `{settings.target}`, which is no target.",
        "Use `process`, `docker`, `torchserve` or `torchserve-docker`.",
    )


@dataclass(frozen=True, slots=True)
class EngineContainers:
    """Containers of this machine's Docker engine, over the component's train image."""

    settings: Settings

    def check(self, component: Component) -> None:
        """Raise Unavailable where this machine has no engine, or one without the GPUs that are asked for."""
        self._options(self._engine(), component, tell=lambda _: None)

    def make(self, wish: Wish) -> Container:
        """Return what the container is made of."""
        from headrace.deploy.images.for_training import train_image
        from headrace.registry.mlflow import artifact_folder
        from headrace.training.project import read_project

        settings, engine, name = self.settings, self._engine(), wish.component.component
        brought = read_project(wish.project).docker
        built = train_image(
            engine, settings, name, wish.environment, wish.project,
            commit=wish.commit, brought=brought.image if brought else "", tell=wish.tell,
        )  # fmt: skip
        options = self._options(engine, wish.component, tell=wish.tell)
        # An image that a project brings along may write anywhere; the component's own may not.
        options += [] if brought else ["--read-only", "--tmpfs", "/tmp"]  # noqa: S108
        options += [word for volume in (brought.volumes if brought else ()) for word in ("--volume", volume)]
        variables = brought.variables if brought else {}
        return Container(
            docker=engine.program, engine=engine.variables, image=built.image.id, tag=built.tag,
            user=engine.user(built.image.user), options=tuple(options), tracking=start_tracking(settings),
            writes=() if settings.tracking_uri else (artifact_folder(settings, name),),
            memory=wish.component.training.memory or "",
            variables={key: value or settings.variables.get(key, "") for key, value in variables.items()},
        )  # fmt: skip

    def _engine(self) -> "Engine":
        from headrace.deploy.docker.engine import find_engine

        engine = find_engine(self.settings)
        engine.require_local("A training in a container reads its data on this machine")
        return engine

    def _options(self, engine: "Engine", component: Component, *, tell: Callable[[str], None]) -> list[str]:
        from headrace.deploy.images.for_training import options

        return options(engine, self.settings, component.training, tell=tell)


def start_tracking(settings: Settings) -> str:
    """Return the URL of MLflow's pages once they answer; they are started here unless a server is named."""
    if settings.tracking_uri:
        from headrace.registry.mlflow import check_server

        if settings.tracking_uri.startswith("http"):
            check_server(settings.tracking_uri)
        return settings.tracking_uri
    from headrace.registry import server

    started = server.start(settings)
    server.wait_until_ready(started, settings)
    return started.url


def stop_tracking(settings: Settings) -> bool:
    """Stop MLflow's pages; tell whether any ran."""
    from headrace.registry import server

    if server.running(settings) is None:
        return False
    server.stop(settings)
    return True


def tracking_command(settings: Settings, *, host: str, port: int, allowed_hosts: str) -> "Foreground":
    """Return how MLflow's server is run over production parts. Raises InvalidConfig."""
    from headrace.registry import server

    return server.foreground(settings, host=host, port=port, allowed_hosts=allowed_hosts)


def is_tracking_started(settings: Settings) -> bool:
    """Tell whether MLflow's pages of this home run."""
    from headrace.registry import server

    return server.running(settings) is not None


def prediction_log(settings: Settings) -> PredictionLog:
    """Return the prediction log of all components."""
    return segment_log(settings)


def segment_log(settings: Settings) -> "SegmentLog":
    """Return the same with what concerns its files: upkeep, SQL, shipping. Raises InvalidConfig."""
    from headrace.predictions.segments import SegmentLog

    if not settings.predictions_url:
        return SegmentLog(settings.predictions)
    from headrace.bucket import Bucket

    return SegmentLog(settings.predictions, store=Bucket(settings.predictions_url, settings.s3))


def environments_of(settings: Settings, kind: EnvironmentKind) -> Environments:
    """Return what builds environments of a kind."""
    if kind in (EnvironmentKind.UV, EnvironmentKind.DOCKER):  # Images are laid out from it.
        from headrace.environment.uv import UvEnvironments

        return UvEnvironments(settings)
    from headrace.environment.inherit import InheritedEnvironments

    return InheritedEnvironments(settings)
