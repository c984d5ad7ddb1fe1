"""Adopting a version that headrace did not train: digests are taken now, everything else is marked as stated."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

from headrace.config.component import Component
from headrace.environment.base import Lock
from headrace.errors import InvalidInput
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.evidence.doors import admit_version
from headrace.lifecycle.evidence.statements import state_entry
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember, version_folder
from headrace.provenance import baseline, sign
from headrace.provenance.code import Code
from headrace.registry.base import Version
from headrace.types import Actor

#: What nobody checked: it is as MLflow's run says, or as the model's own files say.
STATED = frozenset({"code", "parameters", "environment.kind", "environment.python", "run_id", "at"})


def adopt(rooms: Rooms, uri: str, component: Component, *, actor: Actor, reason: str) -> VersionRecord:
    """Seal a version that is in the registry already, so that it can be tried and compared; a repeat changes nothing.

    Args:
        uri: `models:/NAME/3`; the registered model must be named as the component is.
        component: how to serve it; its defaults where the project has no headrace.yaml.

    Raises:
        InvalidInput: `uri` names no version of the component.
        NotFound: the registry has no such version.
        ModelRefused: loading it would unpickle and that is not allowed, or it is no MLflow model.
        EnvironmentFailed: what its own python_env.yaml and requirements.txt name cannot be built.
    """
    found = re.fullmatch(r"models:/([^/@]+)/(\d+)", uri)
    if found is None or found[1] != component.component:
        raise InvalidInput(f"`{uri}` names no version of {component.component}.", "Write models:/NAME/3.")
    version = rooms.registry.version(found[1], int(found[2]))
    folder = version_folder(rooms, version.component, version.number)
    with tempfile.TemporaryDirectory(prefix="adopt-", dir=rooms.settings.home) as name:
        # A copy of what is registered: the files that the run logged stay as they are.
        model = rooms.registry.download(uri, Path(name) / "model")
        environments = rooms.environments(component.environment)
        lock = environments.lock(model, for_gpus=component.wants_gpus)
        environment = environments.build(lock, progress=lambda _: None)
        draft = replace(draft_of_registered(rooms, component, version, model, lock), actor=actor, reason=reason)
        sealed = baseline.seal(draft, folder / "baseline", sign.own_signer(rooms.settings.keys))
        admitted = admit_version(rooms, sealed.folder, model, expected=sealed.digest)
    record = VersionRecord(
        version.component, version.number, version.run_id, uri, str(admitted.model), admitted.seal,
        str(environment.python), sealed.digest, str(component.folder), component.as_json(),
    )  # fmt: skip
    remember(rooms, record)
    rooms.registry.tag_version(version.component, version.number, {"headrace.baseline": sealed.digest})
    entry = rooms.ledger.append(
        Draft(
            version.component, Action.REGISTERED, actor, f"adopted from {uri}: {reason}", f"adopt/{sealed.digest}",
            version=version.number, baseline=sealed.digest, evidence={"model": uri, "run": version.run_id},
        )
    )  # fmt: skip
    state_entry(rooms, entry)
    return record


def draft_of_registered(
    rooms: Rooms, component: Component, version: Version, model: Path, lock: Lock
) -> baseline.Draft:
    """Return what MLflow says about a version that headrace did not train."""
    run = rooms.registry.run(version.run_id) if version.run_id else None
    tags = run.tags if run else {}
    return baseline.Draft(
        component=version.component,
        at=rooms.clock.now(),
        actor=Actor("unknown"),
        run_id=version.run_id,
        model=model,
        code=Code(
            repository=tags.get("mlflow.source.git.repoURL") or tags.get("mlflow.source.name") or "not known",
            commit=tags.get("mlflow.source.git.commit", ""),
            branch=tags.get("mlflow.source.git.branch", ""),
            has_git="mlflow.source.git.commit" in tags,
        ),
        lock=lock.text,
        lock_digest=lock.digest,
        python=lock.python,
        environment_kind=component.environment.value,
        parameters=run.parameters if run else {},
        settings=component.as_json(),
        allow_pickle=component.allow_pickle,
        stated=STATED,
    )
