"""What a trigger is: an event with a key of its own, from a source that is looked at again and again.

Every source is at-least-once: the same event may be offered often. Its key makes one flow of it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from headrace.config.component import Component
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger, flow_id
from headrace.lifecycle.rooms import Rooms
from headrace.types import Json


class Wants(StrEnum):
    """What an event asks for."""

    CANDIDATE = "candidate"
    PROMOTION = "promotion"


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened that asks for a candidate or a promotion.

    Attributes:
        folder: the component's folder.
        commit: what to train from; empty for what lies in the folder.
        repository: a checkout that has the commit where the folder's own repository may lack it.
        version: of a promotion, what to promote; of a candidate, a version that is in the registry already.
        is_approval: the event itself is the approval, because who may cause it may approve.
    """

    component: str
    trigger: Trigger
    wants: Wants = Wants.CANDIDATE
    folder: str = ""
    commit: str = ""
    repository: str = ""
    version: int = 0
    with_production_rows: bool = False
    is_approval: bool = False

    @property
    def flow_id(self) -> str:
        """The one flow that this event can start."""
        subject = self.component if self.wants is Wants.CANDIDATE else f"{self.component}/promote"
        return flow_id(subject, self.trigger, 1)

    def candidate(self) -> CandidateRequest:
        """Return the request of a candidate's flow."""
        return CandidateRequest(
            self.component, self.folder, self.trigger, commit=self.commit, repository=self.repository,
            version=self.version, with_production_rows=self.with_production_rows,
        )  # fmt: skip

    def as_json(self) -> dict[str, Json]:
        document: dict[str, Json] = asdict(self)
        return document


def event_of(document: dict[str, Any]) -> Event:
    """Return an event that `as_json` wrote."""
    trigger = Trigger(**{**document["trigger"], "cause": Cause(document["trigger"]["cause"])})
    return Event(**{**document, "trigger": trigger, "wants": Wants(document["wants"])})


@dataclass(frozen=True, slots=True)
class Watched:
    """A component whose sources are looked at.

    Attributes:
        folder: where it lies; commits, data and headrace.yaml are read there.
        settings: what its headrace.yaml says; the last good one where it is broken at the moment.
    """

    component: str
    folder: Path
    settings: Component


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look at a source found.

    Attributes:
        mark: what the next look starts from.
        events: oldest first.
        problem: why nothing could be seen, or what was seen and passed over; empty where all is well.
    """

    mark: Json
    events: Sequence[Event] = field(default=())
    problem: str = ""


class Source(Protocol):
    """One kind of trigger. A first look (`mark` is None) finds how things are and causes nothing."""

    @property
    def name(self) -> str:
        """What its mark is kept under."""
        ...

    def is_wanted(self, settings: Component) -> bool:
        """Tell whether a component asks for this source."""
        ...

    def look(self, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        """Return what has happened since `mark`. Reads only; a repeat with the same mark finds the same events.

        Raises:
            HeadraceError: the source cannot be read now; the mark stays.
        """
        ...
