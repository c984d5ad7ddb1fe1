"""The baseline: the immutable, signed core of one version.

    seal(draft, folder, signer) -> Sealed(digest, folder, model)
    read_baseline(folder) -> Baseline          # parsed, not verified: `verify` does that

A sealed folder holds `baseline.json` (canonical JSON; its SHA-256 is the baseline's digest), `lock.txt`, `golden/`,
`model.sig` (over the model's files) and `baseline.sig` (over all of the above). Both signatures are OpenSSF
model-signing's and can be checked with its own command line.
"""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import ModelRefused
from headrace.files import canonical_json, sha256_file, sync_folder
from headrace.provenance import golden as golden_files
from headrace.provenance.code import Code
from headrace.provenance.digest import FolderDigest, digest_folder
from headrace.provenance.envelope import sign_folder
from headrace.provenance.formats import check_formats
from headrace.provenance.sign import Signer
from headrace.provenance.tensors import tensor_digest
from headrace.registry.mlmodel import read_mlmodel
from headrace.types import Actor, Golden, Json

SCHEMA = "headrace/baseline/1"
DOCUMENT = "baseline.json"
LOCK = "lock.txt"
GOLDEN = "golden"
MODEL_SIGNATURE = "model.sig"
BASELINE_SIGNATURE = "baseline.sig"
#: What people say and nothing proves.
ALWAYS_STATED = frozenset({"actor", "reason", "code.repository", "code.branch"})
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*==\s*([^\s;\\]+)", re.MULTILINE)


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what goes into a baseline: immutable, unknown fields refused."""


class CodeFacts(_Facts, frozen=True):
    """See `code.Code`."""

    repository: str
    commit: str = ""
    branch: str = ""
    subfolder: str = ""
    has_git: bool = False
    is_dirty: bool = False
    is_dirty_elsewhere: bool = False
    is_shallow: bool = False
    is_detached: bool = False
    diff: str = ""
    changed_files: list[str] = []


class DataFacts(_Facts, frozen=True):
    """One data input, as training read it.

    Attributes:
        rows: None where it has no rows that can be counted.
        columns: name to type.
        profile: column to a few numbers about it, such as its mean.
        kept: `reference` (the URI, checked against the digest when it is read again) or `copy`.
    """

    uri: str
    sha256: str
    rows: int | None = None
    columns: dict[str, str] = {}
    profile: dict[str, dict[str, float]] = {}
    label: str = ""
    kept: str = "reference"


class EnvironmentFacts(_Facts, frozen=True):
    """What the version was trained in and is served in.

    Attributes:
        digest: the lock's; the name of the environment.
        platform: as `this_platform` says it.
        lock: SHA-256 of `lock.txt`.
        packages: distribution to version, from the lock.
    """

    kind: str
    digest: str
    python: str
    platform: str
    lock: str
    packages: dict[str, str] = {}


class ModelFacts(_Facts, frozen=True):
    """The model's files.

    Attributes:
        digest: of the folder, see `digest.FolderDigest`; the seal that a worker checks.
        pickled: files that loading unpickles; empty unless the component allows it.
        tensors: canonical digest over name, dtype, shape and bytes of all tensors; empty where it was not taken.
    """

    digest: str
    files: dict[str, str]
    formats: list[str]
    pickled: list[str] = []
    worker_variables: dict[str, str] = {}
    signature: dict[str, Any] | None = None
    tensors: str = ""


class GoldenFacts(_Facts, frozen=True):
    """The golden predictions in `golden/`."""

    files: dict[str, str]
    rows: int
    tolerance: float


class Baseline(_Facts, frozen=True):
    """The core. Its digest is the SHA-256 of its canonical JSON.

    Attributes:
        marks: field to `checked` (headrace computed or compared it) or `stated` (somebody said so).
        settings: headrace.yaml as it was.
    """

    schema: str
    component: str
    at: str
    actor: str
    reason: str
    run_id: str
    code: CodeFacts
    data: dict[str, DataFacts]
    parameters: dict[str, str]
    environment: EnvironmentFacts
    model: ModelFacts
    golden: GoldenFacts | None
    settings: dict[str, Any]
    marks: dict[str, str]

    @property
    def model_digest(self) -> FolderDigest:
        return FolderDigest(self.model.files)

    def as_json(self) -> dict[str, Json]:
        document: dict[str, Json] = msgspec.to_builtins(self)
        return document


@dataclass(frozen=True, slots=True)
class Draft:
    """What a baseline is sealed from.

    Attributes:
        data: use (`train`, `holdout`, …) to facts.
        environment_kind: `uv`, `inherit` or `docker`; with `lock` (its text), `lock_digest` and `python` from the lock.
        stated: fields that were not checked, beyond those that never are (an adopted version has many).
        tensors: the canonical tensor digest; empty takes it now.
    """

    component: str
    at: datetime
    actor: Actor
    run_id: str
    model: Path
    code: Code
    lock: str
    lock_digest: str
    python: str
    environment_kind: str = "uv"
    reason: str = ""
    data: Mapping[str, DataFacts] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    golden: Golden | None = None
    settings: Mapping[str, Json] = field(default_factory=dict)
    allow_pickle: bool = False
    tensors: str = ""
    stated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed baseline: its digest, its folder, and the digest of the model that it speaks of."""

    digest: str
    folder: Path
    model: FolderDigest


def this_platform() -> str:
    """Return the machine that this runs on, in a word, such as `Linux-x86_64`."""
    return f"{platform.system()}-{platform.machine()}"


def packages(lock: str) -> dict[str, str]:
    """Return the pinned distributions of a lock file, name to version."""
    return dict(sorted((name.lower(), version) for name, version in _PINNED.findall(lock)))


def seal(draft: Draft, folder: Path, signer: Signer) -> Sealed:
    """Write and sign the baseline of a model; a repeat returns what was sealed in that folder first.

    Raises:
        ModelRefused: the model would unpickle and that is not allowed, is no MLflow model, or holds links.
    """
    if (folder / BASELINE_SIGNATURE).is_file():
        baseline = read_baseline(folder)
        return Sealed(sha256_file(folder / DOCUMENT), folder, baseline.model_digest)
    formats = check_formats(draft.model, allow_pickle=draft.allow_pickle)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        (temporary / LOCK).write_text(draft.lock)
        golden = _keep_golden(draft.golden, temporary / GOLDEN)
        model = digest_folder(draft.model)
        signature = read_mlmodel(draft.model).signature
        facts = ModelFacts(
            digest=model.digest,
            files=dict(model.files),
            formats=list(formats.names),
            pickled=[item.file for item in formats.pickled],
            worker_variables=dict(formats.worker_variables),
            signature=msgspec.to_builtins(asdict(signature)) if signature else None,
            tensors=draft.tensors or tensor_digest(draft.model),
        )
        baseline = _baseline(draft, facts, golden, sha256_file(temporary / LOCK))
        (temporary / DOCUMENT).write_bytes(canonical_json(baseline.as_json()))
        digest = sha256_file(temporary / DOCUMENT)
        sign_folder(draft.model, temporary / MODEL_SIGNATURE, signer)
        sign_folder(temporary, temporary / BASELINE_SIGNATURE, signer)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Sealed(digest, folder, model)


def _keep_golden(golden: Golden | None, folder: Path) -> GoldenFacts | None:
    if golden is None:
        return None
    golden_files.save(golden, folder)
    rows = len(next(iter(golden.inputs.values()), ()))
    return GoldenFacts(files=dict(digest_folder(folder).files), rows=rows, tolerance=golden.tolerance)


def _baseline(draft: Draft, model: ModelFacts, golden: GoldenFacts | None, lock: str) -> Baseline:
    unmarked = Baseline(
        schema=SCHEMA,
        component=draft.component,
        at=draft.at.isoformat(timespec="microseconds"),
        actor=draft.actor.name,
        reason=draft.reason,
        run_id=draft.run_id,
        code=msgspec.convert(draft.code.as_json(), CodeFacts),
        data=dict(draft.data),
        parameters=dict(draft.parameters),
        environment=EnvironmentFacts(
            kind=draft.environment_kind,
            digest=draft.lock_digest,
            python=draft.python,
            platform=this_platform(),
            lock=lock,
            packages=packages(draft.lock),
        ),
        model=model,
        golden=golden,
        settings=dict(draft.settings),
        marks={},
    )
    return msgspec.structs.replace(unmarked, marks=_marks(unmarked, draft.stated | ALWAYS_STATED))


def _marks(baseline: Baseline, stated: frozenset[str]) -> dict[str, str]:
    """Return the mark of each field; naming a section in `stated` marks all of it."""
    sections = {"code": baseline.code, "environment": baseline.environment, "model": baseline.model}
    fields = [f"{name}.{part}" for name, facts in sections.items() for part in facts.__struct_fields__]
    fields += [f"data.{use}.{part}" for use in baseline.data for part in DataFacts.__struct_fields__]
    fields += ["actor", "reason", "at", "run_id", "parameters", "settings", *(["golden"] if baseline.golden else [])]
    return {name: "stated" if _is_stated(name, stated) else "checked" for name in sorted(fields)}


def _is_stated(name: str, stated: frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[: count + 1]) in stated for count in range(len(parts)))


def read_baseline(folder: Path) -> Baseline:
    """Return the baseline in a folder, as it stands there; `verify` says whether it is the one that was signed.

    Raises:
        ModelRefused: it is missing or not what `seal` writes.
    """
    path = folder / DOCUMENT
    try:
        raw = path.read_bytes()
        baseline = msgspec.json.decode(raw, type=Baseline)
        if baseline.schema != SCHEMA or canonical_json(baseline.as_json()) != raw:
            raise ValueError(f"schema {baseline.schema}, or not in canonical form")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ModelRefused(f"`{DOCUMENT}` in {folder} cannot be read: {error}", "Fetch the baseline again") from error
    return baseline
