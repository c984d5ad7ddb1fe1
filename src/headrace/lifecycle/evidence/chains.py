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
    # First the tags: a promotion that writes both meanwhile then anchors nothing that was not read.
    anchors = _anchors(rooms, component)
    found = rooms.ledger.verify(component)
    hashes = {entry.hash for entry in rooms.ledger.history(component, limit=1_000_000)}
    lost = next((name for name, anchored in anchors.items() if anchored not in hashes), "")
    problem = f"the tag {lost} anchors an entry that the ledger does not have" if lost else ""
    return Chain(component, found.entries, found.head, found.problem or problem)


def _anchors(rooms: Rooms, component: str) -> dict[str, str]:
    """Return the entries that the release tags name, by tag."""
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        return {}
    try:
        folder = Path(recall(rooms, component, serving.version).folder)
    except HeadraceError:
        return {}  # Without a record nobody knows where its tags would be.
    return {tag.name: tag.ledger for tag in read_tags(folder, component) if tag.ledger}
