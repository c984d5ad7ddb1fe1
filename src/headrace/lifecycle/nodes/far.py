"""The target as a worker sees it that does not serve itself: it asks the one that does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from headrace.deploy.base import Route, Status, Target
from headrace.errors import Conflict, Unavailable
from headrace.lifecycle.durable import Durable, Role
from headrace.lifecycle.nodes.base import Node, Nodes
from headrace.lifecycle.rooms import Rooms
from headrace.types import Endpoint, Json, Stage

#: Runs a phase on a worker of a role: `Engine.ask`.
Ask = Callable[..., object]


@dataclass(slots=True)
class FarTarget:
    """Changes go through the queue of the role `serve`; what serves is read from the heartbeats."""

    nodes: Nodes
    ask: Ask | None = field(default=None)

    def apply(self, route: Route) -> Status:
        self._check_anybody()
        return cast("Status", self._ask("apply", route))

    def status(self, component: str, stage: Stage) -> Status | None:
        for node in self.nodes.all():
            for document in _endpoints(node) if node.is_alive else ():
                if (document["component"], document["stage"]) == (component, stage.value):
                    return status_of(document)
        return None

    def remove(self, component: str, stage: Stage) -> None:
        self._check_anybody()
        self._ask("remove", component, stage)

    def endpoints(self) -> Sequence[Endpoint]:
        return [one for node in self.nodes.all() if node.is_alive for one in endpoints_of(node)]

    def _ask(self, verb: str, *args: object) -> object:
        if self.ask is None:
            raise Unavailable("The engine has not started yet.", "Repeat in a moment.")
        return self.ask(Role.SERVE, "target", verb, *args)

    def _check_anybody(self) -> None:
        if not any(node.is_alive and Role.SERVE in node.roles for node in self.nodes.all()):
            raise Unavailable("No worker with the role `serve` is up.", "Start one: headrace worker --role serve")


def target_phase(durable: Durable, rooms: Rooms, verb: str, *args: Any) -> object:
    """Do what another worker asks of the target."""
    if verb == "apply":
        return durable.step(verb, apply, rooms, *args)
    return durable.step(verb, remove, rooms, *args)


def apply(rooms: Rooms, route: Route) -> Status:
    """Make an endpoint serve a route. Raises Conflict where the ledger says otherwise by now."""
    serving = rooms.ledger.serving(route.component, Stage.PRODUCTION)
    if route.stage is Stage.PRODUCTION and (serving is None or serving.version not in route.shares):
        now = serving.version if serving else None
        raise Conflict(
            f"Version {now} of {route.component} is in production by now; a route without it came too late.",
            f"Look at `headrace history {route.component}`.",
        )
    return rooms.target.apply(route)


def remove(rooms: Rooms, component: str, stage: Stage) -> None:
    """Stop an endpoint."""
    rooms.target.remove(component, stage)


def published(target: Target) -> list[Json]:
    """Return what serves here, as a heartbeat tells it."""
    found: list[Json] = []
    for endpoint in target.endpoints():
        status = target.status(endpoint.component, endpoint.stage)
        if status is not None:
            found.append(
                {
                    "component": endpoint.component,
                    "stage": endpoint.stage.value,
                    "url": endpoint.url,
                    "pid": endpoint.pid,
                    "generation": status.generation,
                    "shares": {str(number): share for number, share in status.shares.items()},
                    "warm": list(status.warm),
                    "restarts": status.restarts,
                    "problem": status.problem,
                }
            )
    return found


def status_of(document: dict[str, Any]) -> Status:
    """Return what a heartbeat told."""
    return Status(
        Endpoint(document["component"], Stage(document["stage"]), document["url"], document["pid"]),
        document["generation"],
        {int(number): share for number, share in document["shares"].items()},
        document["warm"],
        document["restarts"],
        document["problem"],
    )


def endpoints_of(node: Node) -> list[Endpoint]:
    """Return what a node serves, as it told last."""
    return [status_of(one).endpoint for one in _endpoints(node)]


def _endpoints(node: Node) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", node.figures.get("endpoints", []))
