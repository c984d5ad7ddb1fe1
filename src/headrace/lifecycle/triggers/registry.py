"""What somebody did in MLflow itself: a version made there, an alias moved there. Polling is the truth."""

from headrace.config.component import Component
from headrace.lifecycle.request import Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Sighting, Wants, Watched
from headrace.lifecycle.versions import is_known
from headrace.types import Json

UNKNOWN = "unknown"


class RegistrySource:
    """Versions that headrace did not register."""

    name = "registry"

    def is_wanted(self, settings: Component) -> bool:
        return settings.triggers.registry

    def look(self, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        versions = rooms.registry.versions(watched.component)
        newest = max((version.number for version in versions), default=0)
        if not isinstance(mark, int):
            return Sighting(newest)
        strange = [
            version.number
            for version in reversed(versions)
            if version.number > mark and "headrace.baseline" not in version.tags
        ]
        return Sighting(max(newest, mark), [foreign_version(watched, number) for number in strange])


def foreign_version(watched: Watched, number: int) -> Event:
    """Return the event of a version that somebody else registered."""
    reason = f"version {number} was registered in MLflow by somebody else"
    trigger = Trigger(
        Cause.REGISTRY, f"v{number}-made", UNKNOWN, reason, {"model": f"models:/{watched.component}/{number}"}
    )
    return Event(watched.component, trigger, folder=str(watched.folder), version=number)


def moved_alias(rooms: Rooms, component: str, alias: str, number: int, sequence: int, watched: Watched | None) -> Event:
    """Return the event of an alias that somebody else moved: the request for a promotion, never an approval.

    Args:
        sequence: the ledger's newest entry that moved production, so that the same wish counts once for each champion.
    """
    if watched is not None and not is_known(rooms, component, number):
        return foreign_version(watched, number)
    reason = f"the alias `{alias}` was moved to version {number} in MLflow"
    trigger = Trigger(Cause.REGISTRY, f"v{number}-over-{sequence}", UNKNOWN, reason, {"alias": alias})
    return Event(component, trigger, Wants.PROMOTION, version=number)
