"""Save a corpus of models that are really broken, each in its own way; run by a test in a component's environment."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import infer_signature

ROWS = np.arange(8, dtype="float64").reshape(4, 2)
SIGNATURE = infer_signature(ROWS, ROWS.sum(axis=1))
#: name to (module-level code, body of load_context, body of predict).
FROM_CODE = {
    "good": ("", "pass", "return x.sum(axis=1)"),
    "missing_module": ("import a_module_that_is_nowhere", "pass", "return x.sum(axis=1)"),
    "other_version": ("from numpy import a_function_of_another_numpy", "pass", "return x.sum(axis=1)"),
    "missing_variable": ("import os", "self.key = os.environ['SCORING_KEY']", "return x.sum(axis=1)"),
    "missing_library": ("import ctypes", "ctypes.CDLL('libnowhere.so.7')", "return x.sum(axis=1)"),
    "missing_own_file": ("", "open('/nowhere/vocabulary.txt')", "return x.sum(axis=1)"),
    "needs_network": (
        "import urllib.request", "urllib.request.urlopen('http://127.0.0.1:9/weights')", "return x.sum(axis=1)",
    ),
    "hangs_while_loading": ("import threading", "threading.Event().wait()", "return x.sum(axis=1)"),
    "hangs_while_predicting": ("import threading", "pass", "threading.Event().wait()"),
    "huge": ("import numpy", "self.big = numpy.ones(1 << 28)", "return x.sum(axis=1)"),
    "segfault": ("import ctypes", "ctypes.string_at(0)", "return x.sum(axis=1)"),
    "exits": ("import os", "os._exit(3)", "return x.sum(axis=1)"),
    "one_answer": ("", "pass", "return x.sum(axis=1)[:1]"),
    "random_answers": ("import numpy", "pass", "return x.sum(axis=1) + numpy.random.random(len(x))"),
    "wrong_shape": ("import numpy", "self.w = numpy.ones(3)", "return numpy.dot(x, numpy.broadcast_to(self.w, (2,)))"),
    "raises": ("", "pass", "raise RuntimeError('the tokenizer was never fitted')"),
}  # fmt: skip
CODE = """\
import mlflow
{module}

class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {load}

    def predict(self, context, model_input, params=None):
        x = model_input
        {predict}

mlflow.models.set_model(Model())
"""


def from_code(folder: Path) -> None:
    """Save each of `FROM_CODE`: a good model whose code is then replaced by a broken one."""
    for name, (module, load, predict) in FROM_CODE.items():
        good = folder / "good_model.py"
        good.write_text(CODE.format(module="", load="pass", predict="return x.sum(axis=1)"))
        mlflow.pyfunc.save_model(folder / name, python_model=str(good), signature=SIGNATURE, pip_requirements=["numpy"])
        (folder / name / "good_model.py").write_text(CODE.format(module=module, load=load, predict=predict))
    syntax = folder / "syntax_error"
    shutil.copytree(folder / "good", syntax)
    (syntax / "good_model.py").write_text("def predict(:\n")
    wrong_pin = folder / "wrong_pin"
    shutil.copytree(folder / "good", wrong_pin)
    (wrong_pin / "requirements.txt").write_text("numpy==1.0.1\nnot-installed-anywhere==3.2\n")
    other_python = folder / "other_python"
    shutil.copytree(folder / "good", other_python)
    mlmodel = other_python / "MLmodel"
    mlmodel.write_text(re.sub(r"python_version: .*", "python_version: 3.8.20", mlmodel.read_text()))
    no_signature = folder / "no_signature"
    shutil.copytree(folder / "good", no_signature)
    mlmodel = no_signature / "MLmodel"
    mlmodel.write_text(re.sub(r"signature:\n(?:  .*\n)+", "", mlmodel.read_text()))
    no_mlmodel = folder / "no_mlmodel"
    shutil.copytree(folder / "good", no_mlmodel)
    (no_mlmodel / "MLmodel").unlink()


def missing_artifact(folder: Path) -> None:
    weights = folder / "weights.txt"
    weights.write_text("1")
    code = folder / "good_model.py"
    mlflow.pyfunc.save_model(
        folder / "missing_artifact", python_model=str(code), signature=SIGNATURE, artifacts={"weights": str(weights)},
        pip_requirements=["numpy"],
    )  # fmt: skip
    (folder / "missing_artifact" / "artifacts" / "weights.txt").unlink()


def torch_models(folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3)).eval()
    rows = ROWS.astype("float32")
    signature = infer_signature(rows, model(torch.from_numpy(rows)).detach().numpy())

    def save(name: str, **more: object) -> Path:
        mlflow.pytorch.save_model(model, folder / name, signature=signature, pip_requirements=["torch"], **more)
        return folder / name

    save("pt2", input_example=rows)
    save("one_row_export", input_example=rows[:1])
    save("pickled", serialization_format="pickle")
    _class_that_is_gone(folder, signature)
    other = infer_signature(np.zeros((2, 5), "float32"), np.zeros((2, 3), "float32"))
    mlflow.pytorch.save_model(
        model, folder / "wrong_signature", signature=signature, input_example=rows, pip_requirements=["torch"]
    )
    mlmodel = folder / "wrong_signature" / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace('"shape": [-1, 2]', '"shape": [-1, 5]'))
    assert other.inputs.inputs[0].shape == (-1, 5)
    (folder / "wrong_signature" / "serving_input_example.json").unlink()
    damaged = save("damaged", input_example=rows) / "data" / "model.pt2"
    _rewrite(damaged, "models/model.json", lambda raw: raw[: len(raw) // 2])
    gpu = save("gpu_export", input_example=rows) / "data" / "model.pt2"
    for member in ("models/model.json", "data/weights/model_weights_config.json"):
        _rewrite(gpu, member, lambda raw: raw.replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0'))


def _class_that_is_gone(folder: Path, signature: object) -> None:
    """Save a pickled module whose class lives in a file that nobody ships."""
    (folder / "gone_module.py").write_text("import torch\n\nclass Gone(torch.nn.Linear):\n    pass\n")
    sys.path.insert(0, str(folder))
    import gone_module

    mlflow.pytorch.save_model(
        gone_module.Gone(2, 3), folder / "class_is_gone", signature=signature, serialization_format="pickle",
        pip_requirements=["torch"],
    )  # fmt: skip
    (folder / "gone_module.py").unlink()


def _rewrite(archive: Path, member: str, change: object) -> None:
    """Replace one member of an archive, as a faulty tool would."""
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as new:
        for name, content in members.items():
            new.writestr(name, change(content) if name.partition("/")[2] == member else content)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    from_code(target)
    missing_artifact(target)
    torch_models(target)
    (target / "models.json").write_text(json.dumps(sorted(path.parent.name for path in target.glob("*/MLmodel"))))
