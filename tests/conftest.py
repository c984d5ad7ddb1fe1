"""What several kinds of tests share: one component environment, and a few small models made in it."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from headrace.config.settings import Settings, read_settings
from headrace.environment.base import Environment
from headrace.environment.uv import UvEnvironments
from headrace.registry.mlflow import MlflowRegistry
from headrace.training.train import Workplace, run_entry_point, train

# An example's time is no property of the code: a busy machine takes seconds for what takes a millisecond.
hypothesis.settings.register_profile("headrace", deadline=None)
hypothesis.settings.load_profile("headrace")

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "models"
DIGITS = ROOT / "examples" / "digits"


@dataclass(frozen=True)
class SmallModels:
    """MLflow model folders: `mlp` is pt2; `table`, `text`, `topics` and `sleepy` (20 ms a row) are pyfuncs."""

    python: Path
    mlp: Path
    table: Path
    text: Path
    sleepy: Path
    topics: Path


@dataclass(frozen=True)
class TrainedDigits:
    """What one training of the digits example left: an MLflow model folder, and a folder of Parquet files."""

    environment: Environment
    model: Path
    data: Path


@pytest.fixture(scope="session")
def digits_environment() -> Environment:
    """The digits example's environment with torch, mlflow and scikit-learn, locked and built once per machine."""
    environments = UvEnvironments(read_settings())
    return environments.build(environments.lock(DIGITS), progress=print)


@pytest.fixture(scope="session")
def component_python(digits_environment: Environment) -> Path:
    """The interpreter of the digits example's environment."""
    return digits_environment.python


@pytest.fixture(scope="session")
def trained_digits(digits_environment: Environment) -> TrainedDigits:
    """The digits example, trained once per machine and version of its code."""
    shared = read_settings()
    code = b"".join((DIGITS / name).read_bytes() for name in ("train.py", "prepare.py", "MLproject"))
    key = hashlib.sha256(code + digits_environment.digest.encode()).hexdigest()[:12]
    folder = shared.state / "cache" / "test-models" / f"digits-{key}"
    with _alone(folder):
        if not (folder / ".ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            settings = Settings(shared.state, folder / "home", None, "person:test", shared.variables).prepare()
            shutil.copytree(DIGITS, folder / "checkout", ignore=shutil.ignore_patterns("data"))
            place = Workplace(settings, digits_environment, folder / "checkout")
            run_entry_point(place, "prepare", {"output": str(folder / "data")}, folder / "prepare")
            registry = MlflowRegistry(settings)
            run = registry.start_run("digits", key="test", tags={})
            parameters = {"train_data": str(folder / "data" / "train.parquet")}
            trained = train(place, registry, run, entry_point="main", parameters=parameters, folder=folder / "training")
            shutil.copytree(trained.folder, folder / "model")
            (folder / ".ready").touch()
    return TrainedDigits(digits_environment, folder / "model", folder / "data")


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
    return SmallModels(component_python, *(folder / name for name in ("mlp", "table", "text", "sleepy", "topics")))


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
