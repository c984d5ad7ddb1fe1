"""The journal of a flow: every step with what it did, found and took, readable while it runs and ever after.

One JSON object a line, appended; a step that is repeated after a crash shows both tries.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from headrace.clock import Clock
from headrace.errors import HeadraceError
from headrace.files import append_line, read_lines
from headrace.lifecycle.claims import UNCLAIMED, Claim, Superseded
from headrace.lifecycle.stopping import stop_if_asked
from headrace.types import Json

FILE = "events.jsonl"


class Mark(StrEnum):
    """Where in its life a step is."""

    STARTED = "started"
    PROGRESS = "progress"
    DONE = "done"
    FAILED = "failed"
    ENDED = "ended"  #: the flow itself; `numbers` holds its outcome


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal."""

    at: str
    step: str
    mark: Mark
    text: str
    seconds: float = 0.0
    numbers: dict[str, Json] = field(default_factory=dict)

    def as_json(self) -> dict[str, Json]:
        return {
            "at": self.at,
            "step": self.step,
            "mark": self.mark.value,
            "text": self.text,
            "seconds": round(self.seconds, 3),
            "numbers": self.numbers,
        }


#: In place of a line that a crash or a full disk left unfinished.
TORN = Event("", "journal", Mark.PROGRESS, "a line of this journal was left unfinished")


@dataclass(slots=True)
class Note:
    """What a step says when it is done."""

    found: str = ""
    numbers: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Journal:
    """Writes a flow's events, as long as the flow is claimed by who writes."""

    folder: Path
    clock: Clock
    claim: Claim = UNCLAIMED

    def write(
        self, step: str, mark: Mark, text: str, *, seconds: float = 0.0, numbers: dict[str, Json] | None = None
    ) -> None:
        """Add an event. Raises Superseded."""
        if self.claim.is_lost():
            raise Superseded(f"Another worker has taken over what is written to {self.folder}.")
        event = Event(self.clock.now().isoformat(), step, mark, text, seconds, numbers or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        append_line(self.folder / FILE, event.as_json())

    def progress(self, step: str, text: str) -> None:
        self.write(step, Mark.PROGRESS, text)

    @contextmanager
    def step(self, name: str, doing: str, *, must_run: bool = False) -> Iterator[Note]:
        """Write that a step starts, and how it ends; `note.found` becomes its result line.

        Args:
            must_run: do it also where the flow was asked to stop: it cleans up, or ends what was decided.

        Raises:
            Cancelled: somebody asked the flow to stop.
        """
        if not must_run:
            stop_if_asked(self.folder)
        self.write(name, Mark.STARTED, doing)
        began = self.clock.monotonic_s()
        note = Note()
        try:
            yield note
        except Superseded:
            raise
        except HeadraceError as error:
            self.write(name, Mark.FAILED, error.fact, seconds=self.clock.monotonic_s() - began)
            raise
        self.write(name, Mark.DONE, note.found, seconds=self.clock.monotonic_s() - began, numbers=note.numbers)


def read_events(folder: Path, *, after: int = 0) -> Sequence[Event]:
    """Return the events from number `after` on; a line that is being written is left for the next call."""
    return [_event(document) if document else TORN for document in read_lines(folder / FILE, after=after)]


def _event(document: dict[str, Json]) -> Event:
    numbers = document["numbers"]
    return Event(
        at=str(document["at"]),
        step=str(document["step"]),
        mark=Mark(str(document["mark"])),
        text=str(document["text"]),
        seconds=float(str(document["seconds"])),
        numbers=numbers if isinstance(numbers, dict) else {},
    )
