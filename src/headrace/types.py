"""The values that several rooms speak in. Frozen, without behaviour beyond refusing what cannot be right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # numpy costs more than the rest of this module's users together need at start-up.
    import numpy as np

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

#: Named columns or tensors of one batch, the first axis being rows. A tensor without a name in the signature
#: goes by `UNNAMED`.
Arrays: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"
UNNAMED = ""


class Stage(StrEnum):
    """Where a version serves."""

    DEV = "dev"
    PRODUCTION = "production"


class Verdict(StrEnum):
    """How a judgement ends. The third is not a soft pass: nothing is promoted on it without a person."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"


class Task(StrEnum):
    """What the model's answers are compared by."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class FieldKind(StrEnum):
    """Whether a signature field is a table column or a tensor."""

    COLUMN = "column"
    TENSOR = "tensor"


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output of a model, as its MLflow signature names it.

    Attributes:
        name: `UNNAMED` for the only tensor of an unnamed signature.
        dtype: of a tensor, numpy's name (`float32`); of a column, MLflow's (`double`, `long`, `string`, `datetime`, …).
        shape: of a tensor, with -1 where free, the first axis being rows; empty for a column.
    """

    name: str
    kind: FieldKind
    dtype: str
    shape: tuple[int, ...] = ()
    required: bool = True


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...] = ()
    params: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_tabular(self) -> bool:
        """True where the inputs are columns of a table."""
        return bool(self.inputs) and self.inputs[0].kind is FieldKind.COLUMN


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with the outputs that the model gave when it was trained, and how far a later answer may be off.

    Attributes:
        tolerance: absolute and relative, as `numpy.allclose` adds them.
    """

    inputs: Arrays
    outputs: Arrays
    tolerance: float = 1e-4


@dataclass(frozen=True, slots=True)
class Resources:
    """What each worker of a deployment may use.

    Attributes:
        memory: `512m` or `2g`; empty for no limit.
        cpus: how many, such as 1.5; 0 for no limit.
        gpus: `all` or a number, for a container; empty for none.
    """

    memory: str = ""
    cpus: float = 0.0
    gpus: str = ""

    @property
    def memory_bytes(self) -> int:
        """The limit in bytes; 0 for none."""
        return int(self.memory[:-1]) * 1024 ** ("kmg".index(self.memory[-1]) + 1) if self.memory else 0


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """All that is needed to serve one version: what, from where, by which interpreter, how checked.

    Attributes:
        component: also the endpoint's and the registered model's name.
        version: the registered version's number; 0 for a model that is served without a registry.
        model: a local, verified, read-only MLflow model folder (it holds `MLmodel`).
        python: the interpreter of the version's own environment.
        golden: a `.npz`-backed folder with golden inputs and outputs (`provenance.golden`), if there is one.
        seal: SHA-256 over the model folder's files, which a worker's start checks; empty where nothing was sealed.
        environment_variables: for the worker only, on top of a clean base.
        secrets: names of variables that are passed to the worker from the secrets store, never written down.
        limits: of each of its workers, as its stage says.
    """

    component: str
    version: int
    model: Path
    python: Path
    baseline: str = ""
    seal: str = ""
    golden: Path | None = None
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    allow_pickle: bool = False
    limits: Resources = Resources()

    @property
    def title(self) -> str:
        """What people call it: a candidate that is being judged has no number yet."""
        return f"{self.component} version {self.version}" if self.version else f"the model of {self.component}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a stage of a component answers."""

    component: str
    stage: Stage
    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: `person:ada`, `monitor:output-drift`, `schedule`, `unknown`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered row, as the prediction log keeps it.

    Attributes:
        id: a UUIDv7; its time is the moment of the request.
        inputs: row values by field name; tensors as nested lists are flattened to one list.
        output: the model's answer for the row: a scalar, a string or a list of numbers (probabilities, logits).
        shadow: answered by a challenger and never returned.
    """

    id: str
    component: str
    version: int
    at: datetime
    inputs: Mapping[str, Json]
    output: Json
    latency_ms: float
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Actual:
    """The truth about a prediction, arriving later under its id."""

    prediction_id: str
    value: Json
    at: datetime
