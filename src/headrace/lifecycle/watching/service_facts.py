"""What the endpoint's own counters say about a window, beside what is promised and what was usual before."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.config.component import Component
from headrace.lifecycle.request import WatchRequest
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.watching.watchbook import tallies as kept_tallies
from headrace.monitoring.signals.service import Service
from headrace.rollout.observed import Tally, tallies
from headrace.types import Stage


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the service, and how far each version's counters stood then: requests and errors."""

    service: Service
    counters: dict[str, list[int]]


def facts_of(
    rooms: Rooms, request: WatchRequest, settings: Component, *, since: Mapping[str, list[int]] | None = None
) -> Facts:
    """Return what happened since the last window was judged. Where no endpoint counts, only ages are known.

    Args:
        since: how far the counters stood then, where that is not what was kept with the last verdict.
    """
    status = rooms.target.status(request.component, Stage.PRODUCTION)
    now = dict(tallies(status.endpoint.url, slow_s=1.0)) if status else {}
    kept = kept_tallies(rooms, request.component) if since is None else since
    before = {int(version): Tally(*counters) for version, counters in kept.items()}
    serving = rooms.ledger.serving(request.component, Stage.PRODUCTION)
    earlier = (serving.from_version if serving else None) or 0
    own = now.get(request.version, Tally()).since(before.get(request.version, Tally()))
    # After a restart the endpoint has forgotten the version before; then its last count stands.
    usual = max(now.get(earlier, Tally()), before.get(earlier, Tally()), key=lambda one: one.requests)
    service = Service(
        own.requests, own.errors, usual.requests, usual.errors, p99_ms=settings.acceptance.p99_ms,
        model_age_s=_age_s(rooms, request), oldest_model_s=settings.monitor.stale_after,
    )  # fmt: skip
    counters = {str(version): [one.requests, one.errors] for version, one in {**before, **now}.items()}
    return Facts(service, counters)


def _age_s(rooms: Rooms, request: WatchRequest) -> float | None:
    """Return how long ago the ledger first named the version."""
    named = [one.at for one in rooms.ledger.history(request.component, limit=1000) if one.version == request.version]
    return (rooms.clock.now() - min(named)).total_seconds() if named else None
