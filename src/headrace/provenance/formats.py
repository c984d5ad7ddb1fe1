"""Whether loading a model would unpickle, judged by what its loader executes, not by names of files.

    check_formats(model_folder, allow_pickle=False) -> Formats      # raises ModelRefused, showing the code change

What is not known to be safe counts as pickled.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from headrace.errors import ModelRefused
from headrace.provenance.digest import plain_files
from headrace.provenance.pickles import artifact_unsafe, is_torchscript, pt2_unsafe, torch_file_unsafe
from headrace.registry.mlmodel import MLMODEL, NOT_OF_THE_MODEL, MlModel, read_mlmodel
from headrace.types import Json

Conf = Mapping[str, Json]

#: Loaders that read numbers and text only, whatever is in their files.
_PLAIN = {
    "mlflow.onnx": "ONNX",
    "mlflow.catboost": "CatBoost",
    "mlflow.prophet": "Prophet JSON",
    "mlflow.spark": "Spark ML",
}
#: Loaders that read the MLmodel beside the `data` they are given: their section there, and what it names the file by.
_BESIDE = {
    "mlflow.sklearn": ("sklearn", "pickled_model"),
    "mlflow.xgboost": ("xgboost", "data"),
    "mlflow.lightgbm": ("lightgbm", "data"),
}
_SCIKIT_LEARN = (
    "Save it with skops:\n"
    '    mlflow.sklearn.log_model(model, name="model", serialization_format="skops", input_example=X[:2])'
)
_PT2 = (
    "Export it (a batch of 2 or more, in evaluation mode):\n"
    "    model.eval()\n"
    '    mlflow.pytorch.log_model(model, name="model", serialization_format="pt2", input_example=X[:2])'
)
_LIGHTNING = (
    "Lightning's autologging saves by pickle. Log the model yourself:\n"
    "    mlflow.pytorch.autolog(log_models=False)\n"
    "    …\n"
    "    model.eval()\n"
    '    mlflow.pytorch.log_model(model, name="model", serialization_format="pt2", input_example=X[:2])'
)
_FROM_CODE = (
    "Log the model from code, its weights as a safe artifact (safetensors, state_dict, skops, ONNX):\n"
    "    # model.py ends with: mlflow.models.set_model(MyModel())\n"
    '    mlflow.pyfunc.log_model(name="model", python_model="model.py", artifacts={"weights": "weights.safetensors"})'
)
_BOOSTER = 'Log the booster:\n    mlflow.lightgbm.log_model(model.booster_, name="model", input_example=X[:2])'
_STATE_DICT = (
    "Save only tensors, and load them so:\n"
    "    torch.save(model.state_dict(), path)\n"
    "    model.load_state_dict(torch.load(path, weights_only=True))"
)


@dataclass(frozen=True, slots=True)
class Pickled:
    """One file that loading would unpickle, what that would import, and the code change that avoids it."""

    file: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Formats:
    """What a model consists of, and what loading it takes.

    Attributes:
        names: the formats in words, such as `PyTorch pt2`.
        pickled: empty unless the component allows pickle.
        worker_variables: what the worker's environment must hold, so that MLflow's own guard is on where it can be.
    """

    names: Sequence[str]
    pickled: Sequence[Pickled]
    worker_variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    pickled: Sequence[Pickled] = ()
    #: MLflow's switch refuses skops and TorchScript too, so it can be off only where neither is loaded.
    needs_switch: bool = False


def check_formats(model_folder: Path, *, allow_pickle: bool = False) -> Formats:
    """Return what the model's loaders would read.

    Raises:
        ModelRefused: loading would unpickle and `allow_pickle` is not set; or the folder is no MLflow model, or lacks
            a file that its MLmodel names.
    """
    model = read_mlmodel(model_folder)
    try:
        loaders = _loaders(model)
        found = [_loader(model, name)(model, conf) for name, conf in loaders]
        found += [_Found(name, items) for name, conf in loaders if (items := _not_judged(model, name, conf))]
        # A worker loads this one past every flavor, so it is looked at wherever it lies.
        found += [_archive(model, model.pt2)] if model.pt2 else []
    except OSError as error:
        raise ModelRefused(
            f"{error.filename or model_folder}, which the MLmodel names, cannot be read: {error.strerror}.",
            "Fetch or log the whole model again.",
        ) from error
    pickled = tuple({item.file: item for each in found for item in each.pickled}.values())
    if pickled and not allow_pickle:
        raise _refusal(pickled)
    switch = bool(pickled) or any(each.needs_switch for each in found)
    return Formats(
        names=tuple(dict.fromkeys(each.name for each in found)),
        pickled=pickled,
        worker_variables={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true" if switch else "false"},
    )


def _refusal(pickled: Sequence[Pickled]) -> ModelRefused:
    first = pickled[0]
    others = f" So do {len(pickled) - 1} more files." if len(pickled) > 1 else ""
    return ModelRefused(
        f"Loading this model would unpickle `{first.file}`, which can execute anything: {first.why}.{others}",
        f"{first.remedy}\nOr, if you trust whoever made it, set `allow_pickle: true` in headrace.yaml; "
        "it is then named in the baseline and loaded in an isolated worker only.",
    )


def _loaders(model: MlModel) -> list[tuple[str, Conf]]:
    """Return the modules that may be asked to load the model, with what the MLmodel tells them."""
    pyfunc = model.flavors.get("python_function")
    found = [(str(pyfunc.get("loader_module")), pyfunc)] if pyfunc else []
    # A pt2 archive may be loaded natively, past the pyfunc flavor.
    native = model.flavors.get("pytorch")
    if native and not any(name == "mlflow.pytorch" for name, _ in found):
        found.append(("mlflow.pytorch", native))
    if not found:
        found = [(f"mlflow.{flavor}", conf) for flavor, conf in model.flavors.items()]
    return found


def _not_judged(model: MlModel, name: str, conf: Conf) -> list[Pickled]:
    """Return what the MLmodel leads a loader to instead of to what was judged here."""
    found = []
    if "loader_module" in conf and "data" in conf and not _is_judged(model, name, conf["data"]):
        why = f"`{name}` is told to load it, which is not what the MLmodel says of the model"
        found.append(Pickled(str(conf["data"]), why, "Log the model again"))
    if name.startswith("mlflow.") and not name.startswith("mlflow.pyfunc."):
        why = "a second MLmodel tells another format of what lies beside it"
        nested = [file for file in model.files if file.endswith(f"/{MLMODEL}")]
        found += [Pickled(file, why, "Log the model without the other one in its folder") for file in nested]
    return found


def _is_judged(model: MlModel, name: str, data: Json) -> bool:
    place = PurePosixPath(str(data))
    if place.is_absolute() or {"..", *NOT_OF_THE_MODEL}.intersection(place.parts):
        return False
    if name not in _BESIDE:
        return True
    section, key = _BESIDE[name]
    path = model.folder / place
    # Deeper down there is no MLmodel beside it, and MLflow then takes what is there for a pickle.
    is_plain = len(place.parts) == 1 and path.is_file() and not path.is_symlink()
    return is_plain and data == model.flavors.get(section, {}).get(key)


def _loader(model: MlModel, name: str) -> "Callable[[MlModel, Conf], _Found]":
    known: Mapping[str, Callable[[MlModel, Conf], _Found]] = {
        "mlflow.pytorch": _pytorch,
        "mlflow.sklearn": _sklearn,
        "mlflow.xgboost": _xgboost,
        "mlflow.lightgbm": _lightgbm,
        "mlflow.pyfunc.model": _python_model,
        "mlflow.transformers": _weights,
        "mlflow.sentence_transformers": _weights,
        "mlflow.keras": _keras,
        "mlflow.tensorflow": _keras,
    }
    if name in known:
        return known[name]
    if name.startswith("mlflow.pyfunc.loaders."):
        return _python_model
    if name in _PLAIN:
        return lambda _model, _conf: _Found(_PLAIN[name])
    if name.partition(".")[0] == "mlflow":
        return lambda _model, conf: _unknown(name, conf)
    return _own_loader


def _pytorch(model: MlModel, conf: Conf) -> _Found:
    # Without `data`, MLflow gives a pyfunc's loader the model's folder itself.
    alone = "." if "loader_module" in conf else "data"
    place = Path(str(conf.get("data") or conf.get("model_data") or alone))
    path = model.folder / place
    weights = path / "model.pth" if path.is_dir() else path
    if weights.is_file():
        if is_torchscript(weights):
            return _Found("TorchScript", needs_switch=True)
        imported = torch_file_unsafe(weights)
        remedy = _LIGHTNING if any("lightning" in name for name in imported) else _PT2
        return _Found("PyTorch pickle", [_pickled(model, weights, imported, remedy, "`torch.load` builds the module")])
    return _archive(model, path / "model.pt2")


def _archive(model: MlModel, archive: Path) -> _Found:
    unsafe = pt2_unsafe(archive)
    items = [Pickled(_relative(model, archive), "; ".join(unsafe[:3]), _PT2)] if unsafe else []
    return _Found("PyTorch pt2", items)


def _sklearn(model: MlModel, conf: Conf) -> _Found:
    flavor = model.flavors.get("sklearn", {})
    path = model.folder / str(flavor.get("pickled_model") or conf.get("model_path") or "model.pkl")
    return _scikit_format(model, path, flavor, default="pickle", remedy=_SCIKIT_LEARN)


def _scikit_format(model: MlModel, path: Path, flavor: Conf, *, default: str, remedy: str) -> _Found:
    """Judge what `mlflow.sklearn` loads by the format that the MLmodel names, as its loader does."""
    form = str(flavor.get("serialization_format") or default)
    if form != "skops":
        return _Found(f"scikit-learn {form}", [_pickled(model, path, artifact_unsafe(path), remedy, f"it is a {form}")])
    trusted = flavor.get("skops_trusted_types") or []
    risky = [str(name) for name in trusted if _is_risky(str(name))] if isinstance(trusted, list) else [str(trusted)]
    if not risky:
        return _Found("scikit-learn skops", needs_switch=True)
    why = f"the MLmodel tells skops to trust {', '.join(risky[:3])}, which is no estimator"
    return _Found("scikit-learn skops", [Pickled(_relative(model, path), why, remedy)])


def _is_risky(name: str) -> bool:
    """Tell whether trusting a type would let a skops file call Python's own library."""
    return name.partition(".")[0] in sys.stdlib_module_names - {"collections"}


def _xgboost(_model: MlModel, conf: Conf) -> _Found:
    flavor = _model.flavors.get("xgboost", conf)
    kind = str(flavor.get("model_class") or "xgboost.core.Booster")
    if kind.startswith("xgboost."):
        return _Found("XGBoost UBJ or JSON")
    return _unknown(f"xgboost with class {kind}", conf)


def _lightgbm(model: MlModel, conf: Conf) -> _Found:
    flavor = model.flavors.get("lightgbm", conf)
    if str(flavor.get("model_class") or "lightgbm.basic.Booster") == "lightgbm.basic.Booster":
        return _Found("LightGBM text")
    path = model.folder / str(flavor.get("data") or "model.pkl")
    return _scikit_format(model, path, flavor, default="cloudpickle", remedy=_BOOSTER)


def _python_model(model: MlModel, conf: Conf) -> _Found:
    if not conf.get("model_code_path"):
        path = model.folder / str(conf.get("python_model") or "python_model.pkl")
        why = "it is a Python object saved by cloudpickle"
        return _Found("Python object", [_pickled(model, path, artifact_unsafe(path), _FROM_CODE, why)])
    return _Found("model from code", _pickled_files(model, "", _STATE_DICT))


def _own_loader(model: MlModel, conf: Conf) -> _Found:
    """A loader that comes with the model is code like a model from code; what it may unpickle is in its data."""
    # Without `data`, MLflow gives it the model's folder itself.
    place = str(conf.get("data") or "")
    return _Found(f"own loader {conf.get('loader_module')}", _pickled_files(model, place, _FROM_CODE))


def _weights(model: MlModel, _conf: Conf) -> _Found:
    return _Found("Hugging Face weights", _pickled_files(model, "", "Save with `safe_serialization=True`"))


def _keras(model: MlModel, _conf: Conf) -> _Found:
    saved = [name for name in plain_files(model.folder) if name.endswith((".cloudpickle", ".pkl"))]
    why = "custom objects are saved by cloudpickle"
    return _Found(
        "Keras", [Pickled(name, why, "Register custom layers in code, and save without them") for name in saved]
    )


def _unknown(name: str, conf: Conf) -> _Found:
    place = str(conf.get("data") or conf.get("pickled_model") or "MLmodel")
    why = f"what `{name}` loads is not known to be safe"
    return _Found(name, [Pickled(place, why, "Log the model in another flavor, or from code")])


def _pickled_files(model: MlModel, place: str, remedy: str) -> list[Pickled]:
    """Return the pickles at a place in the model's folder: a file, or a folder and all that is below it."""
    within = PurePosixPath(place)
    found = []
    for name in plain_files(model.folder):
        if PurePosixPath(name).is_relative_to(within) and (imported := artifact_unsafe(model.folder / name)):
            found.append(_pickled(model, model.folder / name, imported, remedy, "it is a pickle"))
    return found


def _pickled(model: MlModel, path: Path, imported: Sequence[str], remedy: str, why: str) -> Pickled:
    names = ", ".join(f"`{name.replace(' ', '.')}`" for name in imported[:3])
    return Pickled(_relative(model, path), f"{why}, importing {names}" if names else why, remedy)


def _relative(model: MlModel, path: Path) -> str:
    return path.relative_to(model.folder).as_posix() if path.is_relative_to(model.folder) else str(path)
