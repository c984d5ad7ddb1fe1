"""What tests on production parts need; where a part cannot be had, they skip and say which."""

import os
import shutil
import subprocess

import pytest

FLAG = "HEADRACE_TEST_CONTAINERS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the flag these tests are named and skipped: they take minutes and install system packages."""
    if os.environ.get(FLAG) == "1":
        return
    mark = pytest.mark.skip(reason=f"real engine, registry, Java: run `make test-containers` (sets {FLAG}=1)")
    for item in items:
        if "tests/containers" in item.path.as_posix():
            item.add_marker(mark)


@pytest.fixture(scope="session")
def java() -> str:
    """A Java runtime for TorchServe."""
    program = shutil.which("java")
    if program is None:
        pytest.skip("no `java` on PATH (apt-get install openjdk-17-jre-headless)")
    subprocess.run([program, "-version"], check=True, capture_output=True)
    return program
