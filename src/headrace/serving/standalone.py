"""Only the server: a model folder behind an address until somebody stops it, without ledger, registry or stages."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from headrace.config.settings import Settings
from headrace.serving.control import Limits, RouteSpec
from headrace.serving.supervisor import Supervisor, open_listener
from headrace.types import ServedVersion


def serve(
    version: ServedVersion,
    *,
    settings: Settings,
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 5001,
    limits: Limits | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve one version in the foreground until SIGINT or SIGTERM; what was accepted is answered first.

    Predictions are not kept.

    Args:
        folder: the run folder, for sockets and logs; it becomes this process's working directory.
        limits: as the `serve` section of a headrace.yaml.
        ready: is called with the URL once the model is loaded, warm and answers.

    Raises:
        Unavailable: the port is taken.
        ModelRefused: the model cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir(folder)
    asyncio.run(_serve(version, settings, folder, host, port, limits or Limits(), ready))


async def _serve(
    version: ServedVersion,
    settings: Settings,
    folder: Path,
    host: str,
    port: int,
    limits: Limits,
    ready: Callable[[str], None],
) -> None:
    listener = open_listener(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}"
    supervisor = Supervisor(folder, listener, url, None, settings.child_environment())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stopping.set)
    starting = asyncio.ensure_future(_start(supervisor, version, limits, settings))
    stopped = asyncio.ensure_future(supervisor.stopping.wait())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            ready(url)
            await stopped
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await supervisor.stop()


async def _start(supervisor: Supervisor, version: ServedVersion, limits: Limits, settings: Settings) -> None:
    spec = RouteSpec(version.component, "production", (version,), {version.version: 1.0}, limits)
    names = (*version.secrets, *limits.predict_keys, *limits.feedback_keys)
    given = {name: settings.variables[name] for name in names if name in settings.variables}
    async with supervisor.lock:
        answer = await supervisor.prepare(spec, given)
        await supervisor.commit(answer["generation"], [])
