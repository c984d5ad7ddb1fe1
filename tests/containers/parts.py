"""Real parts for the tests: what is installed is used, and with INSTALL=1 the rest comes from Debian."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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


@dataclass
class OwnEngine:
    """An engine of the tests' own, which they may stop and start."""

    program: str
    folder: Path
    settings: Settings
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def start(self) -> Engine:
        """Start the engine and return when it answers; skip where it cannot."""
        # Not the machine's own settings. Containers live on when the engine restarts.
        (self.folder / "daemon.json").write_text('{"live-restore": true}')
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--host", self.host, "--data-root", self.folder / "data",
                 "--exec-root", self.folder / "exec", "--pidfile", self.folder / "pid",
                 "--config-file", self.folder / "daemon.json"],
                stdout=log, stderr=log,
            )  # fmt: skip
        return _wait(self.settings, self.process, self.folder)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(90)
            self.process = None


@contextmanager
def engine_of(settings: Settings) -> Iterator[tuple[Engine, Settings, OwnEngine | None]]:
    """Give the engine that runs, or start one of the tests' own; skip where there is none."""
    try:
        yield find_engine(settings), settings, None
        return
    except Unavailable as error:
        reason = error.fact
    if os.getuid() != 0 or (shutil.which("dockerd") is None and not may_install()):
        pytest.skip(f"{reason} (INSTALL=1 as root on Debian installs and starts one)")
    dockerd = installed("dockerd", "docker.io iptables")
    folder = Path(tempfile.mkdtemp(prefix="hr-engine-", dir="/var/tmp"))
    host = f"unix://{folder}/docker.sock"
    own = OwnEngine(dockerd, folder, replace(settings, variables={**settings.variables, "DOCKER_HOST": host}))
    engine = own.start()
    try:
        yield engine, own.settings, own
    finally:
        for container in engine.run("ps", "--all", "--quiet").split():
            engine.remove(container)
        own.stop()
        # An engine that keeps its containers leaves its mounts too.
        subprocess.run(["umount", "--quiet", "--lazy", folder / "data"], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", folder], check=False)


def _wait(settings: Settings, process: "subprocess.Popen[bytes]", folder: Path) -> Engine:
    deadline = time.monotonic() + 60
    while True:
        try:
            return find_engine(settings)
        except Unavailable as error:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the engine does not start here: {error.fact} {tail(folder / 'dockerd.log')}")
        time.sleep(0.5)


def base_image(engine: Engine, cache: Path) -> str:
    """Return an image with Python 3.11: the one that is there, pulled, or made of Debian's packages.

    Args:
        cache: keeps what was made of Debian's packages, for later sessions.
    """
    for name in (BASE, "python:3.11-slim"):
        if engine.has(name):
            return name
    tar = cache / f"{BASE.replace(':', '-')}.tar"
    if not tar.exists() and not may_install():
        try:
            engine.run("pull", "--quiet", "python:3.11-slim", timeout_s=120)
        except Unavailable as error:
            pytest.skip(f"no base image: {error.fact} (INSTALL=1 makes one of Debian's packages)")
        return "python:3.11-slim"
    if not tar.exists():
        _debian(tar)
    engine.run("import", tar, BASE, timeout_s=300)
    return BASE


def _debian(tar: Path) -> None:
    """Write a root file system of Debian's packages with Python."""
    debootstrap = installed("debootstrap", "debootstrap")
    tar.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="hr-base-", dir="/var/tmp"))
    try:
        wanted = "--include=python3,libstdc++6,ca-certificates"
        command = [debootstrap, "--variant=minbase", wanted, "bookworm", folder / "root"]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        left_out = ["./var/cache/apt/*", "./var/lib/apt/lists/*", "./proc/*", "./sys/*", "./usr/share/doc/*"]
        excluded = [f"--exclude={name}" for name in left_out]
        unfinished = tar.with_suffix(f".{os.getpid()}")
        subprocess.run(["tar", "-C", folder / "root", *excluded, "-cf", unfinished, "."], check=True, timeout=300)
        unfinished.rename(tar)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tail(path: Path) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-3:]) if path.exists() else ""
