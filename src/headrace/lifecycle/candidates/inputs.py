"""The data that a version is trained and judged on, held fast: copied under its digest, or checked to be as it was.

hold(rooms, request, component, gathered) -> {use: Held}     # before training
check_still(rooms, request, held) -> None                    # after it: nothing was replaced meanwhile
copy_of(settings, facts) -> Path                             # where the copy of a baseline's data input lies
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.config.component import Component, DataInput, KeepData
from headrace.config.settings import Settings
from headrace.data.profile import profile
from headrace.data.tables import Description, describe
from headrace.errors import TrainingFailed, Unavailable
from headrace.files import sync_folder
from headrace.lifecycle.candidates.retrain import Gathered
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.rooms import Rooms
from headrace.provenance.baseline import DataFacts

#: Inputs of at most this size are copied where the component does not say.
AUTO_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Held:
    """One data input.

    Attributes:
        facts: for the baseline; `uri` is where the component has it.
        path: where it is to be read: its copy, if there is one.
    """

    facts: DataFacts
    path: str


def hold(rooms: Rooms, request: CandidateRequest, component: Component, gathered: Gathered) -> dict[str, Held]:
    """Digest every data input, and copy it where `data.keep` says so; a repeat finds the copies that are there."""
    used = used_inputs(component, gathered)
    if not used:
        return {}
    with rooms.journal(request.flow_id).step("data", f"digesting {', '.join(used)}") as note:
        held = {
            use: _hold(rooms.settings, Path(request.folder) / item.uri, item, component.data.keep)
            for use, item in used.items()
        }
        note.found = "; ".join(
            f"{use} {one.facts.rows} rows, {one.facts.sha256[:12]} ({one.facts.kept})" for use, one in held.items()
        )
    return held


def used_inputs(component: Component, gathered: Gathered) -> dict[str, DataInput]:
    """Return each data input by its use, as this training uses it."""
    named = {"train": component.data.train, "holdout": component.data.holdout, "golden": component.data.golden}
    used = {use: item for use, item in named.items() if item is not None}
    if gathered.train_data and component.data.train is not None:
        used["train"] = component.data.train.model_copy(update={"uri": gathered.train_data})
    if gathered.recent:
        label = component.data.train.label if component.data.train else None
        used["recent"] = DataInput(uri=gathered.recent, label=label)
    return used


def _hold(settings: Settings, path: Path, item: DataInput, keep: KeepData) -> Held:
    described = describe(path)
    is_copied = keep is KeepData.COPY or (keep is KeepData.AUTO and _bytes(path) <= AUTO_BYTES)
    facts = facts_of(path, described, item, kept="copy" if is_copied else "reference")
    if not is_copied:
        return Held(facts, str(path))
    copy = copy_of(settings, facts)
    if copy.exists() and describe(copy).sha256 != described.sha256:
        _drop(copy.parent)  # Somebody, or a lost disk block, changed what training would read.
    if not copy.exists():
        _copy(path, copy, described.sha256)
    return Held(facts, str(copy))


def facts_of(path: Path, described: Description, item: DataInput, *, kept: str) -> DataFacts:
    """Return what a baseline says about one data input."""
    return DataFacts(
        uri=str(path), sha256=described.sha256, rows=described.rows, columns=described.schema, profile=profile(path),
        label=item.label or "", kept=kept,
    )  # fmt: skip


def copy_of(settings: Settings, facts: DataFacts) -> Path:
    """Return where the copy of a data input lies; it has the name that training scripts know it by."""
    return settings.kept_data / facts.sha256 / Path(facts.uri).name


def check_still(held: Mapping[str, Held]) -> None:
    """Raise TrainingFailed where an input was replaced after it was digested: nobody knows what was read then."""
    for use, one in held.items():
        path = Path(one.facts.uri)
        was_read_from_copy = use == "train" and one.facts.kept == "copy"
        if not was_read_from_copy and describe(path).sha256 != one.facts.sha256:
            raise TrainingFailed(f"{path} ({use}) was replaced while the candidate was made.", "Run it again.")


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _copy(source: Path, to: Path, sha256: str) -> None:
    """Make a read-only copy, seen only when it is whole and what was described. Raises TrainingFailed, Unavailable."""
    to.parent.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=to.parent.parent, prefix=".copying-"))
    try:
        copied = temporary / to.name
        if source.is_dir():
            shutil.copytree(source, copied, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, copied)
        for file in [copied] if copied.is_file() else [path for path in copied.rglob("*") if path.is_file()]:
            file.chmod(0o444)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if describe(copied).sha256 != sha256:
            raise TrainingFailed(f"{source} was written to while it was copied.", "Repeat when nobody writes to it.")
        if not to.parent.exists():
            os.rename(temporary, to.parent)
            sync_folder(to.parent.parent)
    except OSError as error:
        raise Unavailable(
            f"{source} cannot be copied to {to.parent.parent}: {error.strerror}.",
            "Make room there, or write `data: {keep: reference}` in headrace.yaml.",
        ) from error
    finally:
        _drop(temporary)


def _drop(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
