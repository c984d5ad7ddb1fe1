"""Environments of versions and of the place at hand: how they differ, which are needed, and how a lost one comes back.

surroundings(rooms, name) -> Surroundings           # of a version, or of `here`
differences(one, other) -> list[str]                # "torch 2.13.0 at training, 2.12.1 here"
users(settings, ledger_of) -> {digest: versions}    # what must be kept, over all homes of this installation
restore(rooms, record) -> Restored                  # model copy and environment of one version
"""

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.config.component import EnvironmentKind
from headrace.config.settings import Settings
from headrace.environment.base import Lock
from headrace.environment.distributions import installed
from headrace.environment.inherit import InheritedEnvironments
from headrace.environment.uv import READY
from headrace.errors import Conflict, EnvironmentFailed, HeadraceError, ModelRefused
from headrace.ledger.base import MOVES, Action, Ledger
from headrace.lifecycle.evidence.doors import admit_version
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import RECORD, VersionRecord, version_folder
from headrace.provenance.baseline import LOCK, Baseline, this_platform
from headrace.provenance.compare import compare_packages
from headrace.provenance.digest import digest_folder
from headrace.provenance.store import ModelStore
from headrace.types import Json

HERE = "here"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A Python and what it has installed.

    Attributes:
        name: `at training`, `in v3` or `here`, as a sentence about a difference ends.
        of: what it belongs to: a version, or the interpreter's path.
    """

    name: str
    of: str
    python: str
    platform: str
    packages: Mapping[str, str]


def of_version(record: VersionRecord, baseline: Baseline) -> Surroundings:
    """Return what a version was trained in, from its verified baseline."""
    facts = baseline.environment
    of = f"{record.component} v{record.version}"
    return Surroundings(f"in v{record.version}", of, facts.python, facts.platform, facts.packages)


def here(settings: Settings) -> Surroundings:
    """Return what the interpreter at hand has: the activated environment's, else the first `python` on PATH.

    Raises:
        EnvironmentFailed: there is none, or it does not run.
    """
    python = InheritedEnvironments(settings).python()
    try:
        found = installed(python, settings.child_environment())
    except EnvironmentFailed as error:
        raise EnvironmentFailed(error.fact, "Put a working `python` first on PATH.") from error
    return Surroundings(HERE, str(python), found.python, this_platform(), found.packages)


def differences(one: Surroundings, other: Surroundings) -> list[str]:
    """Return one sentence for each difference, those that change answers first; a version and `here` are compared
    as training and serving are."""
    sides = [one, other]
    if HERE in (one.name, other.name):
        sides = [side if side.name == HERE else replace(side, name="at training") for side in sides]
    one, other = sides
    found = compare_packages(one.packages, other.packages, names=(one.name, other.name))
    if one.python != other.python:
        found.insert(0, f"Python {one.python} {one.name}, {other.python} {other.name}")
    if one.platform != other.platform:
        found.insert(0, f"platform {one.platform} {one.name}, {other.platform} {other.name}")
    return found


@dataclass(frozen=True, slots=True)
class Use:
    """An environment below the state folder, and the versions that may be served from it again, as `home: NAME/vN`."""

    digest: str
    python: str
    packages: int
    last_used: float
    versions: tuple[str, ...]


def environments(settings: Settings, needed: Mapping[str, tuple[str, ...]]) -> list[Use]:
    """Return the environments that are there, the last used first."""
    found = []
    for mark in settings.environments.glob(f"*/{READY}"):
        facts: dict[str, Json] = json.loads(mark.read_text() or "{}")
        digest = mark.parent.name
        found.append(
            Use(
                digest, str(facts.get("python", "")), int(str(facts.get("packages", 0))), mark.stat().st_mtime,
                needed.get(digest, ()),
            )
        )  # fmt: skip
    return sorted(found, key=lambda use: -use.last_used)


def needed(settings: Settings, ledger_of: Callable[[Settings], Ledger]) -> dict[str, tuple[str, ...]]:
    """Return the digest of each environment that a version of any home needs, and these versions.

    A version needs its environment unless the ledger of its home says that it is not wanted. A home that is gone needs
    nothing, and one whose ledger cannot be read (of another schema, say) needs all that it has.

    Args:
        ledger_of: opens the ledger of a home.
    """
    found: dict[str, list[str]] = {}
    for home in settings.homes():
        at_home = replace(settings, home=home)
        records = [json.loads(path.read_text()) for path in sorted((home / "versions").glob(f"*/v*/{RECORD}"))]
        if not records:
            continue
        refused = _unwanted_at(at_home, ledger_of, {str(record["component"]) for record in records})
        for record in records:
            python = Path(record["python"])
            is_ours = python.is_relative_to(settings.environments)
            if is_ours and (record["component"], record["version"]) not in refused:
                digest = python.relative_to(settings.environments).parts[0]
                found.setdefault(digest, []).append(f"{home}: {record['component']}/v{record['version']}")
    return {digest: tuple(versions) for digest, versions in found.items()}


def _unwanted_at(
    settings: Settings, ledger_of: Callable[[Settings], Ledger], components: Collection[str]
) -> set[tuple[str, int]]:
    try:
        ledger = ledger_of(settings)
        return {(component, number) for component in components for number in unwanted(ledger, component)}
    except HeadraceError:
        return set()


def unwanted(ledger: Ledger, component: str) -> frozenset[int]:
    """Return the versions that were retired, or refused and never in production since."""
    entries = ledger.select(component, {*MOVES, Action.REFUSED, Action.RETIRED}, limit=1_000_000)
    of = {action: {entry.version for entry in entries if entry.action is action} for action in Action}
    served = of[Action.PROMOTED] | of[Action.ROLLED_BACK]
    return frozenset(number for number in of[Action.REFUSED] - served | of[Action.RETIRED] if number is not None)


@dataclass(frozen=True, slots=True)
class Restored:
    """What was brought back; empty texts where it was there."""

    model: str
    environment: str


def is_changed(copy: Path, baseline: Baseline) -> bool:
    """Tell whether a model copy is there and is not what the baseline says."""
    try:
        return copy.is_dir() and digest_folder(copy, strict=True).digest != baseline.model.digest
    except ModelRefused:  # Not even its files can be read as plain files.
        return True


def restore(rooms: Rooms, record: VersionRecord, baseline: Baseline, *, tell: Callable[[str], None]) -> Restored:
    """Bring back what serving a version needs: its model copy from the registry, its environment from its lock.

    A model copy that is not what was sealed is set aside first.

    Raises:
        ModelRefused: what the registry has is not what was sealed; the message names the file.
        Conflict: its environment was the interpreter at hand, which nobody can build again.
        EnvironmentFailed, Unavailable: as for any environment.
    """
    folder = version_folder(rooms, record.component, record.version) / "baseline"
    model, environment = "", ""
    store = ModelStore(rooms.settings.models)
    if Path(record.model).parent == store.folder and is_changed(Path(record.model), baseline):
        place = store.set_aside(Path(record.model).name)
        tell(f"the copy in {record.model} was changed; it lies in {place} now, until `headrace gc`")
    if not Path(record.model).is_dir():
        tell(f"fetching {record.model_uri}")
        with tempfile.TemporaryDirectory(prefix="restore-", dir=rooms.settings.home) as name:
            fetched = rooms.registry.download(record.model_uri, Path(name) / "model")
            model = str(admit_version(rooms, folder, fetched, expected=record.baseline).model)
    if not Path(record.python).exists():
        facts = baseline.environment
        if facts.kind == EnvironmentKind.INHERIT:
            raise Conflict(
                f"{record.component} v{record.version} was trained in {record.python}, which is gone.",
                "Train it again with `environment: uv` in headrace.yaml.",
            )
        lock = Lock(facts.digest, (folder / LOCK).read_text(), facts.python)
        environment = str(rooms.environments(EnvironmentKind(facts.kind)).build(lock, progress=tell).python)
    return Restored(model, environment)
