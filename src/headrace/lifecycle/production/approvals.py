"""Approval: who lets an accepted version into production. Waiting is an entry in the ledger, not a thread.

A request is one entry, and its decision another under a key of its own: of two decisions at once, one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from headrace.config.component import Approval, Component
from headrace.errors import Conflict, HeadraceError, NotAllowed, NotFound
from headrace.ledger.base import Action, Draft, Entry
from headrace.lifecycle.evidence.statements import STATED, state_entry
from headrace.lifecycle.request import Cause, PromoteRequest, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event
from headrace.lifecycle.triggers.door import RETRAINING
from headrace.lifecycle.versions import recall, version_folder
from headrace.provenance.baseline import read_baseline
from headrace.types import Actor, Json, Stage

#: The stricter of two rules holds, so that no commit lifts the rule that it is under.
STRICTNESS = (Approval.AUTOMATIC, Approval.NEW_CODE, Approval.REQUIRED)
HEADRACE = Actor("headrace")


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether a version needs a person, and why."""

    is_needed: bool
    because: str


def rule(rooms: Rooms, component: str, version: int, cause: Cause) -> Rule:
    """Return whether this version needs a person's approval."""
    own = recall(rooms, component, version).settings.release.approval
    champion = _champion(rooms, component)
    ruling = own
    if champion is not None:
        theirs = recall(rooms, component, champion).settings.release.approval
        ruling = max(own, theirs, key=STRICTNESS.index)
    whose = "" if ruling is own else f" (so says v{champion}, which serves)"
    if ruling is Approval.REQUIRED:
        return Rule(True, f"approval is required{whose}")
    if ruling is Approval.AUTOMATIC:
        return Rule(False, "approval is automatic")
    if champion is None:
        return Rule(True, f"approval is required for new code{whose}, and nothing serves yet")
    if cause in RETRAINING and is_same_code(rooms, component, version, champion):
        return Rule(False, f"it was retrained on the code of v{champion}")
    return Rule(True, f"approval is required for new code{whose}")


def rule_for(rooms: Rooms, component: str, version: int, event: Event) -> Rule:
    """Return whether the promotion that a trigger asks for needs a person's approval.

    Who sends a trigger says who they are without proof; where approvers are named, one of them has to type it.
    """
    found = rule(rooms, component, version, event.trigger.cause)
    named = approvers(rooms, component, version)
    if named:
        return Rule(True, f"only {', '.join(named)} may decide")
    present = [number for number in (version, _champion(rooms, component)) if number is not None]
    may_tag = all(recall(rooms, component, number).settings.triggers.tags == "approve" for number in present)
    return Rule(False, "the tag approves it") if event.is_approval and may_tag else found


def is_same_code(rooms: Rooms, component: str, one: int, other: int) -> bool:
    """Tell whether two versions were made of the same commit with the same changes and parameters' defaults."""
    first, second = (
        read_baseline(version_folder(rooms, component, version) / "baseline").code for version in (one, other)
    )
    return (first.commit, first.diff, first.subfolder) == (second.commit, second.diff, second.subfolder)


def request(
    rooms: Rooms, component: str, version: int, trigger: Trigger, because: str, *, champion: int | None
) -> Entry:
    """Write that a version waits for a decision; a repeat returns the first entry.

    Args:
        champion: the version in whose place it is to serve; a request is overtaken once another serves.
    """
    promotion = PromoteRequest(component, version, champion, trigger)
    evidence: dict[str, Json] = {
        "because": because,
        "champion": promotion.expected,
        "cause": trigger.cause.value,
        "key": trigger.key,
        "flow": promotion.flow_id,
    }
    return rooms.ledger.append(
        Draft(
            component, Action.REQUESTED, Actor(trigger.actor), trigger.reason, f"{promotion.flow_id}/requested",
            version=version, baseline=recall(rooms, component, version).baseline, evidence=evidence,
        )
    )  # fmt: skip


def waiting(rooms: Rooms, component: str) -> Sequence[Entry]:
    """Return the requests that nobody has decided on, newest first."""
    asked = rooms.ledger.select(component, {Action.REQUESTED}, limit=50)
    return [entry for entry in asked if rooms.ledger.find(_decided(entry)) is None]


def decide(
    rooms: Rooms, component: str, version: int | None, *, actor: Actor, comment: str, action: Action
) -> tuple[Entry, PromoteRequest | None]:
    """Write a person's decision, and return it with the promotion that follows from an approval.

    Raises:
        NotFound: nothing waits, or not this version.
        NotAllowed: the component names approvers, and this is none of them.
        Conflict: several wait and none is named, somebody else has decided, or the champion is another by now.
    """
    entry = find(rooms, component, version)
    _check_may(rooms, entry, actor)
    champion = _champion(rooms, component)
    if action is Action.APPROVED and champion != entry.evidence["champion"]:
        raise Conflict(
            f"Version {entry.version} of {component} was judged against {_named(entry.evidence['champion'])}, and "
            f"{_named(champion)} serves by now.",
            "Train and judge it again with `headrace run`, or reject it.",
        )
    decided = rooms.ledger.append(_decision(entry, action, actor, comment))
    if (decided.action, decided.actor) != (action, actor):
        raise Conflict(f"Version {entry.version} of {component} was {decided.action.value} by {decided.actor} already.")
    if decided.action in STATED:
        state_entry(rooms, decided)
    return decided, promotion_of(entry, decided) if action is Action.APPROVED else None


def approved_by_hand(rooms: Rooms, component: str, version: int, actor: Actor, reason: str) -> None:
    """Say of an open request that a person has promoted the version directly."""
    for entry in waiting(rooms, component):
        if entry.version == version:
            draft = _decision(entry, Action.APPROVED, actor, reason)
            state_entry(rooms, rooms.ledger.append(replace(draft, evidence={**draft.evidence, "by_hand": True})))


def check_may_promote(rooms: Rooms, component: str, version: int, actor: Actor) -> None:
    """Raise NotAllowed where only named approvers may let a version into production."""
    allowed = approvers(rooms, component, version)
    if allowed and actor.name not in allowed:
        raise NotAllowed(
            f"{actor} may not decide on {component}; these may: {', '.join(allowed)}.",
            "Ask one of them, or change `release.approvers`.",
        )


def promotion_of(asked: Entry, approval: Entry) -> PromoteRequest:
    """Return the promotion that an approval starts; always the same one."""
    champion = asked.evidence["champion"]
    trigger = Trigger(
        Cause(str(asked.evidence["cause"])), str(asked.evidence["key"]), approval.actor.name,
        f"{asked.reason}; approved: {approval.reason}", {"request": asked.key},
    )  # fmt: skip
    assert asked.version is not None
    return PromoteRequest(asked.component, asked.version, champion if isinstance(champion, int) else None, trigger)


def tidy(rooms: Rooms, component: str) -> Sequence[PromoteRequest]:
    """Reject what waited too long or was overtaken; return approved promotions, of which a crash may have kept one."""
    champion = _champion(rooms, component)
    for entry in waiting(rooms, component):
        assert entry.version is not None
        within = _release_settings(rooms, component, entry.version).release.decide_within
        if champion != entry.evidence["champion"]:
            why = f"{_named(champion)} went to production meanwhile, and this was judged against another"
            rooms.ledger.append(_decision(entry, Action.REJECTED, HEADRACE, why))
        elif rooms.clock.now() - entry.at > timedelta(seconds=within):
            rooms.ledger.append(
                _decision(entry, Action.REJECTED, HEADRACE, f"nobody decided within {within / 3600:g} hours")
            )
    found = []
    for decided in rooms.ledger.select(component, {Action.APPROVED}, limit=5):
        asked = rooms.ledger.find(str(decided.evidence.get("request", "")))
        if asked is not None and not decided.evidence.get("by_hand"):
            found.append(promotion_of(asked, decided))
    return found


def approvers(rooms: Rooms, component: str, version: int) -> tuple[str, ...]:
    """Return who may decide; the champion's headrace.yaml says so, where there is one that names anybody."""
    return _release_settings(rooms, component, version).release.approvers


def _release_settings(rooms: Rooms, component: str, version: int) -> Component:
    champion = _champion(rooms, component)
    own = recall(rooms, component, version).settings
    if champion is None:
        return own
    try:
        theirs = recall(rooms, component, champion).settings
    except HeadraceError:
        return own
    return theirs if theirs.release.approvers else own


def _champion(rooms: Rooms, component: str) -> int | None:
    serving = rooms.ledger.serving(component, Stage.PRODUCTION)
    return serving.version if serving else None


def find(rooms: Rooms, component: str, version: int | None) -> Entry:
    """Return the request that waits. Raises NotFound where none does, Conflict where several do and none is named."""
    found = waiting(rooms, component)
    numbers = ", ".join(f"v{entry.version}" for entry in found) or "none"
    if version is None and len(found) > 1:
        raise Conflict(f"Several versions of {component} wait: {numbers}.", "Name one with --version.")
    for entry in found:
        if version in (None, entry.version):
            return entry
    what = "Nothing" if version is None else f"No version {version}"
    raise NotFound(
        f"{what} of {component} waits for approval (waiting: {numbers}).",
        f"See `headrace history {component}`.",
    )


def _check_may(rooms: Rooms, entry: Entry, actor: Actor) -> None:
    assert entry.version is not None
    check_may_promote(rooms, entry.component, entry.version, actor)


def _decision(asked: Entry, action: Action, actor: Actor, comment: str) -> Draft:
    return Draft(
        asked.component, action, actor, comment or f"{action.value} without a comment", _decided(asked),
        version=asked.version, baseline=asked.baseline, evidence={"request": asked.key},
    )  # fmt: skip


def _decided(asked: Entry) -> str:
    return f"{asked.key}/decided"


def _named(version: Json) -> str:
    return "nothing" if version is None else f"v{version}"
