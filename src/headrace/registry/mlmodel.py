"""What an MLflow model folder says about itself, read without importing mlflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import yaml

from headrace.errors import ModelRefused
from headrace.types import UNNAMED, Field, FieldKind, Json, Signature

MLMODEL = "MLmodel"
#: Written by MLflow servers that worked in the folder; no part of the model.
NOT_OF_THE_MODEL = frozenset({"__pycache__", ".DS_Store"})


@dataclass(frozen=True, slots=True)
class MlModel:
    """One MLflow model folder.

    Attributes:
        folder: where it lies.
        flavors: flavor name to what the flavor wrote down.
        signature: None where the model was logged without one.
        files: POSIX paths relative to `folder`, sorted.
        mlflow_version: the MLflow that saved it.
        run_id: the run that logged it; empty where it was saved without one.
        example: the input example as it would be sent to `/invocations`, if the model has one.
    """

    folder: Path
    flavors: Mapping[str, Mapping[str, Json]]
    signature: Signature | None
    files: Sequence[str]
    mlflow_version: str = ""
    run_id: str = ""
    example: Path | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)

    @property
    def has_pyfunc(self) -> bool:
        """True where `mlflow.pyfunc` can load it."""
        return "python_function" in self.flavors

    @property
    def pt2(self) -> Path | None:
        """The `torch.export` archive of a model of the pytorch flavor, or None."""
        flavor = self.flavors.get("pytorch")
        if flavor is None:
            return None
        relative = str(PurePosixPath(str(flavor.get("model_data") or "data")) / "model.pt2")
        return self.folder / relative if relative in self.files else None


def read_mlmodel(folder: Path) -> MlModel:
    """Return what the `MLmodel` file of a folder says.

    Raises:
        ModelRefused: there is no readable `MLmodel`, or its signature cannot be understood.
    """
    path = folder / MLMODEL
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as cause:
        raise ModelRefused(
            f"{folder} is no MLflow model: it has no file `{MLMODEL}`.", "Log it with `mlflow.<flavor>.log_model`."
        ) from cause
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        raise ModelRefused(f"{path} cannot be read: {_first_line(cause)}.", "Log the model again.") from cause
    if not isinstance(document, dict) or not isinstance(document.get("flavors"), dict):
        raise ModelRefused(f"{path} names no flavors.", "Log the model again with `mlflow.<flavor>.log_model`.")
    try:
        signature = parse_signature(document.get("signature"))
    except (KeyError, TypeError, ValueError) as cause:
        raise ModelRefused(
            f"The signature in {path} cannot be understood: {_first_line(cause)}.",
            "Log the model again with `signature=mlflow.models.infer_signature(inputs, outputs)`.",
        ) from cause
    return MlModel(
        folder=folder,
        flavors=cast("dict[str, dict[str, Json]]", document["flavors"]),
        signature=signature,
        files=model_files(folder),
        mlflow_version=str(document.get("mlflow_version") or ""),
        run_id=str(document.get("run_id") or ""),
        example=_example(folder, document),
        metadata=cast("dict[str, Json]", document.get("metadata") or {}),
    )


def model_files(folder: Path) -> list[str]:
    """Return the POSIX paths of all files below a folder, relative and sorted; byte-code caches left out."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not NOT_OF_THE_MODEL.intersection(path.relative_to(folder).parts)
    )


def parse_signature(document: Any) -> Signature | None:
    """Return an MLmodel's `signature` section as a value; None where it is absent or has no inputs.

    Raises:
        KeyError, TypeError, ValueError: it is not what MLflow writes.
    """
    if not document or not document.get("inputs"):
        return None
    params = {
        str(item["name"]): cast("Json", item.get("default"))
        for item in json.loads(document.get("params") or "null") or ()
    }
    return Signature(_fields(document["inputs"]), _fields(document.get("outputs")), params)


def _fields(text: str | None) -> tuple[Field, ...]:
    return tuple(_field(item, place) for place, item in enumerate(json.loads(text))) if text else ()


def _field(item: Mapping[str, Any], place: int) -> Field:
    if item["type"] == "tensor":
        spec = item["tensor-spec"]
        return Field(
            item.get("name") or UNNAMED,
            FieldKind.TENSOR,
            str(spec["dtype"]),
            tuple(int(size) for size in spec["shape"]),
        )
    # A lone unnamed column is legal in MLflow (a list of texts); its frame's column is called 0.
    name = item.get("name")
    return Field(
        str(place) if name is None else str(name),
        FieldKind.COLUMN,
        str(item["type"]),
        required=item.get("required", True),
    )


def _example(folder: Path, document: Mapping[str, Any]) -> Path | None:
    """Return the file of the input example in serving form."""
    saved = document.get("saved_input_example_info") or {}
    for name in (saved.get("serving_input_path"), "serving_input_example.json"):
        if name and (folder / str(name)).is_file():
            return folder / str(name)
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
