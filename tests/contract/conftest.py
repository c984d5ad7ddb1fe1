"""A PostgreSQL of the tests' own, where the machine has one."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.processes import free_port


def _program(name: str) -> str | None:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else shutil.which(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Start PostgreSQL on a free port and return the URL of an empty database; skip where it is not installed."""
    initdb, server = _program("initdb"), _program("postgres")
    if not (initdb and server):
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    # It refuses to run as root, and pytest's folders cannot be entered by others.
    user = "nobody" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="headrace-pg-", dir="/tmp"))
    process = None
    try:
        if user:
            shutil.chown(folder, user)
        subprocess.run(
            [initdb, "-D", folder / "data", "-U", "headrace", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, user=user, cwd=folder,
        )  # fmt: skip
        port = free_port()
        process = subprocess.Popen(
            [server, "-D", folder / "data", "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-F"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd=folder,
        )  # fmt: skip
        url = f"postgresql+psycopg://headrace@127.0.0.1:{port}"
        _wait_until_it_answers(f"{url}/postgres", process)
        yield url
    finally:
        if process:
            process.terminate()
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import OperationalError

    engine = create_engine(url)
    deadline = time.monotonic() + 120
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.skip("PostgreSQL does not start here")
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            break
        except OperationalError:
            time.sleep(0.1)
    engine.dispose()
