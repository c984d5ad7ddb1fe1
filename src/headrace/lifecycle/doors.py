"""The doors at which a version is checked against its baseline."""

from pathlib import Path

from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import recall, version_folder
from headrace.provenance import sign, verify
from headrace.provenance.store import ModelStore


def admit_version(rooms: Rooms, baseline: Path, model: Path, *, expected: str) -> verify.Admitted:
    """Return the checked, read-only copies that may be served. Raises ModelRefused naming what differs."""
    trusted = sign.trusted_signers(rooms.settings.keys)
    return verify.admit(baseline, model, ModelStore(rooms.settings.models), trusted, expected=expected)


def verify_version(rooms: Rooms, component: str, version: int, *, model: Path | None = None) -> verify.Verified:
    """Recompute every digest of a version; `model` is another copy of its model folder to check instead.

    Raises:
        NotFound: no record of the version.
        ModelRefused: something differs from the baseline; the message names the file.
    """
    record = recall(rooms, component, version)
    return verify.verify(
        version_folder(rooms, component, version) / "baseline",
        model or Path(record.model),
        sign.trusted_signers(rooms.settings.keys),
        expected=record.baseline,
    )
