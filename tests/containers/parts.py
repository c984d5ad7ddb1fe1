"""Real parts for the tests: what is installed is used, and with INSTALL=1 the rest comes from Debian."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text

from headrace.config.settings import Settings
from headrace.deploy.docker.engine import Engine, find_engine
from headrace.errors import Unavailable
from headrace.lifecycle.upkeep.roles import prepare

INSTALL = "HEADRACE_TEST_INSTALL"
BASE = "headrace-test-base:bookworm"
#: Of all roles of a PostgreSQL of the tests' own.
PASSWORD = "canary-postgres-7d0a"


def may_install() -> bool:
    return os.environ.get(INSTALL) == "1" and os.getuid() == 0 and shutil.which("apt-get") is not None


def installed(program: str, package: str) -> str:
    """Return a program's path, installing its Debian package where that is allowed; skip where it cannot be had."""
    place = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/bin", "/sbin"])
    found = shutil.which(program, path=place)
    if found is None and may_install():
        _know_packages()
        # What is installed for tests need not survive a power cut: dpkg waits for the disk after each file else.
        quick = ["-o", "Dpkg::Options::=--force-unsafe-io"]
        ran("apt-get", "install", "-y", "-qq", "--no-install-recommends", *quick, *package.split())
        found = shutil.which(program, path=place)
    if found is None:
        pytest.skip(f"`{program}` is not installed (Debian: {package}; INSTALL=1 as root installs it)")
    return found


@cache
def _know_packages() -> None:
    """Fetch the lists of Debian's packages, once for all parts."""
    ran("apt-get", "update", "-qq")


def ran(*command: str | Path) -> None:
    """Run what makes a part; skip, with its last words, where it fails: the part cannot be had here."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"`{command[0]}` failed: {error}")
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        pytest.skip(f"`{command[0]} {command[1]}` failed: {' | '.join(words)}")


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
            self.process.wait(300)
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
    try:
        engine = own.start()
        yield engine, own.settings, own
        for container in engine.run("ps", "--all", "--quiet").split():
            engine.remove(container)
    finally:
        own.stop()
        # An engine that keeps its containers leaves its mounts too.
        subprocess.run(["umount", "--quiet", "--lazy", folder / "data"], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", folder], check=False)


def _wait(settings: Settings, process: "subprocess.Popen[bytes]", folder: Path) -> Engine:
    deadline = time.monotonic() + 300
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
        ran(debootstrap, "--variant=minbase", wanted, "bookworm", folder / "root")
        left_out = ["./var/cache/apt/*", "./var/lib/apt/lists/*", "./proc/*", "./sys/*", "./usr/share/doc/*"]
        excluded = [f"--exclude={name}" for name in left_out]
        unfinished = tar.with_suffix(f".{os.getpid()}")
        ran("tar", "-C", folder / "root", *excluded, "-cf", unfinished, ".")
        unfinished.rename(tar)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_database(server: str, name: str) -> str:
    """Make an empty database, owned by a role that may nothing else, and return the role's URL."""
    with _administrator(server) as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' NOSUPERUSER NOCREATEDB NOCREATEROLE"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {name}"))
    return f"postgresql://{name}:{PASSWORD}@{server.partition('@')[2]}/{name}"


def restricted(server: str, owner: str) -> str:
    """Prepare an owner's database for workers, and return the URL of one, who has the few rights that it needs."""
    name = owner.rpartition("/")[2]
    with _administrator(server) as connection:
        for role in (f"{name}_worker", f"{name}_reader"):
            connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"))
    for _ in range(2):
        prepare(with_driver(owner), worker=f"{name}_worker", reader=f"{name}_reader")
    return owner.replace(f"//{name}:", f"//{name}_worker:")


def with_driver(url: str) -> str:
    """Return a database's URL as SQLAlchemy wants it."""
    return url.replace("postgresql:", "postgresql+psycopg:")


@contextmanager
def _administrator(server: str) -> Iterator[Connection]:
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def tail(path: Path) -> str:
    return " | ".join(path.read_text(errors="replace").splitlines()[-3:]) if path.exists() else ""
