"""Pushed release tags: NAME/v3 asks for the promotion of version 3. Those that headrace wrote ask for nothing."""

from headrace.config.component import Component
from headrace.ledger.base import Action
from headrace.lifecycle.request import Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Sighting, Wants, Watched
from headrace.lifecycle.triggers.repository import repository_of
from headrace.provenance.tags import read_tags, version_in
from headrace.types import Json


class TagSource:
    """The component's release tags."""

    name = "tag"

    def is_wanted(self, settings: Component) -> bool:
        return settings.triggers.tags != "none"

    def look(self, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        commit = watched.settings.triggers.commit
        repository = repository_of(rooms, watched, commit.remote if commit else "", commit.branch if commit else "")
        found = repository.tags(watched.component)
        known = mark if isinstance(mark, dict) else {}
        seen: dict[str, Json] = {name: sha for name, (sha, _) in found.items()}
        if mark is None:
            return Sighting(seen)
        new = [name for name in found if known.get(name) != seen[name]]
        if not new:
            return Sighting(seen)
        tags = read_tags(repository.top, watched.component)
        own = {tag.name for tag in tags if is_own(rooms, watched.component, tag.baseline)}
        events = [self._event(watched, name, *found[name]) for name in new if name not in own]
        return Sighting(seen, events)

    def _event(self, watched: Watched, name: str, sha: str, tagger: str) -> Event:
        version = version_in(name, watched.component)
        assert version is not None
        trigger = Trigger(
            Cause.TAG,
            f"v{version}-{sha[:12]}",
            f"git:{tagger or 'unknown'}",
            f"the tag {name} was pushed",
            {"tag": sha},
        )
        return Event(
            watched.component, trigger, Wants.PROMOTION, str(watched.folder), version=version,
            is_approval=watched.settings.triggers.tags == "approve",
        )  # fmt: skip


def is_own(rooms: Rooms, component: str, baseline: str) -> bool:
    """Tell whether a tag's message names the baseline of something that was promoted: headrace's own tags do."""
    promoted = rooms.ledger.select(component, {Action.PROMOTED}, limit=1000)
    return bool(baseline) and any(entry.baseline == baseline for entry in promoted)
