"""What is found out about a version after it was sealed, under signature: number, gate, acceptance, approval.

Each statement names the baseline's digest and the ledger's entry that it repeats. They lie beside the version's
baseline and among its run's artifacts. The ledger decides; a statement lets others check a decision with a public key.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.ledger.base import Action, Entry
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, recall, version_folder
from headrace.provenance.attest import Attestation, Kind, attest, read_attestation
from headrace.provenance.sign import own_signer, trusted_signers
from headrace.types import Json

log = logging.getLogger(__name__)

#: The decisions that are stated, and as what.
STATED = {
    Action.REGISTERED: Kind.VERSION,
    Action.GATED: Kind.GATE,
    Action.ACCEPTED: Kind.ACCEPTANCE,
    Action.APPROVED: Kind.APPROVAL,
    Action.PROMOTED: Kind.PROMOTION,
}


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements about one version, oldest first, and what is wrong with others, in sentences."""

    good: Sequence[Attestation]
    problems: Sequence[str] = field(default_factory=list)


def folder_of(rooms: Rooms, record: VersionRecord) -> Path:
    """Return where the statements about a version lie."""
    return version_folder(rooms, record.component, record.version) / "attestations"


def state_entry(rooms: Rooms, entry: Entry) -> None:
    """State a decision of the ledger, with its evidence; a repeat writes the same file again."""
    assert entry.version is not None
    record = recall(rooms, entry.component, entry.version)
    known: dict[str, Json] = {
        "version": entry.version,
        "reason": entry.reason,
        **({"stage": entry.stage.value, "from": entry.from_version} if entry.stage else {}),
        **entry.evidence,
        "ledger": {"sequence": entry.sequence, "hash": entry.hash},
    }
    state(rooms, record, STATED[entry.action], known, at=entry.at, actor=entry.actor.name)


def catch_up(rooms: Rooms, component: str, version: int) -> None:
    """State every decision about a version that a crash may have kept from being stated."""
    for entry in reversed(rooms.ledger.select(component, STATED, version=version, limit=1_000_000)):
        state_entry(rooms, entry)


def state(
    rooms: Rooms, record: VersionRecord, kind: Kind, facts: Mapping[str, Json], *, at: datetime, actor: str
) -> None:
    """Sign a statement about a version and keep it.

    MLflow's copy is caught up with the next statement where its server does not answer now: no decision waits for it.
    """
    folder = folder_of(rooms, record)
    before = len(list(folder.glob("*.json")))
    attest(
        Attestation(record.component, record.baseline, kind, at, actor, facts), folder, own_signer(rooms.settings.keys)
    )
    if not record.run_id or len(list(folder.glob("*.json"))) == before:
        return
    try:
        rooms.registry.upload(record.run_id, folder, "headrace/attestations")
    except HeadraceError as error:
        log.warning("The statements about %s v%d stay here for now: %s", record.component, record.version, error.fact)


def read(rooms: Rooms, record: VersionRecord) -> Statements:
    """Check every statement about a version, and that each decision of the ledger about it is stated."""
    trusted = trusted_signers(rooms.settings.keys)
    good, problems = [], []
    for path in sorted(folder_of(rooms, record).glob("*.json")):
        try:
            good.append(read_attestation(path, record.baseline, trusted))
        except HeadraceError as error:
            problems.append(error.fact)
    entries = {
        entry.hash: entry
        for entry in rooms.ledger.select(record.component, STATED, version=record.version, limit=1_000_000)
    }
    stated = {_hash(one): one for one in good if _hash(one)}
    problems += [
        f"`{one.kind.value}` of {one.at:%Y-%m-%d %H:%M} states an entry that the ledger does not have"
        for told, one in stated.items()
        if told not in entries
    ]
    problems += [
        f"no statement repeats the ledger's entry {entry.sequence} ({entry.action.value} by {entry.actor})"
        for told, entry in sorted(entries.items(), key=lambda item: item[1].sequence)
        if told not in stated
    ]
    return Statements(sorted(good, key=lambda one: one.at), problems)


def _hash(one: Attestation) -> str:
    ledger = one.facts.get("ledger")
    return str(ledger.get("hash", "")) if isinstance(ledger, dict) else ""
