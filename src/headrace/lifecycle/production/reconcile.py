"""What runs is made equal to what the ledger says: at start-up, after a crash, a reboot, a repeat."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from headrace.deploy.base import Route, Status
from headrace.errors import HeadraceError
from headrace.files import locked
from headrace.ledger.base import MOVES, Action, Entry
from headrace.lifecycle.events import Mark, read_events
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall, served_version
from headrace.types import Stage


def production_route(rooms: Rooms, component: str, shares: dict[int, float], *, warm: Sequence[int] = ()) -> Route:
    """Return the production route with these shares; versions in `warm` are loaded without traffic.

    A warm version that is gone is left out; one with a share must be there.

    Raises:
        NotFound, ModelRefused: a version with a share cannot be served.
    """
    versions = [served_version(rooms, component, number, Stage.PRODUCTION) for number in shares]
    for number in dict.fromkeys(warm):
        if number in shares:
            continue
        try:
            versions.append(served_version(rooms, component, number, Stage.PRODUCTION))
        except HeadraceError:
            continue
    newest = max(shares)
    return Route(component, Stage.PRODUCTION, versions, shares, recall(rooms, component, newest).settings.serve)


def previous_champion(rooms: Rooms, component: str) -> int | None:
    """Return the version that served before the present one, or None.

    After a rollback from v3 to v2 the version to go back to is the one that served before v2, not v3; after one to
    nothing there is none. What was retired since is passed over.
    """
    retired = {entry.version for entry in rooms.ledger.select(component, {Action.RETIRED}, limit=100_000)}
    past: list[int] = []
    for entry in reversed(rooms.ledger.select(component, MOVES, limit=1000)):
        if entry.stage is not Stage.PRODUCTION:
            continue
        if entry.version is None:
            past = []
        elif entry.action is Action.PROMOTED:
            past = [number for number in past if number != entry.version] + [entry.version]
        elif entry.action is Action.ROLLED_BACK and entry.version in past:
            past = past[: past.index(entry.version) + 1]
        elif entry.action is Action.ROLLED_BACK:
            past.append(entry.version)
    past = [number for number in past if number not in retired]
    return past[-2] if len(past) > 1 else None


@contextmanager
def one_route_at_a_time(rooms: Rooms, component: str) -> Iterator[None]:
    """Hold the component's route, so that what is read from the ledger is still so when it is applied."""
    with locked(rooms.settings.locks / f"{component}.route"):
        yield


def has_moved(rooms: Rooms, flow: str) -> bool:
    """Tell whether a promotion has moved the traffic, or ended without."""
    return any(
        event.mark is Mark.ENDED or (event.step == "shift" and event.mark in (Mark.DONE, Mark.FAILED))
        for event in read_events(rooms.folder(flow))
    )


def is_moving(rooms: Rooms, serving: Entry) -> bool:
    """Tell whether the promotion that this entry decided is still moving the traffic."""
    is_under_way = serving.action is Action.PROMOTED and rooms.is_under_way(serving.key)
    return is_under_way and not has_moved(rooms, serving.key)


def shares_of(rooms: Rooms, serving: Entry) -> dict[int, float]:
    """Return what the versions get by the ledger: one gets everything, unless its canary is under way.

    A canary's shares stay as they are; where nothing serves them any more, they begin anew, as the canary itself does.
    """
    assert serving.version is not None
    whole = {serving.version: 1.0}
    if serving.from_version is None or not is_moving(rooms, serving):
        return whole
    release = recall(rooms, serving.component, serving.version).settings.release
    if release.strategy != "canary":
        return whole
    status = rooms.target.status(serving.component, Stage.PRODUCTION)
    if status is not None and serving.version in status.shares:
        return dict(status.shares)
    return canary_shares(serving.version, serving.from_version, release.steps[0])


def canary_shares(version: int, before: int, percent: int) -> dict[int, float]:
    """Return the shares of a canary's step."""
    return {version: 1.0} if percent == 100 else {version: percent / 100, before: 1 - percent / 100}


def settle(
    rooms: Rooms, component: str, *, warm: Sequence[int] = (), must_warm: int | None = None, over: str = ""
) -> Status | None:
    """Serve in production what the ledger says, with other versions kept warm; None where it says nothing.

    Every change of a route goes through here, so that no late step can bring back an older decision. The shares of a
    canary that is under way stay as they are.

    Args:
        warm: versions to keep loaded without traffic, where they can be.
        must_warm: a version that has to be loaded without traffic.
        over: the promotion whose canary is over, so that its version gets everything.

    Raises:
        ModelRefused, NotFound: what the ledger says, or `must_warm`, cannot be served; the route stays as it was.
    """
    with one_route_at_a_time(rooms, component):
        serving = rooms.ledger.serving(component, Stage.PRODUCTION)
        if serving is None or serving.version is None:
            return None
        if must_warm is not None:
            served_version(rooms, component, must_warm, Stage.PRODUCTION)
        kept = [*warm, *([] if must_warm is None else [must_warm])]
        shares = {serving.version: 1.0} if serving.key == over else shares_of(rooms, serving)
        return rooms.target.apply(production_route(rooms, component, shares, warm=kept))


def bring_up(rooms: Rooms, component: str) -> Status | None:
    """Serve in production what the ledger says, after a crash, a reboot, a repeat; None where it says nothing."""
    return settle(rooms, component, warm=kept_warm(rooms, component))


def kept_warm(rooms: Rooms, component: str) -> list[int]:
    """Return the champion before, where it is loaded, or served less than `release.keep_warm_s` ago."""
    before, serving = previous_champion(rooms, component), rooms.ledger.serving(component, Stage.PRODUCTION)
    if before is None or serving is None or serving.version is None:
        return []
    status = rooms.target.status(component, Stage.PRODUCTION)
    keep = timedelta(seconds=recall(rooms, component, serving.version).settings.release.keep_warm_s)
    is_kept = (status is not None and before in status.warm) or rooms.clock.now() - serving.at < keep
    return [before] if is_kept else []
