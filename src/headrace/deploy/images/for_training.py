"""What a training's container is given: the train image, and the engine's options for what it may use."""

from collections.abc import Callable
from pathlib import Path

from headrace.config.component import Training
from headrace.config.settings import Settings
from headrace.deploy.docker.engine import Engine, EngineFailed
from headrace.deploy.docker.gpus import LACKING, gpu_options, passes_gpus
from headrace.deploy.images.build import TaggedImage
from headrace.deploy.images.of_version import images
from headrace.environment.base import Environment
from headrace.environment.packages import has_gpu
from headrace.errors import InvalidConfig

#: PyTorch's data loaders hand batches over in shared memory; the engine's own 64 MB are too few for them.
SHARED_MEMORY = "2g"


def train_image(
    engine: Engine,
    settings: Settings,
    component: str,
    environment: Environment,
    project: Path,
    *,
    commit: str,
    brought: str,
    tell: Callable[[str], None],
) -> TaggedImage:
    """Build the train image, or find it in the engine's cache.

    Args:
        brought: the image that the project itself names to train in; empty for the component's own environment.

    Raises:
        InvalidConfig: the engine has no image of the name that the project gives, and cannot pull it.
        EnvironmentFailed, Unavailable: it cannot be built.
    """
    if brought and not engine.has(brought):
        tell(f"pulling {brought}")
        try:
            engine.run("pull", "--quiet", brought, timeout_s=3600)
        except EngineFailed as cause:
            raise InvalidConfig(
                f"The MLproject names the image {brought} to train in, which cannot be had: {cause.fact}",
                f"Build it (`docker build --tag {brought} .`), or correct `docker_env` in MLproject.",
            ) from cause
    return images(engine, settings, tell).train(component, environment, project, commit=commit, brought=brought)


def options(engine: Engine, settings: Settings, wanted: Training, *, tell: Callable[[str], None]) -> list[str]:
    """Return the options for what the container may use.

    Raises:
        Unavailable: headrace.yaml asks for GPUs, and the engine cannot pass any on.
    """
    said = ["--network", wanted.network, "--shm-size", SHARED_MEMORY]
    said += ["--memory", wanted.memory, "--memory-swap", wanted.memory] if wanted.memory else []
    said += ["--cpus", f"{wanted.cpus:g}"] if wanted.cpus else []
    is_asked = wanted.gpus not in ("auto", "none")
    if wanted.gpus == "none" or not (is_asked or has_gpu(settings.variables)):
        return said
    if not is_asked and not passes_gpus(engine):
        tell(f"{LACKING}; training without them")
        return said
    count = "all" if wanted.gpus == "auto" else str(wanted.gpus)
    asked = f"training.gpus: {wanted.gpus}"
    return [*said, *gpu_options(engine, count, asked_by=asked, otherwise="write `gpus: auto`")]
