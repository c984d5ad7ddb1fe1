"""What a headrace.yaml says, as frozen values. Parsing and its errors are in `parse`."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from headrace.types import Json, Resources, Stage, Task

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(s|m|h|d)$")
MEMORY = re.compile(r"^[1-9]\d*[kmg]$")
#: 100 years; moments that lie further away cannot be reckoned with.
LONGEST_S = 36525 * 86400.0
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def process_only(value: str) -> str:
    """Refuse `inline`: the front has neither the model's libraries nor its interpreter (ADR 0014)."""
    if value == "inline":
        raise ValueError(
            "`inline` cannot be had: a version runs in its own environment, which has no HTTP server in it, and the "
            "server's has no model libraries; write `process`, or leave the line out"
        )
    return value


def seconds(value: Any) -> Any:
    """Return `6h`, `90s` or a plain number as seconds."""
    found = DURATION.match(value.strip()) if isinstance(value, str) else None
    if isinstance(value, str) and found is None:
        raise ValueError(f"`{value}` is no duration; write for example 90s, 15m, 6h or 1d")
    wanted = float(found[1]) * SECONDS[found[2]] if found else value
    if isinstance(wanted, int | float) and wanted > LONGEST_S:
        raise ValueError(f"`{str(value)[:40]}` is too long; at most 36525d (100 years)")
    return wanted


def seconds_or_auto(value: Any) -> Any:
    """Return a duration as seconds, and `auto` as it is."""
    return value if value == "auto" else seconds(value)


def amount(value: Any) -> Any:
    """Return `4g` as it is, if it is an amount of memory."""
    if value is None or MEMORY.match(str(value)):
        return value
    raise ValueError(f"`{value}` is no amount of memory; write for example 512m or 4g")


def window_rows(value: Any) -> Any:
    """Return `500 predictions` as its number of rows."""
    found = re.fullmatch(r"(\d+)(?: predictions?| rows?)?", str(value).strip())
    if found is None:
        raise ValueError(f"`{value}` is no window; write for example `500 predictions`")
    return int(found[1])


def rate(value: Any) -> Any:
    """Return `0.001 per window` as 0.001."""
    return value.removesuffix("per window").strip() if isinstance(value, str) else value


def retraining(value: str) -> str:
    """Return what starts a training, if it is known; a cron line must be one that comes due some day."""
    if value in {"data", "drift", "quality"}:
        return value
    if not value.startswith("cron:"):
        raise ValueError(f"`{value}` starts nothing; known are data, drift, quality and `cron: 0 3 * * 1`")
    cron_line(value)
    return value


def cron_line(value: str) -> str:
    """Return the five fields of `cron: 0 3 * * 1`. Raises ValueError where they are none, or never come due."""
    from cronsim import CronSim, CronSimError

    line = value.removeprefix("cron:").strip()
    try:
        next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(
            f"`{line}` never comes due or is no cron line ({error}); write five fields, for example `0 3 * * 1`"
        ) from error
    return line


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0)]
Count = Annotated[int, Field(ge=1)] | Literal["auto"]


class Frozen(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EnvironmentKind(StrEnum):
    """What the component is trained and served in."""

    UV = "uv"
    INHERIT = "inherit"
    DOCKER = "docker"


class CodePolicy(StrEnum):
    """What becomes of a tree with uncommitted changes, or one without git."""

    REFUSE = "refuse"
    ALLOW = "allow"
    ALLOW_DEV = "allow-dev"


class KeepData(StrEnum):
    """How a version's data stays at hand: `auto` copies what is not large."""

    AUTO = "auto"
    COPY = "copy"
    REFERENCE = "reference"


class Approval(StrEnum):
    """Who lets a passed candidate into production."""

    REQUIRED = "required"
    AUTOMATIC = "automatic"
    NEW_CODE = "new_code"  #: required for new code, automatic for a retraining on the champion's code


class DataInput(Frozen):
    """One data file (Parquet, CSV) or a folder of images by class.

    Attributes:
        uri: relative to the component's folder, or absolute.
        label: the column of the truth; for an image folder the sub-folder's name is the label.
        id: the column that names a row; the row's number where absent.
        parameter: the MLproject parameter that gets the file's path.
    """

    uri: str
    label: str | None = None
    id: str | None = None
    parameter: str | None = None


class Data(Frozen):
    """The component's data, by use."""

    train: DataInput | None = None
    holdout: DataInput | None = None
    golden: DataInput | None = None
    #: An MLproject entry point that makes the files above where they are absent.
    prepare: str | None = None
    keep: KeepData = KeepData.AUTO


class Bound(Frozen):
    """Limits of one metric, both included."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _is_a_bound(self) -> "Bound":
        if self.min is None and self.max is None:
            raise ValueError("a bound needs `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` {self.min} is above `max` {self.max}")
        return self


class AgainstChampion(Frozen):
    """A paired comparison with the champion on the same rows."""

    metric: str = "accuracy"
    no_worse_than: float = Field(default=0.02, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class Gate(Frozen):
    """The judgement on a candidate."""

    metrics: dict[str, Bound] = {}
    against_champion: AgainstChampion | None = AgainstChampion()
    slices: tuple[str, ...] = ()
    min_rows: int = Field(default=30, ge=1)


class Training(Frozen):
    """Where the entry point that trains runs, and what it may use there; `training: docker` for the first alone."""

    #: None follows `environment`.
    target: Literal["process", "docker"] | None = None
    memory: Annotated[str | None, BeforeValidator(amount)] = None
    cpus: float | None = Field(default=None, gt=0)
    gpus: Literal["auto", "all", "none"] | Annotated[int, Field(ge=1)] = "auto"
    network: str = Field(default="bridge", min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _is_a_target(cls, value: Any) -> Any:
        return {"target": value} if isinstance(value, str) else value

    @property
    def limits(self) -> tuple[str, ...]:
        """The keys that hold for a container alone and say something."""
        said = {"memory": self.memory, "cpus": self.cpus, "gpus": self.gpus, "network": self.network}
        return tuple(name for name, value in said.items() if value not in (None, "auto", "bridge"))


class Serve(Frozen):
    """How a version is served."""

    workers: Count = 1
    threads: Count = "auto"
    isolation: Annotated[Literal["process", "inline"], AfterValidator(process_only)] = "process"
    max_batch: int = Field(default=64, ge=1)
    deadline_ms: float = Field(default=1000, gt=0)
    queue: int = Field(default=1024, ge=1)
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    fronts: Count = 1
    port: int = Field(default=0, ge=0, le=65535, description="0 takes a free one and keeps it")
    log_sample: float = Field(default=1.0, ge=0, le=1)
    redact: tuple[str, ...] = ()
    #: Names of environment variables that hold the keys that clients must send; none lets everybody in.
    predict_keys: tuple[str, ...] = ()
    feedback_keys: tuple[str, ...] = ()


class Acceptance(Frozen):
    """What the dev deployment must do before anything is promoted."""

    p99_ms: float | None = Field(default=None, gt=0)
    requests: int = Field(default=200, ge=1)
    clients: int = Field(default=4, ge=1)


class Release(Frozen):
    """How a passed candidate gets to production."""

    approval: Approval = Approval.REQUIRED
    #: Who may approve and reject; empty lets everybody who may operate.
    approvers: tuple[str, ...] = ()
    #: A candidate that nobody has decided on for so long is rejected.
    decide_within: Seconds = 7 * 86400.0
    strategy: Literal["direct", "canary"] = "direct"
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (5, 25, 100)
    step_s: Seconds = 2.0
    keep_warm_s: Seconds = 3600.0

    @model_validator(mode="after")
    def _ends_at_all(self) -> "Release":
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1:] != (100,):
            raise ValueError(f"`steps` are {list(self.steps)}; they must rise and end at 100")
        return self


class Label(Frozen):
    """Which predictions are marked for labelling: a uniform sample, because only labels reveal concept drift."""

    rate: float = Field(default=0.0, ge=0, le=1)
    #: That no prediction of so long has a label is told.
    stale_after: Seconds | None = None


Season = Literal["none", "hour", "weekday", "hour of weekday"]


class Monitor(Frozen):
    """What the watch looks at."""

    window: Annotated[int, BeforeValidator(window_rows), Field(ge=20)] = 500
    false_alarms: Annotated[float, BeforeValidator(rate), Field(gt=0, lt=1)] = 0.001
    every_s: Seconds = 10.0
    #: How long after a window's last prediction its actuals may take before it is judged without them; `auto` takes
    #: what 99 of 100 actuals took so far, and an hour where few are known.
    label_delay: Annotated[Annotated[float, Field(ge=0)] | Literal["auto"], BeforeValidator(seconds_or_auto)] = "auto"
    #: The longest that `auto` waits.
    label_delay_at_most: Seconds = 6 * 3600.0
    label: Label = Label()
    #: A version that the ledger has known for longer is told to be stale.
    stale_after: Seconds | None = None
    #: The holdout's column with the moment of each row.
    time_column: str | None = None
    #: The output or input that holds each row's embedding, which is then watched by where it lies among the holdout's.
    embedding: str | None = Field(default=None, min_length=1)
    #: What windows are compared with: holdout rows of the same hour, weekday or both, in UTC.
    season: Season = "none"

    @model_validator(mode="after")
    def _has_moments(self) -> "Monitor":
        if self.season != "none" and self.time_column is None:
            raise ValueError("`season` needs `time_column`, the holdout's column with the moment of each row")
        return self


Reason = Annotated[str, AfterValidator(retraining)]


class Retrain(Frozen):
    """What starts a training without a person, and how often at most."""

    on: tuple[Reason, ...] = ()
    cooldown: Seconds = 6 * 3600.0
    #: The share of labelled production rows that is kept out of training, for the gate.
    keep_out: float = Field(default=0.3, gt=0, lt=1)
    #: Production rows that are older are left out.
    newest: Annotated[float, BeforeValidator(seconds), Field(gt=0)] | None = None
    #: Of production rows of this age one half is taken, of those twice as old a quarter.
    half_life: Annotated[float, BeforeValidator(seconds), Field(gt=0)] | None = None
    #: What a new production row counts where a training row counts 1; None writes no weights. With weights, rows are
    #: not left out by `half_life`: they count for less.
    weight: float | None = Field(default=None, gt=0)


class Commits(Frozen):
    """The branch whose commits become candidates."""

    branch: str = Field(min_length=1)
    #: A remote's name or address; empty for the folder's own repository.
    remote: str = ""


class Triggers(Frozen):
    """What else starts something without a command: commits, release tags, MLflow's own pages, webhooks."""

    commit: Commits | None = None
    #: What a pushed tag NAME/v3 is: nothing, a request to promote version 3, or the approval of it too.
    tags: Literal["none", "request", "approve"] = "none"
    #: Versions that were made in MLflow by somebody else become candidates.
    registry: bool = False
    #: The environment variable with the secret that webhooks are signed with; none refuses them.
    webhook_secret: str | None = None
    every_s: Seconds = 5.0
    cooldown: Seconds = 0.0
    #: What a newer commit replaces: the one that waits, or also the one that is being trained.
    supersede: Literal["waiting", "running"] = "waiting"


class StageLimits(Frozen):
    """What each worker of one stage may use; no limit where nothing is said."""

    memory: Annotated[str | None, BeforeValidator(amount)] = None
    cpus: float | None = Field(default=None, gt=0)
    #: Given to containers; a process sees whatever its machine has.
    gpus: Literal["all", "none"] | Annotated[int, Field(ge=1)] = "none"

    def as_resources(self) -> Resources:
        return Resources(self.memory or "", self.cpus or 0.0, "" if self.gpus == "none" else str(self.gpus))


class StageSettings(Frozen):
    """What one stage's deployment gets, and no other."""

    environment_variables: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    limits: StageLimits = StageLimits()


class Component(Frozen):
    """One headrace.yaml."""

    component: Name
    project: str = "."
    entry_point: str = "main"
    parameters: dict[str, str | int | float | bool] = {}
    code: CodePolicy = CodePolicy.ALLOW
    data: Data = Data()
    environment: EnvironmentKind = EnvironmentKind.UV
    #: The label (`HEADRACE_LABELS`, `headrace worker --label`) of the workers that may train this component.
    runs_on: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = ""
    training: Training = Training()
    tests: str | None = None
    evaluate: str | None = None
    task: Task | None = None
    allow_pickle: bool = False
    gate: Gate = Gate()
    serve: Serve = Serve()
    acceptance: Acceptance = Acceptance()
    release: Release = Release()
    monitor: Monitor = Monitor()
    stages: dict[Stage, StageSettings] = {}
    retrain: Retrain = Retrain()
    triggers: Triggers = Triggers()
    #: Where the file lies; set by the parser, not written by users.
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _can_be_trained(self) -> "Component":
        if self.training.target == "docker" and self.environment is EnvironmentKind.INHERIT:
            raise ValueError(
                "`training: docker` needs a locked environment, and `environment: inherit` is none; write "
                "`environment: docker`"
            )
        if self.training.limits and not self.is_trained_in_container:
            named = ", ".join(f"`training.{name}`" for name in self.training.limits)
            raise ValueError(f"{named} can be held in a container only; add `target: docker` to `training`")
        return self

    @property
    def is_trained_in_container(self) -> bool:
        """Tell whether the entry point that trains runs in a container of the train image."""
        return (self.training.target or self.environment) in ("docker", EnvironmentKind.DOCKER)

    @property
    def wants_gpus(self) -> bool:
        """Tell whether a container of it must be given GPUs, so that its environment must have what uses them."""
        served = [stage.limits.gpus for stage in self.stages.values()]
        return self.training.gpus not in ("auto", "none") or any(gpus != "none" for gpus in served)

    @property
    def project_folder(self) -> Path:
        return (self.folder / self.project).resolve()

    def as_json(self) -> dict[str, Json]:
        """Return the configuration as it goes into baselines and flows."""
        document: dict[str, Json] = self.model_dump(mode="json")
        return document
