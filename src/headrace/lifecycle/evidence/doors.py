"""The doors at which a version is checked against its baseline."""

from pathlib import Path

from headrace.config.component import CodePolicy, EnvironmentKind
from headrace.errors import Conflict
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, recall, version_folder
from headrace.provenance import sign, verify
from headrace.provenance.baseline import Baseline
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


def baseline_of(rooms: Rooms, record: VersionRecord) -> Baseline:
    """Return a version's baseline once its signature and digest were found right. Raises ModelRefused."""
    folder = version_folder(rooms, record.component, record.version) / "baseline"
    return verify.verify(folder, None, sign.trusted_signers(rooms.settings.keys), expected=record.baseline).baseline


def refuse_for_production(record: VersionRecord, baseline: Baseline) -> None:
    """Raise Conflict where a version may be tried out in dev and no more: made from what nobody can get again.

    What was adopted is not asked for its code: nobody checked where it came from.
    """
    name = f"Version {record.version} of {record.component}"
    if baseline.environment.kind == EnvironmentKind.INHERIT:
        raise Conflict(
            f"{name} was trained in the python that was at hand (`environment: inherit`), which anything may change.",
            "Write `environment: uv` in headrace.yaml and train again: headrace run",
        )
    code = baseline.code
    is_known = baseline.marks.get("code.commit") == "checked"
    if record.settings.code is CodePolicy.ALLOW_DEV and code.is_dirty and is_known:
        named = ", ".join(code.changed_files[:5]) or "all of it"
        raise Conflict(
            f"{name} was trained from code that no commit holds ({named}), under `code: allow-dev`.",
            "Commit it and train again: headrace run",
        )
