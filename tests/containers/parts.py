"""Real parts for the tests: what is installed is used, and with INSTALL=1 the rest comes from Debian."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.deploy.docker.engine import Engine, find_engine
from headrace.errors import Unavailable

INSTALL = "HEADRACE_TEST_INSTALL"
BASE = "headrace-test-base:bookworm"


def may_install() -> bool:
    return os.environ.get(INSTALL) == "1" and os.getuid() == 0 and shutil.which("apt-get") is not None


def installed(program: str, package: str) -> str:
    """Return a program's path, installing its Debian package where that is allowed; skip where it cannot be had."""
    place = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/bin", "/sbin"])
    found = shutil.which(program, path=place)
    if found is None and may_install():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True, timeout=300)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *package.split()]
        subprocess.run(install, check=True, capture_output=True, timeout=600, env=environment)
        found = shutil.which(program, path=place)
    if found is None:
        pytest.skip(f"`{program}` is not installed (Debian: {package}; INSTALL=1 as root installs it)")
    return found


@contextmanager
def engine_of(settings: Settings) -> Iterator[tuple[Engine, Settings]]:
    """Give the engine that runs, or start one of the tests' own; skip where there is none."""
    try:
        yield find_engine(settings), settings
        return
    except Unavailable as error:
        reason = error.fact
    if os.getuid() != 0 or (shutil.which("dockerd") is None and not may_install()):
        pytest.skip(f"{reason} (INSTALL=1 as root on Debian installs and starts one)")
    dockerd = installed("dockerd", "docker.io iptables")
    folder = Path(tempfile.mkdtemp(prefix="hr-engine-", dir="/var/tmp"))
    host = f"unix://{folder}/docker.sock"
    (folder / "daemon.json").write_text("{}")  # Not the machine's own.
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [dockerd, "--host", host, "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile",
             folder / "pid", "--config-file", folder / "daemon.json"],
            stdout=log, stderr=log,
        )  # fmt: skip
    mine = replace(settings, variables={**settings.variables, "DOCKER_HOST": host})
    try:
        yield _wait(mine, process, folder), mine
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(settings: Settings, process: "subprocess.Popen[bytes]", folder: Path) -> Engine:
    deadline = time.monotonic() + 60
    while True:
        try:
            return find_engine(settings)
        except Unavailable as error:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the engine does not start here: {error.fact} {tail(folder / 'dockerd.log')}")
        time.sleep(0.5)


def base_image(engine: Engine) -> str:
    """Return an image with Python 3.11: the one that is there, pulled, or made of Debian's packages."""
    for name in (BASE, "python:3.11-slim"):
        if engine.has(name):
            return name
    if not may_install():
        try:
            engine.run("pull", "--quiet", "python:3.11-slim", timeout_s=120)
        except Unavailable as error:
            pytest.skip(f"no base image: {error.fact} (INSTALL=1 makes one of Debian's packages)")
        return "python:3.11-slim"
    debootstrap = installed("debootstrap", "debootstrap")
    folder = Path(tempfile.mkdtemp(prefix="hr-base-", dir="/var/tmp"))
    try:
        root = folder / "root"
        wanted = "--include=python3,libstdc++6,ca-certificates"
        subprocess.run(
            [debootstrap, "--variant=minbase", wanted, "bookworm", root], check=True, capture_output=True, timeout=600
        )
        tar = folder / "root.tar"
        left_out = ["./var/cache/apt/*", "./var/lib/apt/lists/*", "./proc/*", "./sys/*", "./usr/share/doc/*"]
        subprocess.run(
            ["tar", "-C", root, *(f"--exclude={name}" for name in left_out), "-cf", tar, "."], check=True, timeout=300
        )
        engine.run("import", tar, BASE, timeout_s=300)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return BASE


def tail(path: Path) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-3:]) if path.exists() else ""
