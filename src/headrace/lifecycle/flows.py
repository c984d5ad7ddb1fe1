"""All flows by name, each ending in an outcome that says the first cause. What the engine is started with."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from headrace.errors import Cancelled, Conflict, GateFailed, HeadraceError
from headrace.lifecycle.candidates.candidate import candidate, try_out_phase
from headrace.lifecycle.candidates.take_in import take_in_phase
from headrace.lifecycle.candidates.train import train_phase
from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.durable import Durable
from headrace.lifecycle.events import Mark
from headrace.lifecycle.nodes.far import target_phase
from headrace.lifecycle.production.promote import promote
from headrace.lifecycle.request import Outcome, State
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.stopping import stop_if_asked
from headrace.lifecycle.watching.early import look
from headrace.lifecycle.watching.watch import watch


class Request(Protocol):
    """What every request of a flow has."""

    @property
    def component(self) -> str: ...

    @property
    def flow_id(self) -> str: ...


Q = TypeVar("Q", bound=Request)


def told(flow: Callable[[Durable, Rooms, Q], Outcome]) -> Callable[[Durable, Rooms, Q], Outcome]:
    """Return the flow with its end written into its journal; an error becomes its outcome, fact and remedy."""

    def run(durable: Durable, rooms: Rooms, request: Q) -> Outcome:
        try:
            outcome = flow(durable, rooms, request)
        except Superseded:
            raise
        except HeadraceError as error:
            known = by_whom(rooms, request, error)
            outcome = Outcome(
                request.flow_id, request.component, ending(known), fact=known.fact, remedy=known.remedy,
                exit_code=known.exit_code,
            )  # fmt: skip
        durable.step("end", end, rooms, request, outcome)
        return outcome

    return run


def by_whom(rooms: Rooms, request: Request, error: HeadraceError) -> HeadraceError:
    """Return who stopped the flow, where a step that was ended can only say that it was."""
    if isinstance(error, Cancelled):
        try:
            stop_if_asked(rooms.folder(request.flow_id))
        except Cancelled as known:
            return known
    return error


def ending(error: HeadraceError) -> State:
    """Return how a flow ends on an error."""
    if isinstance(error, Cancelled):
        return State.CANCELLED
    return State.REFUSED if isinstance(error, GateFailed | Conflict) else State.FAILED


def end(rooms: Rooms, request: Request, outcome: Outcome) -> None:
    """Write the end of a flow into its journal."""
    rooms.journal(request.flow_id).write("flow", Mark.ENDED, outcome.fact, numbers=outcome.as_json())


FLOWS: dict[str, Callable[..., Outcome]] = {
    "candidate": told(candidate),
    "promote": told(promote),
    "watch": told(watch),
    "look": told(look),
}
PHASES: dict[str, Callable[..., object]] = {
    "train": train_phase,
    "take-in": take_in_phase,
    "try-out": try_out_phase,
    "target": target_phase,
}
