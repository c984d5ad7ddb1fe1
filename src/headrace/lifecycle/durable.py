"""What a flow may ask of the engine that makes it durable."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ParamSpec, Protocol, TypeVar

from headrace.errors import InvalidInput

P = ParamSpec("P")
R = TypeVar("R")


class Role(StrEnum):
    """What a worker does."""

    CONTROL = "control"
    TRAIN = "train"
    SERVE = "serve"
    MONITOR = "monitor"


def roles_of(text: str) -> list[Role]:
    """Return the roles that a text such as `train,serve` names; all of them where it is empty. Raises InvalidInput."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [role.value for role in Role]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise InvalidInput(f"`{wrong[0]}` is no role.", f"Use {', '.join(known)}, separated by commas.")
    return [role for role in Role if role.value in names] or list(Role)


class Durable(Protocol):
    """Runs the steps of one flow: a finished one is never run again, an interrupted one is, with equal arguments."""

    def step(self, name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a step and keep its result before going on."""
        ...

    def on(self, role: Role, phase: str, request: object, *args: object, label: str = "") -> object:
        """Run a named phase (several steps) on a worker of `role` that carries `label` and return what it returns."""
        ...

    def start(self, kind: str, flow_id: str, request: object) -> None:
        """Start another flow and do not wait for it; a second start with the same id changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Undurable:
    """Runs steps at once and keeps nothing; for tests of the flows themselves."""

    phases: dict[str, Callable[..., object]]
    started: list[object] = field(default_factory=list)

    def step(self, name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    def on(self, role: Role, phase: str, request: object, *args: object, label: str = "") -> object:
        return self.phases[phase](self, request, *args)

    def start(self, kind: str, flow_id: str, request: object) -> None:
        self.started.append(request)
