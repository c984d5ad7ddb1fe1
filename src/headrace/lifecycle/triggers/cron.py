"""Clocks: cron lines in UTC. Of the ticks that were missed while nothing ran, the newest is made up for."""

from datetime import datetime, timedelta

from cronsim import CronSim

from headrace.config.component import Component, cron_line
from headrace.lifecycle.request import Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Sighting, Watched
from headrace.types import Json

#: Further back nobody waits for a tick any more, and counting them would take long.
LONGEST = timedelta(days=40)


class CronSource:
    """All cron lines of a component."""

    name = "cron"

    def is_wanted(self, settings: Component) -> bool:
        return any(one.startswith("cron:") for one in settings.retrain.on)

    def look(self, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        now = rooms.clock.now()
        if mark is None:
            return Sighting(now.isoformat())
        since = max(datetime.fromisoformat(str(mark)), now - LONGEST)
        if since >= now:
            return Sighting(mark)  # The clock stepped back; what was seen is not seen again.
        lines = [cron_line(one) for one in watched.settings.retrain.on if one.startswith("cron:")]
        ticks = [(tick, line) for line in lines if (tick := newest_tick(line, since, now)) is not None]
        if not ticks:
            return Sighting(now.isoformat())
        tick, line = max(ticks)
        reason = f"`{line}` came due at {tick:%Y-%m-%d %H:%M:%S} UTC"
        trigger = Trigger(Cause.CRON, f"{tick:%Y%m%dT%H%M%SZ}", "schedule", reason, {"cron": line})
        event = Event(watched.component, trigger, folder=str(watched.folder), with_production_rows=True)
        return Sighting(now.isoformat(), [event])


def newest_tick(line: str, since: datetime, now: datetime) -> datetime | None:
    """Return the last time within (since, now] that a line came due; None where it did not."""
    # Backwards, so that counting the ticks that were missed costs nothing.
    tick = next(CronSim(line, now + timedelta(microseconds=1), reverse=True))
    return tick if since < tick <= now else None
