"""TorchServe archives (`.mar`) of registered versions and of plain weights. The same content gives the same bytes."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.config.component import Serve
from headrace.errors import InvalidInput, ModelRefused
from headrace.files import sha256_file
from headrace.registry.mlmodel import MlModel, read_mlmodel
from headrace.types import FieldKind, Json, ServedVersion

HANDLER = Path(__file__).with_name("handler.py")
#: The file that serves a version everywhere else; the archive carries it along.
WORKER = Path(__file__).parent.parent.parent / "serving" / "worker_child.py"
ARCHIVER = "0.12.0"
#: Zip cannot say an earlier time; a fixed one keeps equal archives equal.
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Archive:
    """A built archive."""

    path: Path
    name: str
    version: str
    digest: str


def build(version: ServedVersion, folder: Path, *, serve: Serve | None = None) -> Archive:
    """Write the archive of a registered version into `folder`: pt2, or any flavor with models-from-code or safe files.

    Raises:
        ModelRefused: the folder is no MLflow model, or can be served in neither way.
    """
    model = read_mlmodel(version.model)
    if model.pt2 is None and not model.has_pyfunc:
        raise ModelRefused(
            f"{version.component} version {version.version} has neither a pt2 archive nor the python_function flavor.",
            "Log it with `mlflow.pytorch.log_model` and an input example, or as models-from-code.",
        )
    about: dict[str, Json] = {
        "component": version.component,
        "version": version.version,
        "baseline": version.baseline,
        "seal": version.seal,
        "kind": "pt2" if model.pt2 else "pyfunc",
        "pt2": model.pt2.relative_to(version.model).as_posix() if model.pt2 else "",
        "allow_pickle": version.allow_pickle,
        "threads": threads_of(serve or Serve()),
        "inputs": _inputs(model),
        "example": model.example.relative_to(version.model).as_posix() if model.example else "",
    }
    files = {f"model/{name}": version.model / name for name in model.files}
    return _write(folder, version.component, version.version, about, files)


def build_state_dict(name: str, version: int, folder: Path, *, code: Path, weights: Path, network: str = "") -> Archive:
    """Write the archive of plain weights and the file that defines their network.

    Args:
        code: a Python file that defines the `torch.nn.Module`; it is made without arguments.
        weights: what `torch.save(model.state_dict(), …)` wrote; loaded with `weights_only`.
        network: the class, where the file defines several.

    Raises:
        InvalidInput: a file is missing.
    """
    for path in (code, weights):
        if not path.is_file():
            raise InvalidInput(f"{path} does not exist.", "Name the network's Python file and its saved weights.")
    about: dict[str, Json] = {
        "component": name, "version": version, "baseline": "", "kind": "state_dict", "code": code.name,
        "weights": weights.name, "class": network, "threads": 1,
        "inputs": [{"name": "", "kind": "tensor", "dtype": "float32", "shape": [], "required": True}],
    }  # fmt: skip
    return _write(folder, name, version, about, {code.name: code, weights.name: weights})


def threads_of(serve: Serve) -> int:
    return 1 if serve.threads == "auto" else serve.threads


def workers_of(serve: Serve) -> int:
    return 1 if serve.workers == "auto" else serve.workers


def _inputs(model: MlModel) -> list[Json]:
    fields = model.signature.inputs if model.signature else ()
    return [
        {
            "name": field.name, "kind": field.kind.value, "dtype": field.dtype, "shape": list(field.shape),
            "required": field.required or field.kind is FieldKind.TENSOR,
        }
        for field in fields
    ]  # fmt: skip


def _write(folder: Path, name: str, version: int, about: Mapping[str, Json], files: Mapping[str, Path]) -> Archive:
    manifest: dict[str, Json] = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {"modelName": name, "modelVersion": str(version), "handler": "headrace_handler.py"},
        "archiverVersion": ARCHIVER,
    }
    texts = {"MAR-INF/MANIFEST.json": manifest, "headrace.json": dict(about)}
    sources = {**files, "headrace_handler.py": HANDLER, "headrace_worker.py": WORKER}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.mar"
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as target:
        for member in _sorted([*texts, *sources]):
            info = zipfile.ZipInfo(member, EPOCH)
            info.external_attr = 0o644 << 16
            if member in texts:
                target.writestr(info, json.dumps(texts[member], indent=2, sort_keys=True))
                continue
            info.file_size = sources[member].stat().st_size
            with sources[member].open("rb") as source, target.open(info, "w") as sink:
                while piece := source.read(1 << 20):
                    sink.write(piece)
    temporary.replace(path)
    return Archive(path, name, str(version), sha256_file(path))


def _sorted(members: Sequence[str]) -> list[str]:
    """The manifest comes first, as TorchServe's own archiver writes it."""
    return sorted(members, key=lambda member: (not member.startswith("MAR-INF/"), member))
