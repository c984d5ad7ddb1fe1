"""Two versions of one component with different dependencies answer side by side on one endpoint."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headrace.config.settings import Settings
from headrace.deploy.base import Route
from headrace.deploy.process import ProcessTarget
from headrace.environment.base import Environment
from headrace.environment.distributions import installed
from headrace.environment.uv import UvEnvironments
from headrace.serving.worker_child import folder_digest
from headrace.types import ServedVersion, Stage

pytestmark = pytest.mark.slow

MLMODEL = """\
flavors:
  python_function:
    loader_module: mlflow.pyfunc.loaders.code_model
    model_code_path: model.py
    env: {virtualenv: python_env.yaml}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]'
"""
#: Answers with the version of the numpy that it runs on, as a number.
MODEL = """\
import mlflow
import numpy as np

class Numpy(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        major, minor, patch = map(int, np.__version__.split(".")[:3])
        return np.full(len(model_input), major * 10000.0 + minor * 100 + patch)

mlflow.models.set_model(Numpy())
"""
OLDER = "2.3.5"


@pytest.fixture
def older(settings: Settings, tmp_path: Path) -> Environment:
    """An environment with another numpy than the digits example's."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text("name: older\n")
    (project / "requirements.txt").write_text(f"mlflow==3.17.2\nnumpy=={OLDER}\n")
    environments = UvEnvironments(settings)
    return environments.build(environments.lock(project), progress=print)


@pytest.fixture
def target(settings: Settings) -> Iterator[ProcessTarget]:
    made = ProcessTarget(settings)
    yield made
    made.remove("pair", Stage.PRODUCTION)


def test_each_version_answers_from_its_own_packages(
    target: ProcessTarget, settings: Settings, component_python: Path, older: Environment, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text(MLMODEL)
    (model / "model.py").write_text(MODEL)
    seal = folder_digest(str(model))
    newer = installed(component_python, settings.child_environment()).packages["numpy"]
    assert newer != OLDER
    versions = [ServedVersion("pair", 1, model, older.python, seal=seal)]
    versions += [ServedVersion("pair", 2, model, component_python, seal=seal)]
    url = target.apply(Route("pair", Stage.PRODUCTION, versions, {1: 0.5, 2: 0.5})).endpoint.url

    answers: dict[str, set[float]] = {}
    with httpx.Client(base_url=url, timeout=30) as client:
        for _ in range(64):
            answer = client.post("/invocations", json={"inputs": [[1.0, 2.0]]}).raise_for_status()
            seen = answers.setdefault(answer.headers["X-Headrace-Version"], set())
            seen |= set(json.loads(answer.text)["predictions"])

    def number(version: str) -> float:
        major, minor, patch = map(int, version.split("."))
        return major * 10000.0 + minor * 100 + patch

    assert answers == {"1": {number(OLDER)}, "2": {number(newer)}}
