"""A serve image by itself: one version behind a whole endpoint, with no ledger, no registry and no prediction log."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from headrace.config.component import Serve
from headrace.config.settings import Settings
from headrace.deploy import channel
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.errors import HeadraceError
from headrace.types import ServedVersion, Stage

UP_S = 60.0


def main(version_folder: str, port: int) -> None:
    """Serve the version of an image until told to stop; every version variable is taken from the container's own."""
    folder = Path(version_folder)
    about = json.loads((folder / "version.json").read_text())
    home = Path(os.environ.get("TMPDIR", "/tmp")) / "headrace"  # noqa: S108 - the container's own
    settings = Settings(home, home, None, "container", dict(os.environ)).prepare()
    golden = folder / "golden"
    version = ServedVersion(
        component=about["component"],
        version=int(about["version"]),
        model=folder / "model",
        python=Path("/opt/environment/bin/python"),
        baseline=about["baseline"],
        seal=about["seal"],
        golden=golden if golden.is_dir() else None,
        environment_variables={name: os.environ[name] for name in about["variables"] if name in os.environ},
        allow_pickle=about["allow_pickle"] == "true",
    )
    run = settings.run / f"{version.component}-{Stage.PRODUCTION.value}"
    run.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-m", "headrace.serving.supervisor", "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104
    supervisor = subprocess.Popen(command, cwd=run, env=settings.child_environment({"HEADRACE_STATE": str(home)}))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.terminate())
    try:
        _wait(run, supervisor)
        serve = Serve.model_validate(json.loads(os.environ.get("HEADRACE_SERVE", "{}")))
        ProcessTarget(settings).apply(
            Route(version.component, Stage.PRODUCTION, [version], {version.version: 1.0}, serve)
        )
    except HeadraceError as error:
        supervisor.terminate()
        supervisor.wait(30)
        sys.exit(f"{error.fact} {error.remedy}")
    sys.exit(supervisor.wait())


def _wait(run: Path, supervisor: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline and supervisor.poll() is None:
        try:
            channel.ask(run, {"do": "status"}, timeout_s=UP_S)
            return
        except channel.NoSupervisor:
            time.sleep(0.05)
    sys.exit("the server did not come up")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
