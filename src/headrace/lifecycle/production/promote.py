"""Promotion: loaded and warm first, then the ledger, then the traffic. A version that cannot serve changes nothing."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from headrace.errors import Cancelled, Conflict, GateFailed, HeadraceError
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.evidence.doors import refuse_for_production, verify_version
from headrace.lifecycle.evidence.readiness import look
from headrace.lifecycle.evidence.statements import catch_up
from headrace.lifecycle.production.aliases import project
from headrace.lifecycle.production.reconcile import (
    canary_shares,
    is_moving,
    kept_warm,
    one_route_at_a_time,
    production_route,
    settle,
)
from headrace.lifecycle.production.release_tag import tag
from headrace.lifecycle.production.retire import check_is_not_retired
from headrace.lifecycle.request import Outcome, PromoteRequest, State
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.stopping import stop_if_asked
from headrace.lifecycle.versions import recall
from headrace.rollout.observed import Tally, tallies
from headrace.rollout.verdict import judge_step
from headrace.types import Actor, Stage, Verdict

LOG = logging.getLogger(__name__)
#: How often a canary's step looks whether somebody stops it.
LOOK_S = 0.5


def promote(durable: Durable, rooms: Rooms, request: PromoteRequest) -> Outcome:
    """The flow: warm, decide, shift."""
    durable.step("warm", warm, rooms, request)
    durable.step("decide", decide, rooms, request)
    url = durable.step("shift", shift, rooms, request)
    durable.step("alias", tell_mlflow, rooms)
    durable.step("tag", tag, rooms, request)
    return Outcome(
        request.flow_id, request.component, State.PROMOTED, request.version,
        fact=f"Version {request.version} of {request.component} answers at {url}.", evidence={"url": url},
    )  # fmt: skip


def tell_mlflow(rooms: Rooms) -> None:
    """Move MLflow's alias. Where that fails the promotion stands, and the ledger's outbox keeps the wish."""
    try:
        project(rooms)
    except HeadraceError as error:
        LOG.warning("MLflow's alias waits: %s", error.fact)


def warm(rooms: Rooms, request: PromoteRequest) -> None:
    """Load the new version beside the present one and check its golden answers, without traffic."""
    journal = rooms.journal(request.flow_id)
    name = f"v{request.version}"
    asked = folders(rooms, request)
    with journal.step("warm", f"loading {name} beside what serves now; no traffic yet") as note:
        serving = rooms.ledger.serving(request.component, Stage.PRODUCTION)
        present = serving.version if serving else None
        if serving is not None and serving.key != request.flow_id and is_moving(rooms, serving):
            raise another_is_under_way(
                request.component, serving.key, promote_by_hand(request.component, request.version)
            )
        if present != request.expected:
            raise Conflict(
                f"{spell(present)} of {request.component} is in production by now, not {spell(request.expected)}: "
                "somebody else was faster.",
                f"Look at `headrace history {request.component}`, then promote {name} again if it should still be.",
            )
        check_is_not_retired(rooms, request.component, request.version)
        pass_production_door(rooms, request.component, request.version)
        stop_if_asked(*asked)
        kept = kept_warm(rooms, request.component)
        status = settle(rooms, request.component, warm=kept, must_warm=request.version)
        try:
            stop_if_asked(*asked)
        except Cancelled:
            settle(rooms, request.component, warm=kept)
            raise
        note.found = (
            f"digests verified, packages as at training; {spell(present)} serves yet"
            if status is None
            else f"{name} is verified, loaded and gives its golden answers; {spell(present)} still serves"
        )


def another_is_under_way(component: str, flow: str, then: str) -> Conflict:
    """Return why a promotion has to wait for this flow, with the command to type then."""
    return Conflict(
        f"Another promotion of {component} is under way (flow {flow}).",
        f"Follow it with `headrace follow {flow}`, or stop it with `headrace stop {flow}`. Then: {then}",
    )


def promote_by_hand(component: str, version: int) -> str:
    """Return the command that promotes a version."""
    return f"headrace promote {component} --version {version}"


def folders(rooms: Rooms, request: PromoteRequest) -> list[Path]:
    """Return where to look whether somebody stops the promotion: its own folder, and that of the flow before it."""
    return [rooms.folder(flow) for flow in (request.flow_id, request.origin) if flow]


def pass_production_door(rooms: Rooms, component: str, version: int) -> None:
    """Check digests, what production asks of a version's origin, its files and its interpreter's packages.

    Raises:
        ModelRefused: something differs from the baseline or from the training's environment.
        Conflict: it may be tried out in dev and no more.
    """
    verified = verify_version(rooms, component, version)
    refuse_for_production(recall(rooms, component, version), verified.baseline)
    look(rooms, component, version, Stage.PRODUCTION)


def spell(version: int | None) -> str:
    """Return `v3`, or `nothing`."""
    return "nothing" if version is None else f"v{version}"


def decide(rooms: Rooms, request: PromoteRequest) -> None:
    """Write the promotion to the ledger, if what served when it was asked for still does."""
    journal = rooms.journal(request.flow_id)
    with journal.step("ledger", "writing the promotion", must_run=True) as note:
        with one_route_at_a_time(rooms, request.component):
            if rooms.ledger.find(request.flow_id) is None:
                check_is_not_retired(rooms, request.component, request.version)
            entry = rooms.ledger.move(
                Draft(
                    request.component, Action.PROMOTED, Actor(request.trigger.actor), request.trigger.reason,
                    request.flow_id, stage=Stage.PRODUCTION, version=request.version,
                    evidence={"flow": request.flow_id},
                    baseline=recall(rooms, request.component, request.version).baseline,
                ),
                expected=request.expected,
            )  # fmt: skip
        catch_up(rooms, request.component, request.version)
        note.found = f"entry {entry.sequence}: {spell(request.expected)} → v{request.version}, by {entry.actor}"


def shift(rooms: Rooms, request: PromoteRequest) -> str:
    """Move the traffic, in steps where the component asks for a canary; return the endpoint's URL."""
    journal = rooms.journal(request.flow_id)
    with journal.step("shift", f"moving traffic to v{request.version}", must_run=True) as note:
        try:
            canary(rooms, request, lambda text: journal.progress("shift", text))
            kept = [] if request.expected is None else [request.expected]
            status = settle(rooms, request.component, warm=kept, over=request.flow_id)
        except HeadraceError as error:
            take_back(rooms, request, error)
            raise
        serving = rooms.ledger.serving(request.component, Stage.PRODUCTION)
        if serving is None or serving.version != request.version:
            raise Conflict(
                f"{spell(serving.version if serving else None)} of {request.component} is in production by now: "
                f"somebody took v{request.version} back while the traffic moved.",
                f"See who and why: headrace history {request.component}",
            )
        url = status.endpoint.url if status else ""
        note.found = f"v{request.version} answers all requests at {url}"
        note.numbers = {"url": url}
    return url


def canary(rooms: Rooms, request: PromoteRequest, tell: Callable[[str], None]) -> None:
    """Give the new version a growing share, where the component asks for it, and stop where it does worse.

    Errors and answers slower than half the deadline are compared with the champion's of the same step. Few requests
    decide nothing: the steps go on, and the journal says so.

    Raises:
        GateFailed: it does worse than chance allows.
    """
    settings = recall(rooms, request.component, request.version).settings
    release = settings.release
    if release.strategy != "canary" or request.expected is None:
        return
    for percent in release.steps[:-1]:
        stop_if_asked(*folders(rooms, request))
        with one_route_at_a_time(rooms, request.component):
            if not stands(rooms, request):
                return
            shares = canary_shares(request.version, request.expected, percent)
            url = rooms.target.apply(production_route(rooms, request.component, shares)).endpoint.url
        tell(f"{percent} % of the traffic goes to v{request.version}")
        slow_s = settings.serve.deadline_ms / 2000
        before = tallies(url, slow_s=slow_s)
        _pass_time(rooms, request, release.step_s)
        if not stands(rooms, request):
            return
        tell(judged(request, before, tallies(url, slow_s=slow_s)))


def stands(rooms: Rooms, request: PromoteRequest) -> bool:
    """Tell whether the promotion is the ledger's last word: nobody has gone back meanwhile."""
    serving = rooms.ledger.serving(request.component, Stage.PRODUCTION)
    return serving is not None and serving.key == request.flow_id


def _pass_time(rooms: Rooms, request: PromoteRequest, seconds: float) -> None:
    """Let a step of a canary last, as long as the promotion stands. Raises Cancelled as soon as somebody stops it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and stands(rooms, request):
        stop_if_asked(*folders(rooms, request))
        time.sleep(min(left, LOOK_S))


def judged(request: PromoteRequest, before: Mapping[int, Tally], after: Mapping[int, Tally]) -> str:
    """Return what a canary's step showed, in a sentence.

    Raises:
        GateFailed: the new version has more errors or slow answers than chance allows.
    """
    nothing = Tally()
    seen = [after.get(one, nothing).since(before.get(one, nothing)) for one in (request.expected or 0, request.version)]
    found = judge_step(*seen)
    if found.verdict is Verdict.FAIL:
        raise GateFailed(
            f"The canary of {request.component} v{request.version} was stopped: {' '.join(found.sentences)}",
            f"v{request.expected} goes on serving. See `headrace status` and the log of its worker.",
        )
    return f"v{request.version} at this step: {found.verdict.value.replace('_', ' ')}. {' '.join(found.sentences)}"


def take_back(rooms: Rooms, request: PromoteRequest, error: HeadraceError) -> None:
    """Say in the ledger that the promotion did not hold; the version before it goes on serving."""
    rooms.ledger.move(
        Draft(
            request.component, Action.ROLLED_BACK, Actor("headrace"), f"The promotion did not hold: {error.fact}",
            f"{request.flow_id}/taken-back", stage=Stage.PRODUCTION, version=request.expected,
        ),
        expected=request.version,
    )  # fmt: skip
    with suppress(HeadraceError):
        settle(rooms, request.component)
