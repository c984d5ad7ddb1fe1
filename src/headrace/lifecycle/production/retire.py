"""Retiring a version: it stays in the ledger and in MLflow, and is neither promoted nor gone back to any more."""

import logging

from headrace.errors import Conflict, HeadraceError, NotFound
from headrace.ledger.base import Action, Draft, Entry
from headrace.lifecycle.production import approvals
from headrace.lifecycle.production.reconcile import one_route_at_a_time, previous_champion
from headrace.lifecycle.rooms import Rooms
from headrace.types import Actor, Stage

LOG = logging.getLogger(__name__)
TAG = "headrace.retired"


def retire(rooms: Rooms, component: str, version: int, *, actor: Actor, reason: str) -> Entry:
    """Write that a version is not wanted any more; a repeat returns the first entry.

    Raises:
        NotFound: there is no such version.
        Conflict: it serves, is the one to go back to, or waits for approval; nothing was written.
    """
    if not rooms.ledger.select(component, {Action.REGISTERED}, version=version, limit=1):
        known = ", ".join(map(str, rooms.ledger.versions(component))) or "none"
        raise NotFound(
            f"{component} has no version {version} (it has: {known}).", f"See them with `headrace history {component}`."
        )
    # A promotion writes its entry under the same lock, so that no version is retired and promoted at once.
    with one_route_at_a_time(rooms, component):
        if (before := retirement(rooms, component, version)) is not None:
            return before
        _check_is_not_needed(rooms, component, version)
        entry = rooms.ledger.append(
            Draft(
                component, Action.RETIRED, actor, reason or "retired without a reason",
                f"{component}/v{version}/retired", version=version,
            )
        )  # fmt: skip
    try:
        rooms.registry.tag_version(component, version, {TAG: f"{actor}: {entry.reason}"})
    except HeadraceError as error:
        LOG.warning("MLflow was not told that v%d of %s is retired: %s", version, component, error.fact)
    return entry


def retirement(rooms: Rooms, component: str, version: int) -> Entry | None:
    """Return the entry that retired a version; None where it is not retired."""
    found = rooms.ledger.select(component, {Action.RETIRED}, version=version, limit=1)
    return found[0] if found else None


def check_is_not_retired(rooms: Rooms, component: str, version: int) -> None:
    """Raise Conflict where a version is retired."""
    entry = retirement(rooms, component, version)
    if entry is not None:
        raise Conflict(
            f"Version {version} of {component} was retired by {entry.actor} on {entry.at:%Y-%m-%d}: {entry.reason}.",
            "Promote another (`headrace history` shows them), or train it again with `headrace run`.",
        )


def _check_is_not_needed(rooms: Rooms, component: str, version: int) -> None:
    name = f"Version {version} of {component}"
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    if serving is not None and serving.version == version:
        raise Conflict(f"{name} is in production.", f"Promote another first: headrace promote {component} --version N")
    if previous_champion(rooms, component) == version:
        raise Conflict(
            f"{name} is the one that `headrace rollback {component}` would go back to.",
            "Retire it once another version has been in production, too.",
        )
    if any(entry.version == version for entry in approvals.waiting(rooms, component)):
        raise Conflict(
            f"{name} waits for approval.", f"Reject it first: headrace reject {component} --version {version}"
        )
