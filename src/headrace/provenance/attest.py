"""Attestations: what is found out about a version after its baseline was sealed, as signed in-toto statements.

    attest(Attestation(...), folder, signer) -> Path     # <folder>/<kind>.<digest>.json
    read_attestations(folder, core, trusted) -> list[Attestation]

Each names the core's digest, so that it cannot be moved to another version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from headrace.errors import ModelRefused
from headrace.files import sha256_json, write_atomically
from headrace.provenance.digest import open_plain
from headrace.provenance.envelope import open_bundle, sign_statement
from headrace.provenance.sign import Signer, Trusted
from headrace.types import Json

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:headrace:attestation:{kind}:1"


class Kind(StrEnum):
    """What is attested."""

    VERSION = "version"
    GATE = "gate"
    IMAGE = "image"
    ACCEPTANCE = "acceptance"
    APPROVAL = "approval"
    PROMOTION = "promotion"
    REPRODUCED = "reproduced"


@dataclass(frozen=True, slots=True)
class Attestation:
    """One statement about a version.

    Attributes:
        core: the baseline's digest.
        facts: what was found, such as verdict and metrics.
        signer: who signed it; empty for one that is still to be signed.
    """

    component: str
    core: str
    kind: Kind
    at: datetime
    actor: str
    facts: Mapping[str, Json] = field(default_factory=dict)
    signer: str = ""

    def in_short(self) -> str:
        """Return what it says in a few words: the verdict and its metrics, or the reason."""
        facts = self.facts
        metrics = facts.get("metrics")
        told = [str(facts[name]) for name in ("verdict", "likeness") if facts.get(name)]
        if isinstance(metrics, dict):
            told += [f"{name} {float(str(value)):.4g}" for name, value in metrics.items()]
        told += [str(facts["image"])[:19]] if self.kind is Kind.IMAGE and "image" in facts else []
        told += [f"version {facts['version']}"] if self.kind is Kind.VERSION and "version" in facts else []
        return ", ".join(told) or str(facts.get("reason", ""))

    def as_json(self) -> dict[str, Json]:
        return {
            "component": self.component,
            "baseline": self.core,
            "kind": self.kind.value,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "facts": dict(self.facts),
            "signer": self.signer,
        }


def attest(attestation: Attestation, folder: Path, signer: Signer) -> Path:
    """Sign a statement and keep it; a repeat of the same statement returns the file that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    statement: dict[str, Json] = {
        "_type": STATEMENT,
        "subject": [{"name": f"{attestation.component}/baseline.json", "digest": {"sha256": attestation.core}}],
        "predicateType": PREDICATE.format(kind=attestation.kind.value),
        "predicate": {
            "component": attestation.component,
            "at": attestation.at.isoformat(timespec="microseconds"),
            "actor": attestation.actor,
            "facts": dict(attestation.facts),
        },
    }
    key = sha256_json(statement)[:12]
    path = folder / f"{attestation.kind.value}.{key}.json"
    if not path.exists():
        write_atomically(path, sign_statement(statement, signer), mode=0o644)
    return path


def read_attestations(folder: Path, core: str, trusted: Trusted) -> Sequence[Attestation]:
    """Return the statements in a folder, oldest first.

    Raises:
        ModelRefused: one was changed, was signed by nobody who is trusted, or is about another version.
    """
    found = [read_attestation(path, core, trusted) for path in folder.glob("*.json")]
    return sorted(found, key=lambda attestation: attestation.at)


def read_attestation(path: Path, core: str, trusted: Trusted) -> Attestation:
    """Return one statement. Raises ModelRefused as `read_attestations`."""
    with open_plain(path.parent, path.name) as file:
        opened = open_bundle(file.readall(), trusted, path.name)
    statement = opened.statement
    try:
        [subject] = statement["subject"]
        about = subject["digest"]["sha256"]
        kind = Kind(statement["predicateType"].split(":")[3])
        predicate = statement["predicate"]
        attestation = Attestation(
            component=predicate["component"],
            core=about,
            kind=kind,
            at=datetime.fromisoformat(predicate["at"]),
            actor=predicate["actor"],
            facts=predicate["facts"],
            signer=opened.signer.name,
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ModelRefused(f"`{path.name}` is no attestation of headrace", "Remove the file") from error
    if about != core:
        raise ModelRefused(
            f"`{path.name}` is about the baseline {about[:12]}…, not about {core[:12]}…",
            "Move it back to the version that it belongs to",
        )
    return attestation
