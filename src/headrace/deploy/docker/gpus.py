"""GPUs of an engine's machine: whether a container can be given them, and with which options."""

import json
import shutil

from headrace.deploy.docker.engine import Engine
from headrace.errors import Unavailable

LACKING = "The engine cannot pass GPUs on to containers: it has no NVIDIA Container Toolkit"
INSTALL = "Install it beside the engine (`apt-get install nvidia-container-toolkit`, `nvidia-ctk runtime configure`)"


def passes_gpus(engine: Engine) -> bool:
    """Tell whether the engine can give GPUs to containers; one on another machine must name the runtime for it."""
    runtimes = json.loads(engine.run("info", "--format", "{{json .Runtimes}}") or "{}")
    if "nvidia" in runtimes:
        return True
    # Without the runtime an engine finds the toolkit's hook on its own PATH.
    hook = shutil.which("nvidia-container-runtime-hook", path=engine.variables.get("PATH"))
    return hook is not None and not engine.far


def gpu_options(engine: Engine, wanted: str, *, asked_by: str, otherwise: str) -> list[str]:
    """Return the engine's options for a container with GPUs.

    Args:
        wanted: `all` or a number; empty for none.
        asked_by: the line of headrace.yaml that wants them.
        otherwise: what can be written there instead.

    Raises:
        Unavailable: the engine cannot pass any on.
    """
    if not wanted:
        return []
    if not passes_gpus(engine):
        raise Unavailable(f"{LACKING}, and headrace.yaml says `{asked_by}`.", f"{INSTALL}, or {otherwise}.")
    # An image that says nothing gets no CUDA from some toolkits, whose default is `utility` alone.
    return ["--gpus", wanted, "--env", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
