"""How entries are chained: each carries the hash of the one before. Pure, so that every back end chains alike."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from headrace.errors import Conflict, InvalidInput
from headrace.files import sha256_json
from headrace.ledger.base import MOVES, Draft, Entry, Verification
from headrace.types import Json

FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a component's chain; sequence 0 where there is none."""

    sequence: int = 0
    hash: str = FIRST


def as_json(entry: Entry) -> dict[str, Json]:
    """Return an entry as the document that its hash is taken over, without the hash itself."""
    return {
        "component": entry.component,
        "sequence": entry.sequence,
        "at": entry.at.isoformat(timespec="microseconds"),
        "action": entry.action.value,
        "actor": entry.actor.name,
        "reason": entry.reason,
        "key": entry.key,
        "stage": entry.stage.value if entry.stage else None,
        "version": entry.version,
        "from_version": entry.from_version,
        "baseline": entry.baseline,
        "evidence": dict(entry.evidence),
        "previous": entry.previous,
    }


def link(draft: Draft, head: Head, *, at: datetime, from_version: int | None = None) -> Entry:
    """Return the entry that follows `head`.

    Raises:
        InvalidInput: the evidence holds a number that JSON has no word for.
    """
    entry = Entry(
        component=draft.component,
        sequence=head.sequence + 1,
        at=at,
        action=draft.action,
        actor=draft.actor,
        reason=draft.reason,
        key=draft.key,
        stage=draft.stage,
        version=draft.version,
        from_version=from_version,
        baseline=draft.baseline,
        evidence=dict(draft.evidence),
        previous=head.hash,
        hash="",
    )
    try:
        return replace(entry, hash=sha256_json(as_json(entry)))
    except ValueError as error:
        raise InvalidInput(
            f"The evidence of `{draft.action}` for {draft.component} holds a number that is NaN or infinite",
            "Leave it out of the evidence, or write it as text",
        ) from error


def check_is_move(draft: Draft) -> None:
    """Refuse a draft that cannot be moved by; a mistake of the caller, not of a user."""
    if draft.action not in MOVES or draft.stage is None:
        raise ValueError(f"`{draft.action}` with stage {draft.stage} moves nothing; use `append`")


def check_is_no_move(draft: Draft) -> None:
    """Refuse a draft that would change a stage without compare-and-swap."""
    if draft.action in MOVES:
        raise ValueError(f"`{draft.action}` changes what serves; use `move`")


def check_expected(draft: Draft, *, expected: int | None, serving: Entry | None) -> None:
    """Raise Conflict where another version than `expected` serves."""
    found = serving.version if serving else None
    if found == expected:
        return
    by = f" (by {serving.actor}, {serving.at:%Y-%m-%d %H:%M:%S} UTC: {serving.reason})" if serving else ""
    raise Conflict(
        f"{named(found)} of {draft.component} serves in {draft.stage} by now{by}, not {named(expected).lower()}; "
        "nothing was changed",
        f"Look with `headrace history {draft.component}`, then ask for the promotion again",
    )


def named(version: int | None) -> str:
    """Return a version in words."""
    return "No version" if version is None else f"Version {version}"


def check_chain(component: str, entries: Iterable[Entry], head: Head) -> Verification:
    """Recompute a chain from its first entry on; `head` is what the back end believes to be the newest."""
    before = Head()
    for entry in entries:
        problem = _problem(entry, before)
        if problem:
            return Verification(component, before.sequence, before.hash, problem)
        before = Head(entry.sequence, entry.hash)
    if before != head:
        return Verification(
            component,
            before.sequence,
            before.hash,
            f"the chain ends at entry {before.sequence}, not at {head.sequence}",
        )
    return Verification(component, before.sequence, before.hash)


def _problem(entry: Entry, before: Head) -> str:
    if entry.sequence != before.sequence + 1:
        return f"entry {before.sequence + 1} is missing: {entry.sequence} follows {before.sequence}"
    if entry.previous != before.hash:
        return f"entry {entry.sequence} does not continue entry {before.sequence}"
    if sha256_json(as_json(entry)) != entry.hash:
        when = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"
        return f"entry {entry.sequence} ({entry.action}, {when}) was changed after it was written"
    return ""
