"""A PostgreSQL of a benchmark's own, that can be stopped and started."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.processes import free_port

STARTS_WITHIN_S = 180.0


class Postgres:
    """A PostgreSQL of the benchmark's own, that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        found = str(installed[-1]) if installed else shutil.which("postgres")
        if found is None:
            raise FileNotFoundError("PostgreSQL (initdb, postgres) is not installed")
        self._server, self._folder = Path(found), folder
        # It refuses to run as root.
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        subprocess.run(
            [self._server.with_name("initdb"), "-D", folder / "data", "-U", "headrace", "-A", "trust", "--no-sync"],
            check=True, capture_output=True, user=self._user, cwd=folder,
        )  # fmt: skip
        # Chosen last, so that nobody else gets it before the start.
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://headrace@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start, and return when it answers. Raises RuntimeError with its last words where it does not."""
        log = self._folder / "log"
        command = [self._server, "-D", self._folder / "data", "-p", str(self.port), "-k", self._folder, "-F"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "-c", "listen_addresses=127.0.0.1"], stdout=output, stderr=output,
                user=self._user, cwd=self._folder,
            )  # fmt: skip
        ready = [self._server.with_name("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        until = time.monotonic() + STARTS_WITHIN_S
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, connections or not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(120)


@contextmanager
def running() -> Iterator[Postgres]:
    """Run one below /tmp, as names of sockets are short. Raises FileNotFoundError where none is installed."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-pg-", dir="/tmp"))
    try:
        database = Postgres(folder)
        database.start()
        try:
            yield database
        finally:
            database.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
