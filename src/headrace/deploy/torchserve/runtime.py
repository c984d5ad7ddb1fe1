"""What TorchServe is made of: its own package, what its workers need beyond that, and Java."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from headrace.config.settings import Settings
from headrace.errors import EnvironmentFailed, Unavailable

VERSION = "0.12.0"
#: What TorchServe's worker imports beyond its own package.
FALLBACK_PACKAGES = ("psutil>=5.9", "pyyaml>=6", "packaging>=23")


def installed(settings: Settings) -> Path:
    """Return the folder that holds TorchServe, installing it (25 MB) on first use.

    TorchServe's own package lies in `home`, what its workers need beyond that in `fallback`: apart, so that a version's
    own packages come first.

    Raises:
        EnvironmentFailed: it cannot be fetched.
    """
    folder = settings.state / "tools" / f"torchserve-{VERSION}"
    if (folder / ".ready").exists():
        return folder
    from headrace.environment.packages import read_package_sources
    from headrace.environment.uv_command import find_uv, first_conflict

    uv = find_uv(settings)
    options = read_package_sources(settings.variables).uv_options()
    making = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for place, packages in (("home", [f"torchserve=={VERSION}"]), ("fallback", list(FALLBACK_PACKAGES))):
        done = uv.run(
            "pip", "install", "--python", sys.executable, "--no-deps", "--target", making / place, *options, *packages,
            cwd=making,
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            raise EnvironmentFailed(
                f"TorchServe {VERSION} cannot be installed: {first_conflict(done.stderr)}.",
                "Check the network and pip's settings (`pip config list`), then repeat the command.",
            )
    (making / ".ready").touch()
    if not folder.exists():  # Another process may have been faster.
        making.rename(folder)
    shutil.rmtree(making, ignore_errors=True)
    return folder


def java(settings: Settings) -> str:
    """Return a Java runtime. Raises Unavailable where there is none, or one that is too old."""
    home = settings.variables.get("JAVA_HOME")
    program = f"{home}/bin/java" if home else shutil.which("java", path=settings.variables.get("PATH"))
    remedy = "Install one: `apt-get install openjdk-17-jre-headless`, or serve with `target: process`."
    if program is None:
        raise Unavailable("TorchServe needs Java 17 and there is no `java` on PATH.", remedy)
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as cause:
        raise Unavailable(f"{program} does not run.", remedy) from cause
    found = done.stderr.partition('"')[2].partition(".")[0]
    if found.isdigit() and int(found) < 17:
        raise Unavailable(f"TorchServe needs Java 17; {program} is Java {found}.", remedy)
    return program
