"""Whether the ledger's chains are whole, and whether they still hold what release tags anchor."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall
from headrace.provenance.tags import read_tags
from headrace.types import Json, Stage


@dataclass(frozen=True, slots=True)
class Chain:
    """One component's chain; `problem` is empty where it is whole."""

    component: str
    entries: int
    head: str
    problem: str

    def as_json(self) -> dict[str, Json]:
        return {"component": self.component, "entries": self.entries, "head": self.head, "problem": self.problem}


def verify_chains(rooms: Rooms, component: str = "") -> Sequence[Chain]:
    """Recompute a component's chain, or all of them, and compare them with the tags of the champion's repository."""
    names = [component] if component else rooms.ledger.components()
    return [_verify(rooms, name) for name in names]


def _verify(rooms: Rooms, component: str) -> Chain:
    found = rooms.ledger.verify(component)
    return Chain(component, found.entries, found.head, found.problem or _lost_anchor(rooms, component))


def _lost_anchor(rooms: Rooms, component: str) -> str:
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return ""
    try:
        folder = Path(recall(rooms, component, serving.version).folder)
    except HeadraceError:
        return ""  # Without a record nobody knows where its tags would be.
    hashes = {entry.hash for entry in rooms.ledger.history(component, limit=1_000_000)}
    lost = [tag.name for tag in read_tags(folder, component) if tag.ledger and tag.ledger not in hashes]
    return f"the tag {lost[0]} anchors an entry that the ledger does not have" if lost else ""
