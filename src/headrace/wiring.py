"""The only place that names concrete back ends. Each is imported when it is asked for."""

from functools import cache
from typing import TYPE_CHECKING

from headrace.clock import SystemClock
from headrace.config.component import EnvironmentKind
from headrace.config.settings import Settings
from headrace.deploy.base import Target
from headrace.environment.base import Environments
from headrace.errors import InvalidConfig
from headrace.ledger.base import Ledger
from headrace.lifecycle.rooms import Rooms
from headrace.predictions.base import PredictionLog
from headrace.registry.base import Registry

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
        from headrace.deploy.torchserve.target import TorchServeTarget

        return TorchServeTarget(settings)
    if settings.target == "docker":
        from headrace.deploy.docker.engine import find_engine
        from headrace.deploy.docker.target import DockerTarget
        from headrace.deploy.images.of_version import ServeImages

        engine = find_engine(settings)
        return DockerTarget(settings, engine, ServeImages(engine, settings))
    raise InvalidConfig(
        f"HEADRACE_TARGET is `{settings.target}`, which is no target.", "Use `process`, `docker` or `torchserve`."
    )


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
    if kind is EnvironmentKind.UV:
        from headrace.environment.uv import UvEnvironments

        return UvEnvironments(settings)
    if kind is EnvironmentKind.INHERIT:
        from headrace.environment.inherit import InheritedEnvironments

        return InheritedEnvironments(settings)
    raise InvalidConfig(f"`environment: {kind.value}` is not available in this installation.", "Use `environment: uv`.")
