"""What starts a flow, and how it ends. Plain values: they are stored with the flow and must stay readable."""

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

from headrace.types import Json


class Cause(StrEnum):
    """What a trigger was."""

    PERSON = "person"
    COMMIT = "commit"
    DATA = "data"
    CRON = "cron"
    REGISTRY = "registry"
    TAG = "tag"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why something starts.

    Attributes:
        key: tells this event from others of its cause; the same event always has the same key.
        actor: who is behind it, as the ledger will name them.
        reason: one plain sentence.
    """

    cause: Cause
    key: str
    actor: str
    reason: str
    evidence: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CandidateRequest:
    """Train, judge and try out a new version.

    Attributes:
        folder: the component's folder, where headrace.yaml lies.
        commit: the full SHA to train from; empty for what is checked out or lies there.
        with_production_rows: add labelled production rows to the training data, keeping some out for the gate.
        repository: a checkout that has `commit`, where the folder's own repository may lack it.
        version: a version that is in the registry already and is to be judged; 0 trains a new one.
        runs_on: the label that the worker that trains must carry; empty for none.
    """

    component: str
    folder: str
    trigger: Trigger
    attempt: int = 1
    commit: str = ""
    with_production_rows: bool = False
    repository: str = ""
    version: int = 0
    runs_on: str = ""

    @property
    def flow_id(self) -> str:
        """Component, trigger and attempt: the same event can never start a second flow."""
        return flow_id(self.component, self.trigger, self.attempt)


@dataclass(frozen=True, slots=True)
class PromoteRequest:
    """Make a version the champion.

    Attributes:
        expected: the version that must still serve; None for "none serves yet".
        origin: the flow that this one goes on from; who stops that one stops this one too.
    """

    component: str
    version: int
    expected: int | None
    trigger: Trigger
    attempt: int = 1
    origin: str = ""

    @property
    def flow_id(self) -> str:
        return flow_id(f"{self.component}/promote", self.trigger, self.attempt)


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Judge one window of predictions."""

    component: str
    version: int
    first: str  #: id of the window's first prediction
    last: str
    attempt: int = 0  #: how often it could not be judged before

    @property
    def window_id(self) -> str:
        return f"{self.component}/watch/v{self.version}-{self.first}"

    @property
    def flow(self) -> str:
        """Return the name of the flow that does it."""
        return "watch"

    @property
    def flow_id(self) -> str:
        return f"{self.window_id}-again-{self.attempt}" if self.attempt else self.window_id


class EarlyRequest(WatchRequest):
    """Judge one window of predictions whose labels are awaited, without them."""

    __slots__ = ()

    @property
    def flow(self) -> str:
        return "look"

    @property
    def flow_id(self) -> str:
        own = early_id(self)
        return f"{own}-again-{self.attempt}" if self.attempt else own


def early_id(request: WatchRequest) -> str:
    """Return what the early look at a window is named by, beside the window's own id."""
    return f"{request.window_id}-early"


class State(StrEnum):
    """How a flow ended."""

    PROMOTED = "promoted"
    WAITING = "waiting for approval"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a flow, with the first cause and the remedy where it is not a good one."""

    flow_id: str
    component: str
    state: State
    version: int | None = None
    fact: str = ""
    remedy: str = ""
    exit_code: int = 0
    evidence: dict[str, Json] = field(default_factory=dict)
    next_flow: str = ""  #: the flow that goes on from here, such as the promotion

    def as_json(self) -> dict[str, Json]:
        return {
            "flow": self.flow_id,
            "component": self.component,
            "state": self.state.value,
            "version": self.version,
            "fact": self.fact,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
            "evidence": self.evidence,
            "next_flow": self.next_flow,
        }


def flow_id(subject: str, trigger: Trigger, attempt: int) -> str:
    """Return the one id of a trigger's flow."""
    return f"{subject}/{trigger.cause.value}-{trigger.key}/{attempt}"


def folder_name(flow: str) -> str:
    """Return a flow id as a folder's name; no two flows share one."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "--", flow)
    if name.replace("--", "/") == flow and name not in {"", ".", ".."}:
        return name
    # The `~` is in no name that says all of its id.
    return f"{name}~{hashlib.sha256(flow.encode(errors='surrogatepass')).hexdigest()[:12]}"
