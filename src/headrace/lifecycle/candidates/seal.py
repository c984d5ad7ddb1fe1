"""Sealing: everything that a version is made of, tied together and signed before it is registered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.config.component import Component
from headrace.lifecycle.candidates.evaluate import Evaluated
from headrace.lifecycle.candidates.inputs import Held, check_still
from headrace.lifecycle.evidence.doors import admit_version
from headrace.lifecycle.request import CandidateRequest
from headrace.lifecycle.rooms import Rooms
from headrace.provenance import baseline, code, golden, sign
from headrace.registry.base import Run
from headrace.types import Actor


@dataclass(frozen=True, slots=True)
class SealedVersion:
    """What sealing left.

    Attributes:
        digest: of the baseline's core.
        folder: the signed baseline.
        model: the verified, read-only copy; seal: its digest.
        train_data: the file that it was trained on; empty where headrace.yaml names none.
    """

    digest: str
    folder: str
    model: str
    seal: str
    train_data: str


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a version is made of, as the steps before left it."""

    model: str
    run_id: str
    lock: str
    lock_digest: str
    python: str
    checkout: str


def seal_version(
    rooms: Rooms,
    request: CandidateRequest,
    component: Component,
    made_of: Ingredients,
    held: Mapping[str, Held],
    evaluated: Evaluated,
) -> SealedVersion:
    """Seal and sign the baseline, admit the model into the store, and keep the baseline with the run."""
    folder = rooms.place(request.flow_id)
    with rooms.journal(request.flow_id).step("seal", "signing the baseline") as note:
        check_still(held)
        run = rooms.registry.run(made_of.run_id)
        signer = sign.own_signer(rooms.settings.keys)
        draft = draft_of(rooms, request, component, made_of, held, evaluated, run)
        sealed = baseline.seal(draft, folder / "baseline", signer)
        admitted = admit_version(rooms, sealed.folder, Path(made_of.model), expected=sealed.digest)
        rooms.registry.upload(made_of.run_id, sealed.folder, "headrace/baseline")
        rooms.registry.log(
            made_of.run_id,
            metrics={f"holdout_{name}": value for name, value in evaluated.metrics.items()},
            tags={"headrace.baseline": sealed.digest},
        )
        note.found = f"baseline {sealed.digest[:12]}, {len(sealed.model.files)} model files, signed by {signer.name}"
        note.numbers = {"baseline": sealed.digest}
    train_data = draft.data["train"].uri if "train" in draft.data else ""
    return SealedVersion(sealed.digest, str(sealed.folder), str(admitted.model), admitted.seal, train_data)


def draft_of(
    rooms: Rooms,
    request: CandidateRequest,
    component: Component,
    made_of: Ingredients,
    held: Mapping[str, Held],
    evaluated: Evaluated,
    run: Run,
) -> baseline.Draft:
    """Return all that the baseline says."""
    source = code.checkout(Path(request.folder), Path(made_of.checkout), request.commit or None)
    return baseline.Draft(
        component=component.component,
        at=rooms.clock.now(),
        actor=Actor(request.trigger.actor),
        reason=request.trigger.reason,
        run_id=run.id,
        model=Path(made_of.model),
        code=source.code,
        lock=made_of.lock,
        lock_digest=made_of.lock_digest,
        python=made_of.python,
        environment_kind=component.environment.value,
        data={use: one.facts for use, one in held.items()},
        parameters=run.parameters,
        golden=golden.load(Path(evaluated.golden)),
        settings=component.as_json(),
        allow_pickle=component.allow_pickle,
    )
