"""What several kinds of tests share: one component environment, and a few small models made in it."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.config.settings import Settings, read_settings
from headrace.environment.uv import UvEnvironments

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "models"


@dataclass(frozen=True)
class SmallModels:
    """MLflow model folders: `mlp` (pt2), `table` (pyfunc over columns), `text` (pyfunc over texts)."""

    python: Path
    mlp: Path
    table: Path
    text: Path


@pytest.fixture(scope="session")
def component_python() -> Path:
    """The interpreter of an environment with torch, mlflow and scikit-learn, locked and built once per machine."""
    project = ROOT / "examples" / "digits"
    environments = UvEnvironments(read_settings())
    lock = environments.lock(project if (project / "MLproject").exists() else MODELS)
    return environments.build(lock, progress=print).python


@pytest.fixture(scope="session")
def small_models(component_python: Path) -> SmallModels:
    """A few models, saved once per machine and kept beside the environments."""
    settings = read_settings()
    key = hashlib.sha256((MODELS / "make.py").read_bytes() + str(component_python).encode()).hexdigest()[:12]
    folder = settings.state / "cache" / "test-models" / key
    with _alone(folder):
        if not (folder / ".ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            command = [component_python, MODELS / "make.py", folder]
            subprocess.run(command, env=settings.child_environment(), cwd=folder, check=True, timeout=300)
            (folder / ".ready").touch()
    return SmallModels(component_python, folder / "mlp", folder / "table", folder / "text")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose home is the test's own, with the shared state folder."""
    shared = read_settings()
    return Settings(shared.state, tmp_path / "home", None, "person:test", shared.variables).prepare()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock beside `folder`, for test runs that go on at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
