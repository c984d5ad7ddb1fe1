"""The ledger: the append-only record of every decision. It blocks rather than loses."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from headrace.errors import NotFound
from headrace.types import Actor, Json, Stage

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: The revision of the tables that this code knows.
SCHEMA = "0002"


class Action(StrEnum):
    """What was decided or found."""

    REGISTERED = "registered"
    GATED = "gated"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ALARM = "alarm"
    RETIRED = "retired"


#: The actions that change what serves in a stage; they go through `move`, all others through `append`.
MOVES = frozenset({Action.PROMOTED, Action.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before the ledger has given it a number and a hash.

    Attributes:
        key: the idempotency key: a second append with the same key returns the first entry and writes nothing.
        stage: None for decisions that concern no stage.
        version: what the decision is about; for a promotion or rollback, the version that serves from now on
            (None: nothing serves from now on).
        evidence: what it rests on: metrics, verdicts, run and flow ids, digests.
    """

    component: str
    action: Action
    actor: Actor
    reason: str
    key: str
    stage: Stage | None = None
    version: int | None = None
    baseline: str = ""
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a component's chain.

    Attributes:
        sequence: 1, 2, 3 … per component, without gaps.
        from_version: for promotions and rollbacks, what served before; None where nothing did.
        hash: SHA-256 over the canonical JSON of everything else, `previous` included.
        previous: the hash of the entry before; 64 zeros for the first.
    """

    component: str
    sequence: int
    at: datetime
    action: Action
    actor: Actor
    reason: str
    key: str
    stage: Stage | None
    version: int | None
    from_version: int | None
    baseline: str
    evidence: Mapping[str, Json]
    previous: str
    hash: str

    def as_json(self) -> dict[str, Json]:
        """Return the entry as scripts read it."""
        return {
            "component": self.component,
            "sequence": self.sequence,
            "at": self.at.isoformat(),
            "action": self.action.value,
            "stage": self.stage.value if self.stage else None,
            "version": self.version,
            "from_version": self.from_version,
            "actor": self.actor.name,
            "reason": self.reason,
            "baseline": self.baseline,
            "evidence": dict(self.evidence),
            "previous": self.previous,
            "hash": self.hash,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a component's chain is whole; `problem` names the first entry that is not right."""

    component: str
    entries: int
    head: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Projection:
    """One alias that MLflow should be given, because an entry moved a stage.

    Attributes:
        sequence: the entry's, in its component's chain.
        version: what the alias must point at; None where it must be removed.
    """

    component: str
    stage: Stage
    sequence: int
    version: int | None
    is_written: bool


class Ledger(Protocol):
    """What every ledger does. All writes are durable when they return."""

    def append(self, draft: Draft) -> Entry:
        """Add a decision that moves no stage; a repeat with the same key returns the first entry.

        Raises:
            InvalidInput: the evidence holds a number that JSON has no word for.
            Unavailable: the ledger cannot be written; nothing was.
        """
        ...

    def move(self, draft: Draft, *, expected: int | None) -> Entry:
        """Make `draft.version` the one that serves in `draft.stage`, if `expected` still does (compare-and-swap).

        A repeat with the same key returns the first entry, whatever serves by now.

        Raises:
            Conflict: another version serves there by now; nothing was written.
        """
        ...

    def serving(self, component: str, stage: Stage) -> Entry | None:
        """Return the entry that says what serves in a stage, or None where nothing does."""
        ...

    def history(self, component: str, *, limit: int = 100) -> Sequence[Entry]:
        """Return the newest entries, newest first."""
        ...

    def select(
        self, component: str, actions: Collection[Action], *, version: int | None = None, limit: int = 100
    ) -> Sequence[Entry]:
        """Return the newest entries of some actions, of one version where it is named, newest first."""
        ...

    def versions(self, component: str) -> Sequence[int]:
        """Return the numbers of all versions that any entry names, in order."""
        ...

    def find(self, key: str) -> Entry | None:
        """Return the entry that was written under an idempotency key."""
        ...

    def components(self) -> Sequence[str]:
        """Return the names of all components that have entries."""
        ...

    def verify(self, component: str) -> Verification:
        """Recompute the chain."""
        ...


@runtime_checkable
class Outbox(Protocol):
    """The aliases that the ledger's moves ask for, and which of them MLflow has been given.

    Rows are written in the transaction of their entry, so that a crash between the ledger and MLflow is caught up.
    """

    def unwritten(self) -> Sequence[Projection]:
        """Return the newest projection of every component and stage that MLflow has not been given."""
        ...

    def mark_written(self, projection: Projection) -> None:
        """Remember that MLflow has been given a projection; older ones of its stage are no longer wanted."""
        ...

    def wrote(self, component: str, stage: Stage) -> frozenset[int | None]:
        """Return every version that the alias may point at by headrace's own hand; any other is somebody else's.

        The last one that was remembered as written (None before the first: there was no alias), and those since then
        that a crash may have left unremembered.
        """
        ...


@runtime_checkable
class Guardable(Protocol):
    """A ledger whose writes can be made to depend on something that its own database knows."""

    def guarded(self, check: "Callable[[Connection], None]") -> "Ledger":
        """Return the same ledger, asking `check` at the beginning of the transaction of every entry.

        What `check` raises keeps the entry from being written. It may lock rows; they stay locked until the entry is.
        """
        ...


def no_component(ledger: Ledger, component: str) -> NotFound:
    """Return what to tell whoever names a component that the ledger does not know."""
    known = ", ".join(ledger.components())
    return NotFound(
        f"The ledger knows no component `{component}` (it has: {known or 'none yet'}).",
        "It knows a component from its first registered version on: `headrace run FOLDER` makes one.",
    )
