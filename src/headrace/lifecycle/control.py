"""Everything that a person or a script can ask for, in one place; the command line and the HTTP API are its twins."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.config.parse import read_component
from headrace.errors import Conflict, HeadraceError, NotFound
from headrace.ledger.base import Action, Entry
from headrace.lifecycle import reconcile, rollback, stopping
from headrace.lifecycle.engine import Engine
from headrace.lifecycle.events import Event, Mark, read_events
from headrace.lifecycle.request import CandidateRequest, Cause, PromoteRequest, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.types import Actor, Json, Stage


@dataclass(frozen=True, slots=True)
class Control:
    """The control side of one installation."""

    rooms: Rooms
    engine: Engine
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def run(self, folder: Path, *, actor: str, reason: str, key: str, commit: str = "", attempt: int = 1) -> str:
        """Start a candidate of the component in `folder` and return its flow's id.

        Raises:
            InvalidConfig: headrace.yaml is missing or wrong.
            Conflict: a candidate of this component is under way.
        """
        component = read_component(folder)
        trigger = Trigger(Cause.PERSON, key, actor, reason)
        request = CandidateRequest(component.component, str(folder), trigger, attempt, commit)
        return self.start_candidate(request)

    def start_candidate(self, request: CandidateRequest) -> str:
        """Start a candidate's flow, if none of its component is under way; a repeat returns the first."""
        with self._one_at_a_time:
            if self.engine.state(request.flow_id) is None:
                busy = self._candidate_under_way(request.component)
                if busy:
                    raise Conflict(
                        f"A candidate of {request.component} is under way (flow {busy}).",
                        f"Follow it with `headrace follow {busy}`, or stop it with `headrace stop {busy}`.",
                    )
            return self.engine.start("candidate", request.flow_id, request)

    def _candidate_under_way(self, component: str) -> str:
        prefixes = tuple(f"{component}/{cause.value}-" for cause in Cause)
        return next((flow for flow in self.engine.running() if flow.startswith(prefixes)), "")

    def promote(self, component: str, version: int, *, actor: str, reason: str, key: str) -> str:
        """Start the promotion of a version that passed its gate and return the flow's id."""
        registered = _entry(self.rooms, component, version, Action.REGISTERED)
        if registered is None:
            raise NotFound(
                f"{component} has no version {version} (it has: {_versions(self.rooms, component)}).",
                f"See them with `headrace history {component}`.",
            )
        if _entry(self.rooms, component, version, Action.ACCEPTED) is None:
            refused = _entry(self.rooms, component, version, Action.REFUSED)
            why = f": {refused.reason}" if refused else ""
            raise Conflict(
                f"Version {version} of {component} was not accepted{why}",
                "Train a better one with `headrace run`; what is in production stays as it is.",
            )
        serving = self.rooms.ledger.serving(component, Stage.PRODUCTION)
        expected = serving.version if serving else None
        if expected == version:
            raise Conflict(f"Version {version} of {component} is in production already.")
        request = PromoteRequest(component, version, expected, Trigger(Cause.PERSON, key, actor, reason))
        return self.engine.start("promote", request.flow_id, request)

    def rollback(self, component: str, *, to: int | None, actor: str, reason: str, key: str) -> Entry:
        """Serve an earlier champion again, at once."""
        return rollback.roll_back(self.rooms, component, to=to, actor=Actor(actor), reason=reason, key=key)

    def stop(self, flow: str, *, actor: str) -> None:
        """Ask a flow to end; its children are killed and its run ends KILLED."""
        if self.engine.state(flow) is None:
            raise NotFound(f"There is no flow {flow}.", "See what runs with `headrace status`.")
        stopping.ask_to_stop(self.rooms, flow, actor)

    def events(self, flow: str, *, after: int = 0) -> Sequence[Event]:
        """Return a flow's events from number `after` on."""
        if not self.rooms.folder(flow).exists() and self.engine.state(flow) is None:
            raise NotFound(f"There is no flow {flow}.", "See what runs with `headrace status`.")
        events = read_events(self.rooms.folder(flow), after=after)
        if not events and self.engine.state(flow) in ("ERROR", "CANCELLED"):
            # A flow that broke inside headrace never wrote its own end.
            return [
                Event(self.rooms.clock.now().isoformat(), "flow", Mark.ENDED, "The flow broke.", 0.0, _broken(flow))
            ]
        return events

    def bring_up(self) -> dict[str, Json]:
        """Make production what the ledger says; a component that cannot be served does not hold up the others."""
        problems: dict[str, Json] = {}
        for component in self.rooms.ledger.components():
            try:
                reconcile.bring_up(self.rooms, component)
            except HeadraceError as error:
                problems[component] = f"{error.fact} {error.remedy}".strip()
        return {"problems": problems}

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
                    "problem": status.problem if status else ("" if serving is None else "not running"),
                }
            )
        return {"components": endpoints, "flows": list(self.engine.running()), "home": str(self.rooms.settings.home)}


def _entry(rooms: Rooms, component: str, version: int, action: Action) -> Entry | None:
    entries = rooms.ledger.history(component, limit=10_000)
    return next((entry for entry in entries if entry.version == version and entry.action is action), None)


def _versions(rooms: Rooms, component: str) -> str:
    entries = rooms.ledger.history(component, limit=10_000)
    numbers = sorted({entry.version for entry in entries if entry.version is not None})
    return ", ".join(map(str, numbers)) or "none"


def _broken(flow: str) -> dict[str, Json]:
    return {"flow": flow, "state": "failed", "fact": "The flow broke inside headrace.", "exit_code": 1}
