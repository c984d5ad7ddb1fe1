"""Going back: a ledger entry and a route swap, done directly. The old version was kept warm."""

from headrace.deploy.base import Status
from headrace.errors import Conflict
from headrace.ledger.base import Action, Draft, Entry
from headrace.lifecycle.production.reconcile import one_route_at_a_time, previous_champion, settle
from headrace.lifecycle.production.retire import check_is_not_retired
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall
from headrace.types import Actor, Stage


def roll_back(rooms: Rooms, component: str, *, to: int | None, actor: Actor, reason: str, key: str) -> Entry:
    """Serve an earlier champion; `to` is the one before the present where it is None. A repeat changes nothing.

    The alias follows from the ledger's outbox.

    Raises:
        Conflict: nothing serves, or there is nothing to go back to; production goes on as it is.
    """
    done = rooms.ledger.find(key)
    if done is not None:
        _finish(rooms, done)
        return done
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is None or serving.version is None:
        raise Conflict(
            f"Nothing of {component} is in production, so there is nothing to roll back.",
            f"Promote a version with `headrace promote {component} --version N`.",
        )
    goal = _goal(rooms, component, serving.version, to)
    record = recall(rooms, component, goal)
    if not _is_warm(rooms.target.status(component, Stage.PRODUCTION), goal):
        # Loading comes first where the goal is no longer warm, so that a version that cannot serve changes nothing.
        settle(rooms, component, must_warm=goal)
    with one_route_at_a_time(rooms, component):
        check_is_not_retired(rooms, component, goal)
        entry = rooms.ledger.move(
            Draft(
                component, Action.ROLLED_BACK, actor, reason, key,
                stage=Stage.PRODUCTION, version=goal, baseline=record.baseline,
            ),
            expected=serving.version,
        )  # fmt: skip
    settle(rooms, component, warm=[serving.version])
    return entry


def _finish(rooms: Rooms, entry: Entry) -> None:
    """Move the traffic where a crash came between a rollback's entry and its route."""
    serving = rooms.ledger.serving(entry.component, Stage.PRODUCTION)
    status = rooms.target.status(entry.component, Stage.PRODUCTION)
    is_there = status is not None and entry.version in status.shares
    if serving is not None and serving.sequence == entry.sequence and not is_there:
        settle(rooms, entry.component, warm=[] if entry.from_version is None else [entry.from_version])


def _goal(rooms: Rooms, component: str, present: int, to: int | None) -> int:
    if to == present:
        raise Conflict(f"Version {to} of {component} is in production already.")
    if to is not None:
        if not rooms.ledger.select(component, {Action.PROMOTED}, version=to, limit=1):
            raise Conflict(
                f"Version {to} of {component} was never in production.",
                f"Promote it with `headrace promote {component} --version {to}`.",
            )
        check_is_not_retired(rooms, component, to)
        return to
    before = previous_champion(rooms, component)
    if before is None:
        raise Conflict(
            f"Version {present} is the only one of {component} that was ever in production: "
            "there is nothing to go back to.",
            "Stop the endpoint with `headrace down`, or train a better version with `headrace run`.",
        )
    return before


def _is_warm(status: Status | None, version: int) -> bool:
    return status is not None and version in status.warm
