"""Everything that a person or a script can ask for, in one place; the command line and the HTTP API are its twins."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from headrace.config.parse import read_component
from headrace.config.settings import Settings
from headrace.deploy.base import Status
from headrace.errors import Conflict, HeadraceError, NotFound, Unavailable, raise_together
from headrace.files import locked
from headrace.ledger.base import Action, Entry, Ledger, no_component
from headrace.lifecycle import events as journal
from headrace.lifecycle import placement, stopping
from headrace.lifecycle.engine import Engine
from headrace.lifecycle.events import Mark, read_events
from headrace.lifecycle.nodes.base import Nodes, OneNode
from headrace.lifecycle.production import aliases, approvals, reconcile, retire, rollback
from headrace.lifecycle.production.promote import another_is_under_way, promote_by_hand
from headrace.lifecycle.request import (
    CandidateRequest,
    Cause,
    EarlyRequest,
    Outcome,
    PromoteRequest,
    State,
    Trigger,
    WatchRequest,
)
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event
from headrace.lifecycle.triggers.book import Book, books
from headrace.lifecycle.upkeep import garbage
from headrace.lifecycle.watching import due
from headrace.types import Actor, Json, Stage

LOG = logging.getLogger(__name__)
#: What a flow has kept of its steps names the modules of the headrace that made it.
OTHER_HEADRACE = re.compile(
    r"No module named 'headrace|cannot import name .* from 'headrace|attribute .* on <module 'headr"
)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the flow that follows from it; empty where none does."""

    entry: Entry
    flow: str


@dataclass(frozen=True, slots=True)
class Control:
    """The control side of one installation."""

    rooms: Rooms
    engine: Engine
    nodes: Nodes = field(default_factory=OneNode)
    #: Why production is not what the ledger says, by component.
    problems: dict[str, str] = field(default_factory=dict)
    #: Why MLflow's alias is not what the ledger says, by component; what serves does not depend on it.
    aliases: dict[str, str] = field(default_factory=dict)

    def run(
        self, folder: Path, *, actor: str, reason: str, key: str, commit: str = "", attempt: int = 1, version: int = 0
    ) -> str:
        """Start a candidate of the component in `folder` and return its flow's id; from now on it is watched too.

        Args:
            version: one that somebody else registered in MLflow, which is judged; 0 trains a new one.

        Raises:
            Conflict, NotFound: there is no such version, or it was judged already.
            InvalidConfig: headrace.yaml is missing or wrong.
            Conflict: a candidate of this component is under way.
        """
        component = read_component(folder)
        trigger = Trigger(Cause.PERSON, key, actor, reason)
        if version:
            self._check_is_unjudged(component.component, version)
        request = CandidateRequest(component.component, str(folder), trigger, attempt, commit, version=version)
        flow = self.start_candidate(request)
        book = Book(self.rooms, component.component)
        known = book.watched()
        if known is None or not known.folder.is_dir():
            book.watch(folder)
        return flow

    def start_candidate(self, request: CandidateRequest) -> str:
        """Start a candidate's flow, if none of its component is under way; a repeat returns the first."""
        with locked(self.rooms.settings.locks / f"{request.component}.candidate"):
            if not self.is_started(request.flow_id):
                busy = self.under_way(request.component)
                if busy:
                    raise Conflict(
                        f"A candidate of {request.component} is under way (flow {busy}).",
                        f"Follow it with `headrace follow {busy}`, or stop it with `headrace stop {busy}`.",
                    )
                request = self._placed(request)
            return self.engine.start("candidate", request.flow_id, request)

    def _check_is_unjudged(self, component: str, version: int) -> None:
        self.rooms.registry.version(component, version)
        if self.rooms.ledger.select(component, {Action.GATED, Action.REFUSED}, version=version, limit=1):
            raise Conflict(
                f"Version {version} of {component} was judged already.",
                f"See how: headrace history {component}. Where it passed: headrace promote {component} --version "
                f"{version}",
            )

    def _placed(self, request: CandidateRequest) -> CandidateRequest:
        """Return the request with the label of the workers that may train it. Raises InvalidConfig."""
        label = placement.label_of(request)
        are_several = not isinstance(self.nodes, OneNode)
        waits = placement.check_can_be_placed(self.nodes, request.component, label, are_several=are_several)
        if waits:
            self.rooms.journal(request.flow_id).progress("checkout", waits)
        return replace(request, runs_on=label)

    def is_started(self, flow: str) -> bool:
        """Tell whether there is such a flow, running or ended, or a request in its place."""
        return self.engine.state(flow) is not None or self.rooms.ledger.find(f"{flow}/requested") is not None

    def under_way(self, component: str) -> str:
        """Return the component's candidate flow that waits or runs; empty where none does."""
        prefixes = tuple(f"{component}/{cause.value}-" for cause in Cause)
        return next((flow for flow in self.engine.running() if flow.startswith(prefixes)), "")

    def promote(self, component: str, version: int, *, actor: str, reason: str, key: str) -> str:
        """Start the promotion of a version that passed its gate and return the flow's id.

        Raises:
            NotFound, Conflict: there is no such version, it may not serve, or another promotion is under way.
            NotAllowed: only named approvers may.
        """
        trigger = Trigger(Cause.PERSON, key, actor, reason)
        expected = self._check_may_serve(component, version)
        request = PromoteRequest(component, version, expected, trigger)
        approvals.check_may_promote(self.rooms, component, version, Actor(actor))
        with self._alone(component, request.flow_id, promote_by_hand(component, version)):
            approvals.approved_by_hand(self.rooms, component, version, Actor(actor), reason)
            return self.engine.start("promote", request.flow_id, request)

    def promoting(self, component: str) -> str:
        """Return the component's promotion that has not moved all traffic yet; empty where none is under way."""
        prefix = f"{component}/promote/"
        found = (flow for flow in self.engine.running() if flow.startswith(prefix))
        return next((flow for flow in found if not reconcile.has_moved(self.rooms, flow)), "")

    @contextmanager
    def _alone(self, component: str, flow: str, then: str) -> Iterator[None]:
        """Hold the component's promotions while one is decided on. Raises Conflict where another is under way.

        Args:
            flow: the one that is decided on.
            then: what to type once the other has ended.
        """
        with locked(self.rooms.settings.locks / f"{component}.promotion"):
            busy = self.promoting(component)
            if busy and busy != flow:
                raise another_is_under_way(component, busy, then)
            yield

    def ask_for(self, event: Event) -> str:
        """Promote what a trigger asks for, or let it wait for approval; return in a sentence which.

        Raises:
            NotFound, Conflict: there is no such version, it may not serve, or another promotion is under way.
        """
        component, version = event.component, event.version
        expected = self._check_may_serve(component, version)
        rule = approvals.rule_for(self.rooms, component, version, event)
        if rule.is_needed:
            approvals.request(self.rooms, component, version, event.trigger, rule.because, champion=expected)
            return f"{event.trigger.reason}; version {version} waits, for {rule.because}."
        request = PromoteRequest(component, version, expected, event.trigger)
        with self._alone(component, request.flow_id, promote_by_hand(component, version)):
            self.engine.start("promote", request.flow_id, request)
        return f"{event.trigger.reason}; version {version} goes to production."

    def decide(self, component: str, version: int | None, *, actor: str, comment: str, action: Action) -> Decided:
        """Approve or reject a version that waits; an approval starts its promotion.

        Raises:
            NotFound, NotAllowed, Conflict: nothing was decided; while another promotion is under way, nothing is
                approved.
        """
        if action is Action.APPROVED:
            asked = approvals.find(self.rooms, component, version)
            then = f"headrace approve {component} --version {asked.version}"
            with self._alone(component, str(asked.evidence["flow"]), then):
                return self._decide(component, asked.version, actor=actor, comment=comment, action=action)
        return self._decide(component, version, actor=actor, comment=comment, action=action)

    def _decide(self, component: str, version: int | None, *, actor: str, comment: str, action: Action) -> Decided:
        entry, promotion = approvals.decide(
            self.rooms, component, version, actor=Actor(actor), comment=comment, action=action
        )
        if promotion is not None:
            self.engine.start("promote", promotion.flow_id, promotion)
        return Decided(entry, promotion.flow_id if promotion else "")

    def tidy_approvals(self) -> None:
        """Reject what waited too long, and start what was approved right before a crash; a repeat changes nothing."""

        def tidy(component: str) -> None:
            for promotion in approvals.tidy(self.rooms, component):
                if self.engine.state(promotion.flow_id) is None and not self.promoting(component):
                    self.engine.start("promote", promotion.flow_id, promotion)

        self._for_each(tidy)

    def guard_aliases(self) -> None:
        """Put back every champion's alias that somebody else moved; their wish waits as a trigger."""

        def guard(component: str) -> None:
            if self.rooms.ledger.serving(component, Stage.PRODUCTION) is None:
                return
            try:
                aliases.guard(self.rooms, component)
            except HeadraceError as error:
                self.aliases[component] = f"it serves, but MLflow's alias cannot be kept right: {error.fact}"
                raise
            self.aliases.pop(component, None)

        self._for_each(guard)

    def _for_each(self, task: Callable[[str], None]) -> None:
        """Do something for every component, also after it failed for one. Raises Unavailable at the end."""
        troubles = dict[str, HeadraceError]()
        for component in self.rooms.ledger.components():
            try:
                task(component)
            except HeadraceError as error:
                troubles[component] = error
            except Exception as error:
                LOG.exception("%s", component)
                troubles[component] = Unavailable(
                    f"This broke inside headrace ({type(error).__name__}: {error}).",
                    f"The logs say more: {self.rooms.settings.logs}",
                )
        raise_together(troubles)

    def _check_may_serve(self, component: str, version: int) -> int | None:
        """Return what serves now, where this version may come after it.

        Raises:
            NotFound: there is no such version.
            Conflict: it was not accepted, was retired, or serves already.
        """
        ledger = self.rooms.ledger
        if not ledger.select(component, {Action.REGISTERED}, version=version, limit=1):
            known = ", ".join(map(str, ledger.versions(component))) or "none"
            raise NotFound(
                f"{component} has no version {version} (it has: {known}).",
                f"See them with `headrace history {component}`.",
            )
        gated = ledger.select(component, {Action.GATED, Action.REFUSED}, version=version, limit=1)
        if not gated:
            raise Conflict(
                f"Version {version} of {component} was never judged.",
                f"Judge it, in its component's folder: headrace run . --version {version}",
            )
        if not ledger.select(component, {Action.ACCEPTED}, version=version, limit=1):
            refused = ledger.select(component, {Action.REFUSED}, version=version, limit=1)
            why = f": {refused[0].reason}" if refused else ""
            raise Conflict(
                f"Version {version} of {component} was not accepted{why}",
                "Train a better one with `headrace run`; what is in production stays as it is.",
            )
        retire.check_is_not_retired(self.rooms, component, version)
        serving = ledger.serving(component, Stage.PRODUCTION)
        expected = serving.version if serving else None
        if expected == version:
            raise Conflict(f"Version {version} of {component} is in production already.")
        return expected

    def judge_due(self, component: str) -> dict[str, Json]:
        """Start judging a component's next window if it is due; return the flow (empty where none), and why.

        Raises:
            NotFound: there is no such component.
        """
        if component not in self.rooms.ledger.components():
            raise no_component(self.rooms.ledger, component)
        flow, sentence = self.watch(component, is_asked=True)
        return {"flow": flow, "sentence": sentence}

    def watch(self, component: str, *, is_asked: bool = False) -> tuple[str, str]:
        """Start judging the window that is due; return its flow, empty where none is, and a sentence."""
        found = due.standing(self.rooms, component, is_asked=is_asked)
        request = found.request
        while request is not None and self.engine.has_ended(request.flow_id):
            # It was judged a moment ago; or what broke it also kept it from being noted, and it gets a flow of its own.
            found = due.standing(self.rooms, component, is_asked=is_asked)
            ended, request = request, found.request
            if request is not None and (request.flow, request.first) == (ended.flow, ended.first):
                request = replace(request, attempt=ended.attempt + 1)
        if request is None or self._is_looked_at(request):
            return "", found.sentence
        return self.engine.start(request.flow, request.flow_id, request), found.sentence

    def _is_looked_at(self, request: WatchRequest) -> bool:
        """Tell whether an early look at the window is under way; its verdict comes after that."""
        early = EarlyRequest(request.component, request.version, request.first, request.last, request.attempt)
        if request.flow == early.flow or self.engine.state(early.flow_id) is None:
            return False
        return not self.engine.has_ended(early.flow_id)

    def rollback(self, component: str, *, to: int | None, actor: str, reason: str, key: str) -> Entry:
        """Serve an earlier champion again, at once; a repeat with the same key is no second one."""
        own = f"{component}/rollback/{key}"
        return rollback.roll_back(self.rooms, component, to=to, actor=Actor(actor), reason=reason, key=own)

    def retire(self, component: str, version: int, *, actor: str, reason: str) -> Entry:
        """Write that a version is not wanted any more; what it leaves goes with `collect`."""
        return retire.retire(self.rooms, component, version, actor=Actor(actor), reason=reason)

    def collect(self, asked: garbage.Asked, ledger_of: Callable[[Settings], Ledger]) -> garbage.Collected:
        """Find what nobody needs any more, and remove it unless only that was asked."""
        return garbage.collect(self.rooms, asked, running=self.engine.running(), ledger_of=ledger_of)

    def stop(self, flow: str, *, actor: str) -> None:
        """Ask a flow to end; its children are killed and its run ends KILLED."""
        if self.engine.state(flow) is None:
            raise NotFound(f"There is no flow {flow}.", "See what runs with `headrace status`.")
        stopping.ask_to_stop(self.rooms.folder(flow), actor)

    def events(self, flow: str, *, after: int = 0) -> Sequence[journal.Event]:
        """Return a flow's events from number `after` on."""
        if not self.rooms.folder(flow).exists() and self.engine.state(flow) is None:
            known = [book for book in books(self.rooms) if book.component == flow.partition("/")[0]]
            if any(event.flow_id == flow for book in known for event in book.waiting()):
                return []
            raise NotFound(f"There is no flow {flow}.", "See what runs with `headrace status`.")
        events = read_events(self.rooms.folder(flow), after=after)
        if not events and self.engine.state(flow) in ("ERROR", "CANCELLED"):
            # A flow that broke inside headrace never wrote its own end.
            return [
                journal.Event(
                    self.rooms.clock.now().isoformat(),
                    "flow",
                    Mark.ENDED,
                    "The flow broke.",
                    0.0,
                    _broken(flow, self.engine.error(flow), self.rooms.settings.logs),
                )
            ]
        return events

    def history(self, component: str, *, limit: int) -> Sequence[Entry]:
        """Return a component's newest entries, newest first. Raises NotFound where there are none."""
        entries = self.rooms.ledger.history(component, limit=limit)
        if not entries:
            raise no_component(self.rooms.ledger, component)
        return entries

    def bring_up(self) -> dict[str, Json]:
        """Make production what the ledger says; a component that cannot be served does not hold up the others."""
        for component in self.rooms.ledger.components():
            self.bring_one_up(component)
        return {"problems": dict(self.problems)}

    def bring_one_up(self, component: str) -> None:
        """Make a component's production what the ledger says; where that cannot be, `problems` tells why."""
        try:
            reconcile.bring_up(self.rooms, component)
        except HeadraceError as error:
            self.problems[component] = f"{error.fact} {error.remedy}".strip()
            LOG.warning("%s: %s", component, self.problems[component])
        else:
            self.problems.pop(component, None)

    def status(self) -> dict[str, Json]:
        """Return what serves, what runs and where."""
        endpoints: list[Json] = []
        for component in self.rooms.ledger.components():
            serving = self.rooms.ledger.serving(component, Stage.PRODUCTION)
            status = self.rooms.target.status(component, Stage.PRODUCTION)
            endpoints.append(
                {
                    "component": component,
                    "production": serving.version if serving else None,
                    "since": serving.at.isoformat() if serving else None,
                    "url": status.endpoint.url if status else None,
                    "pid": status.endpoint.pid if status else None,
                    "warm": list(status.warm) if status else [],
                    "restarts": status.restarts if status else 0,
                    "problem": self._problem(component, serving, status),
                    "waiting": [entry.version for entry in approvals.waiting(self.rooms, component)],
                }
            )
        return {"components": endpoints, "flows": list(self.engine.running()), "home": str(self.rooms.settings.home)}

    def _problem(self, component: str, serving: Entry | None, status: Status | None) -> str:
        """Return what is wrong with a component's production; empty where nothing is."""
        if status is not None and status.problem:
            return status.problem
        is_right = serving is None or (status is not None and serving.version in status.shares)
        if is_right:
            return self.aliases.get(component, "")
        return self.problems.get(component, "not running" if status is None else "another serves")


def _broken(flow: str, error: Exception | None, logs: Path) -> dict[str, Json]:
    """Return the end of a flow that broke: on what, and that it can be begun again."""
    why = f"{type(error).__name__}: {error}" if error else "it did not say on what"
    fact = f"The flow broke inside headrace ({why})."
    if OTHER_HEADRACE.search(str(error)):
        fact = f"The flow was begun by another version of headrace, and this one cannot go on with it ({why})."
    remedy = f"What serves is as the ledger says. Begin it again: headrace run, in the component's folder. Logs: {logs}"
    outcome = Outcome(flow, flow.partition("/")[0], State.FAILED, fact=fact, remedy=remedy, exit_code=1)
    return outcome.as_json()
