"""The doors: nothing is served that differs from its baseline.

    verify(baseline_folder, model_folder, trusted, expected) -> Verified   # raises ModelRefused, naming the files
    findings(baseline_folder, model_folder, trusted, expected) -> list[str]  # every one, for `headrace baseline verify`
    admit(baseline_folder, model_folder, store, trusted, expected) -> Admitted  # verified, read-only copies to serve

Files are digested and parsed as JSON; nothing is loaded or executed.
"""

from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ModelRefused
from headrace.files import sha256_file
from headrace.provenance.baseline import (
    BASELINE_SIGNATURE,
    DOCUMENT,
    GOLDEN,
    LOCK,
    MODEL_SIGNATURE,
    Baseline,
    read_baseline,
)
from headrace.provenance.digest import FolderDigest, differences, digest_folder
from headrace.provenance.envelope import Opened, open_bundle
from headrace.provenance.sign import Trusted
from headrace.provenance.store import ModelStore

_REMEDY = "Serve another version, or fetch this one's files again and repeat: headrace baseline verify"


@dataclass(frozen=True, slots=True)
class Verified:
    """A baseline that is what was signed."""

    baseline: Baseline
    digest: str
    signer: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may be served: read-only copies that were checked while they were made.

    Attributes:
        model: the model folder in the store; its name is its seal.
        golden: the folder of golden predictions, if the version has some.
        lock: the text of the version's lock.
    """

    verified: Verified
    model: Path
    golden: Path | None
    lock: str

    @property
    def seal(self) -> str:
        return self.verified.baseline.model.digest


def verify(baseline: Path, model: Path | None, trusted: Trusted, *, expected: str = "") -> Verified:
    """Check a baseline folder against its signature, and a model folder against the baseline.

    Args:
        model: None where the model's files are checked elsewhere (`ModelStore.admit`).
        expected: the baseline's digest as the ledger has it; empty where there is none to compare with.

    Raises:
        ModelRefused: something is missing, extra, changed, or signed by nobody who is trusted.
    """
    opened = _signed(baseline, BASELINE_SIGNATURE, trusted)
    _check_baseline_folder(baseline, opened)
    digest = sha256_file(baseline / DOCUMENT)
    if expected and digest != expected:
        raise ModelRefused(
            f"`{DOCUMENT}` is the baseline {digest[:12]}…, signed by {opened.signer.name}; "
            f"the ledger has {expected[:12]}… for this version",
            _REMEDY,
        )
    verified = Verified(read_baseline(baseline), digest, opened.signer.name)
    _check_parts(baseline, verified, trusted)
    if model is not None:
        _check(verified.baseline.model_digest, digest_folder(model), model, verified)
    return verified


def findings(baseline: Path, model: Path | None, trusted: Trusted, *, expected: str = "") -> list[str]:
    """Return all that is wrong, in sentences that name the file; empty where nothing is.

    What cannot be read hides nothing: the model is compared with the baseline as it stands, even if that was changed.
    """
    found = []
    try:
        verify(baseline, None, trusted, expected=expected)
    except ModelRefused as error:
        found.append(error.fact)
    try:
        if model is not None:
            gaps = differences(read_baseline(baseline).model_digest, digest_folder(model))
            found += [f"{gap} in {model}" for gap in gaps]
    except ModelRefused as error:
        found.append(error.fact)
    return list(dict.fromkeys(found))


def admit(baseline: Path, model: Path, store: ModelStore, trusted: Trusted, *, expected: str = "") -> Admitted:
    """Copy a version into the store, check it there, and return the copies that may be served.

    Raises:
        ModelRefused: as `verify`.
        Unavailable: the store cannot be written.
    """
    verify(baseline, None, trusted, expected=expected)
    kept = store.admit(baseline)
    verified = verify(kept, None, trusted, expected=expected)
    try:
        copy = store.admit(model, verified.baseline.model_digest)
    except ModelRefused as error:
        raise ModelRefused(f"{error.fact}; {_signed_by(verified)}", error.remedy) from error
    golden = kept / GOLDEN if verified.baseline.golden else None
    return Admitted(verified, copy, golden, (kept / LOCK).read_text())


def _signed(folder: Path, name: str, trusted: Trusted) -> Opened:
    try:
        raw = (folder / name).read_bytes()
    except OSError as error:
        raise ModelRefused(f"`{name}` is missing in {folder}: {error.strerror}", _REMEDY) from error
    return open_bundle(raw, trusted, name)


def _check_baseline_folder(folder: Path, opened: Opened) -> None:
    found = digest_folder(folder)
    without = FolderDigest({path: sha256 for path, sha256 in found.files.items() if path != BASELINE_SIGNATURE})
    gaps = differences(opened.files(), without)
    if gaps:
        sentences = "; ".join(str(gap) for gap in gaps[:5])
        raise ModelRefused(
            f"The baseline in {folder} does not fit its `{BASELINE_SIGNATURE}` by {opened.signer.name}: {sentences}",
            _REMEDY,
        )


def _check_parts(folder: Path, verified: Verified, trusted: Trusted) -> None:
    """Check that the parts of a baseline, each signed, belong to each other."""
    baseline = verified.baseline
    opened = _signed(folder, MODEL_SIGNATURE, trusted)
    gaps = differences(baseline.model_digest, opened.files())
    if gaps or baseline.model_digest.digest != baseline.model.digest:
        raise ModelRefused(f"`{MODEL_SIGNATURE}` signs another model than `{DOCUMENT}` names", _REMEDY)
    if sha256_file(folder / LOCK) != baseline.environment.lock:
        raise ModelRefused(f"`{LOCK}` is another lock than `{DOCUMENT}` names", _REMEDY)
    golden = dict(digest_folder(folder / GOLDEN).files) if (folder / GOLDEN).exists() else None
    if golden != (baseline.golden.files if baseline.golden else None):
        raise ModelRefused(f"`{GOLDEN}/` holds other predictions than `{DOCUMENT}` names", _REMEDY)


def _check(expected: FolderDigest, found: FolderDigest, folder: Path, verified: Verified) -> None:
    gaps = differences(expected, found)
    if gaps:
        sentences = "; ".join(str(gap) for gap in gaps[:5]) + (f"; and {len(gaps) - 5} more" if len(gaps) > 5 else "")
        raise ModelRefused(f"{folder} is not what its baseline says: {sentences}; {_signed_by(verified)}", _REMEDY)


def _signed_by(verified: Verified) -> str:
    return f"the baseline {verified.digest[:12]}… was signed by {verified.signer} on {verified.baseline.at[:10]}"
