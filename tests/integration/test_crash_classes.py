"""Models that really fail, one of each class: the worker's end is told as a fact and a remedy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import SmallModels

from headrace.config.settings import read_settings
from headrace.errors import ModelRefused
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.layout import rows_of
from headrace.serving.worker import Worker, start_worker
from headrace.types import ServedVersion

pytestmark = pytest.mark.slow
MODEL = """import mlflow

class Broken(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {load}

    def predict(self, context, model_input, params=None):
        {predict}
        return model_input["x"].to_numpy()

mlflow.models.set_model(Broken())
"""
#: class, what it does while loading, what it does with rows, what the fact says, what the remedy says
CASES = [
    (
        "missing module",
        "import nowhere_to_be_found",
        "pass",
        "No module named 'nowhere_to_be_found'",
        "python_env.yaml",
    ),
    (
        "out of memory",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))",
        "import numpy; numpy.ones(1 << 31)",
        "Unable to allocate 16.0 GiB",
        "serve.max_batch",
    ),
    ("killed by the system", "pass", "import os; os.kill(os.getpid(), 9)", "was killed (signal 9) at", "more memory"),
    ("segfault", "import ctypes; ctypes.string_at(0)", "pass", "crashed in native code (SIGSEGV)", "pin the versions"),
    (
        "wrong shape",
        "pass",
        "import numpy; numpy.ones((2, 3)) @ numpy.ones((2, 3))",
        "mismatch in its core dimension",
        "input example of two or more rows",
    ),
    (
        "wrong dtype",
        "pass",
        "import torch; torch.nn.Linear(1, 1)(torch.from_numpy(model_input.to_numpy()))",
        "failed to predict",
        "other inputs than its signature says",
    ),
    ("timeout", "import time; time.sleep(1e6)", "pass", "gave no answer to `load` within", "worker.log"),
    (
        "cannot unpickle",
        "import pickle; pickle.loads(b'cheadrace_nobody\\nGone\\n.'.replace(b'headrace_nobody', b'mlflow'))",
        "pass",
        "Can't get attribute 'Gone'",
        "serialization_format='pt2'",
    ),
    (
        "wrong Python",
        "import pickle; pickle.loads(bytes([0x80, 9, 0x2e]))",
        "pass",
        "pickle protocol: 9",
        "Python that",
    ),
    (
        "missing system library",
        "import ctypes; ctypes.CDLL('libnowhere.so.7')",
        "pass",
        "libnowhere.so.7: cannot open",
        "Install the system package that has `libnowhere.so.7`",
    ),
    ("GPU export on CPU", "import torch; torch.zeros(1).to('cuda')", "pass", "CUDA", "model.to('cpu')"),
]


@pytest.mark.parametrize(("name", "load", "predict", "fact", "remedy"), CASES, ids=[case[0] for case in CASES])
def test_failure_is_told_with_its_cause_and_what_to_do(
    small_models: SmallModels, tmp_path: Path, name: str, load: str, predict: str, fact: str, remedy: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_models.sleepy, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (code,) = folder.glob("*.py")
    code.write_text(MODEL.format(load=load, predict=predict))
    version = ServedVersion("broken", 1, folder, small_models.python)
    variables = read_settings().child_environment()
    worker = start_worker(version, variables=variables, cwd=tmp_path, log=tmp_path / "worker.log")
    try:
        with pytest.raises(ModelRefused) as refused:
            load_and_predict(worker, 10.0 if name == "timeout" else 120.0)
    finally:
        worker.stop()
    assert fact in refused.value.fact
    assert remedy in refused.value.remedy
    assert "broken version 1" in refused.value.fact


def load_and_predict(worker: Worker, load_s: float) -> None:
    worker.wait_ready(load_s)
    signature = read_mlmodel(worker.version.model).signature
    assert signature is not None
    worker.ask("predict", rows_of(signature, {"x": np.array([1.0, 2.0])}), timeout_s=60.0)
