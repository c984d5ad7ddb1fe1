"""A candidate, from its trigger to the decision. Promotion is a flow of its own, so that nothing waits on a thread."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from headrace.acceptance.http import accept
from headrace.client import bearer
from headrace.config.component import Component
from headrace.deploy.base import Route, Status
from headrace.errors import AcceptanceFailed, Conflict, GateFailed, HeadraceError
from headrace.evaluation.gate import judge
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.candidates.evaluate import load_rows, signature_of
from headrace.lifecycle.candidates.train import Trained
from headrace.lifecycle.durable import Durable, Role
from headrace.lifecycle.evidence.doors import baseline_of, refuse_for_production, verify_version
from headrace.lifecycle.evidence.preflight import measured
from headrace.lifecycle.evidence.readiness import explained, look
from headrace.lifecycle.evidence.statements import state, state_entry
from headrace.lifecycle.production import approvals
from headrace.lifecycle.request import CandidateRequest, Outcome, PromoteRequest, State
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, recall, remember, served_version, version_folder
from headrace.provenance import golden
from headrace.provenance.attest import Kind
from headrace.types import Actor, Json, Stage, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """What the flow came to."""

    state: State
    fact: str
    promotion: PromoteRequest | None = None


def candidate(durable: Durable, rooms: Rooms, request: CandidateRequest) -> Outcome:
    """The flow: train, register, gate, try out in dev, decide."""
    phase = "take-in" if request.version else "train"
    trained = cast("Trained", durable.on(Role.TRAIN, phase, request, label=request.runs_on))
    version = durable.step("register", register, rooms, request, trained)
    durable.step("gate", gate, rooms, request, trained, version)
    durable.on(Role.SERVE, "try-out", request, trained, version)
    decision = durable.step("decide", decide, rooms, request, trained, version)
    if decision.promotion:
        durable.start("promote", decision.promotion.flow_id, decision.promotion)
    return Outcome(
        request.flow_id, request.component, decision.state, version, fact=decision.fact,
        evidence={
            "run": trained.run.run_id, "baseline": trained.sealed.digest, "metrics": dict(trained.evaluated.metrics),
        },
        next_flow=decision.promotion.flow_id if decision.promotion else "",
    )  # fmt: skip


def config_of(trained: Trained) -> Component:
    """Return the configuration that the candidate was made with."""
    return Component.model_validate({**trained.checkout.config, "folder": trained.checkout.folder})


def register(rooms: Rooms, request: CandidateRequest, trained: Trained) -> int:
    """Register the sealed model; a repeat returns the version that is there."""
    sealed = trained.sealed
    with rooms.journal(request.flow_id).step("register", f"as a version of {request.component}") as note:
        version = registered(rooms, request, trained)
        folder = version_folder(rooms, request.component, version)
        # What `headrace adopt` sealed of a version that is judged now gives way to what is known by now.
        shutil.rmtree(folder / "baseline", ignore_errors=True)
        shutil.copytree(sealed.folder, folder / "baseline", dirs_exist_ok=True)
        shutil.copytree(Path(sealed.folder).with_name("reference"), folder / "reference", dirs_exist_ok=True)
        remember(
            rooms,
            VersionRecord(
                request.component, version, trained.run.run_id, trained.run.model_uri, sealed.model, sealed.seal,
                trained.built.python, sealed.digest, request.folder, trained.checkout.config, sealed.train_data,
            ),
        )  # fmt: skip
        entry = rooms.ledger.append(
            Draft(
                request.component, Action.REGISTERED, Actor(request.trigger.actor), request.trigger.reason,
                f"{request.flow_id}/registered", version=version, baseline=sealed.digest,
                evidence={
                    "run": trained.run.run_id, "model": trained.run.model_uri, "flow": request.flow_id,
                    **request.trigger.evidence,
                },
            )
        )  # fmt: skip
        state_entry(rooms, entry)
        note.found = f"version {version}, baseline {sealed.digest[:12]}"
        note.numbers = {"version": version, "baseline": sealed.digest}
    return version


def registered(rooms: Rooms, request: CandidateRequest, trained: Trained) -> int:
    """Return the number of the registered version; one that somebody else registered keeps its own."""
    tags = {
        "headrace.flow": request.flow_id,
        "headrace.baseline": trained.sealed.digest,
        "headrace.commit": "" if request.version else str(trained.checkout.facts.get("commit") or ""),
    }
    if request.version:
        rooms.registry.tag_version(request.component, request.version, tags)
        return request.version
    return rooms.registry.register(
        request.component, run_id=trained.run.run_id, model=trained.run.model_uri, key=request.flow_id, tags=tags
    ).number


def gate(rooms: Rooms, request: CandidateRequest, trained: Trained, version: int) -> None:
    """Judge the candidate. Raises GateFailed where it is not good enough, or nobody can say."""
    component, evaluated = config_of(trained), trained.evaluated
    rows = {name: load_rows(path) for name, path in evaluated.files.items()}
    recent = (rows["recent.candidate"], rows["recent.champion"]) if "recent.champion" in rows else None
    against = f" against the champion v{evaluated.champion}" if evaluated.champion is not None else ""
    journal = rooms.journal(request.flow_id)
    with journal.step("gate", f"judging v{version}{against}") as note:
        judgement = judge(
            component.gate, rows["holdout.candidate"], rows.get("holdout.champion"), task=evaluated.task, recent=recent
        )
        for finding in judgement.findings:
            journal.progress("gate", f"{finding.verdict.value}: {finding.sentence}")
        evidence: dict[str, Json] = {
            "verdict": judgement.verdict.value,
            "metrics": dict(judgement.metrics),
            "findings": [finding.sentence for finding in judgement.findings],
            "champion": evaluated.champion,
        }
        because = next(finding.sentence for finding in judgement.findings if finding.verdict is judgement.verdict)
        entry = rooms.ledger.append(
            Draft(
                request.component, Action.GATED, Actor("gate"), f"{judgement.verdict.value}: {because}",
                f"{request.flow_id}/gated", version=version, baseline=trained.sealed.digest, evidence=evidence,
            )
        )  # fmt: skip
        state_entry(rooms, entry)
        if judgement.verdict is not Verdict.PASS:
            refuse(rooms, request, version, f"gate: {because}")
            raise GateFailed(
                f"Version {version} of {request.component} did not pass its gate "
                f"({judgement.verdict.value}): {because}",
                "Production is as it was. Train a better one, or change `gate:` in headrace.yaml and commit why.",
            )
        note.found = f"pass: {len(judgement.findings)} checks"
        note.numbers = dict(evidence)


def refuse(rooms: Rooms, request: CandidateRequest, version: int, why: str) -> None:
    """Say in the ledger that a version will not be promoted, and why."""
    rooms.ledger.append(
        Draft(
            request.component, Action.REFUSED, Actor("headrace"), why, f"{request.flow_id}/refused", version=version,
        )
    )  # fmt: skip


def try_out_phase(durable: Durable, rooms: Rooms, request: CandidateRequest, trained: Trained, version: int) -> None:
    """Deploy to dev, test there, and take dev down again, whatever comes of it."""
    try:
        url = durable.step("dev", deploy_to_dev, rooms, request, version)
        durable.step("acceptance", run_acceptance, rooms, request, trained, version, url)
    finally:
        durable.step("dev-down", take_dev_down, rooms, request)


def deploy_to_dev(rooms: Rooms, request: CandidateRequest, version: int) -> str:
    """Serve the version in `dev`: digests verified, golden answers given. Returns its URL."""
    with rooms.journal(request.flow_id).step("dev", f"deploying v{version} to dev in its own environment") as note:
        served = served_version(rooms, request.component, version, Stage.DEV)
        settings = recall(rooms, request.component, version).settings
        serve = settings.serve.model_copy(update={"port": 0})
        try:
            verify_version(rooms, request.component, version)
            look(rooms, request.component, version, Stage.DEV)
            status = apply(rooms, Route(request.component, Stage.DEV, [served], {version: 1.0}, serve), version)
        except HeadraceError as error:
            refuse(rooms, request, version, f"dev: {error.fact}")
            raise
        numbers = dict(status.measured.get(version, {}))
        if "image" in numbers:
            record = recall(rooms, request.component, version)
            facts: dict[str, Json] = {"version": version, "image": numbers["image"]}
            state(rooms, record, Kind.IMAGE, facts, at=rooms.clock.now(), actor="headrace")
        told = ["digests verified, packages as at training", measured(numbers), "golden answers match"]
        note.found = f"{', '.join(part for part in told if part)}, at {status.endpoint.url}"
        note.numbers = {"url": status.endpoint.url, **numbers}
    return status.endpoint.url


def apply(rooms: Rooms, route: Route, version: int) -> Status:
    """Have the target serve a route; where it refuses the version, preflight finds the first cause."""
    try:
        return rooms.target.apply(route)
    except HeadraceError as error:
        raise explained(rooms, route.component, version, route.stage, error) from error


def run_acceptance(rooms: Rooms, request: CandidateRequest, trained: Trained, version: int, url: str) -> None:
    """Test the dev deployment over HTTP. Raises AcceptanceFailed."""
    component = config_of(trained)
    journal = rooms.journal(request.flow_id)
    with journal.step("acceptance", f"{component.acceptance.requests} requests to {url}") as note:
        expected = golden.load(Path(trained.evaluated.golden))
        signature = signature_of(served_version(rooms, request.component, version, Stage.DEV))
        headers = bearer(component.serve.predict_keys, rooms.settings.variables)
        result = accept(url, expected, component.acceptance, signature, headers=headers)
        evidence: dict[str, Json] = {"findings": [finding.sentence for finding in result.findings]}
        if result.verdict is not Verdict.PASS:
            because = next(finding.sentence for finding in result.findings if finding.verdict is not Verdict.PASS)
            refuse(rooms, request, version, f"acceptance: {because}")
            raise AcceptanceFailed(
                f"Version {version} of {request.component} was not accepted: {because}",
                "Dev is taken down and production is as it was. Change the model, or `acceptance:` in headrace.yaml.",
            )
        entry = rooms.ledger.append(
            Draft(
                request.component, Action.ACCEPTED, Actor("acceptance"), result.findings[0].sentence,
                f"{request.flow_id}/accepted", version=version, baseline=trained.sealed.digest, evidence=evidence,
            )
        )  # fmt: skip
        state_entry(rooms, entry)
        note.found = "; ".join(finding.sentence for finding in result.findings[:2])


def take_dev_down(rooms: Rooms, request: CandidateRequest) -> None:
    """Remove the dev deployment."""
    with rooms.journal(request.flow_id).step("dev down", "taking dev down", must_run=True) as note:
        rooms.target.remove(request.component, Stage.DEV)
        note.found = "nothing of it is left"


def decide(rooms: Rooms, request: CandidateRequest, trained: Trained, version: int) -> Decision:
    """Promote now, or wait for a person; in the place of the champion that it was judged against, and of no other."""
    champion = trained.evaluated.champion
    record = recall(rooms, request.component, version)
    with rooms.journal(request.flow_id).step("decide", "whether a person has to approve") as note:
        try:
            refuse_for_production(record, baseline_of(rooms, record))
        except Conflict as error:
            refuse(rooms, request, version, error.fact)
            note.found = f"v{version} stays out of production"
            return Decision(State.DONE, f"{error.fact} It was tried out in dev. {error.remedy}")
        rule = approvals.rule(rooms, request.component, version, request.trigger.cause)
        if rule.is_needed:
            approvals.request(rooms, request.component, version, request.trigger, rule.because, champion=champion)
            note.found = (
                f"v{version} waits, for {rule.because}: headrace approve {request.component} --version {version}"
            )
            return Decision(State.WAITING, f"Version {version} of {request.component} waits for approval.")
        note.found = f"v{version} goes to production: {rule.because}"
    promotion = PromoteRequest(
        request.component, version, champion, request.trigger, request.attempt, origin=request.flow_id
    )
    return Decision(State.DONE, f"Version {version} of {request.component} is being promoted.", promotion)
