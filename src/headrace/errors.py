"""The errors that headrace tells its users: a fact with names and numbers, then a remedy to type.

A class for each thing that a caller would handle differently. Rooms may derive their own from these.
"""

from collections.abc import Mapping
from typing import ClassVar


class HeadraceError(Exception):
    """The root. `str(error)` is the fact; `remedy` is what to do or type next.

    Attributes:
        remedy: one sentence or command; empty where the fact says it all.
        exit_code: what the command line ends with.
        http_status: what an HTTP surface answers with.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(fact)
        self.remedy = remedy

    @property
    def fact(self) -> str:
        """What is so."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[type["HeadraceError"], tuple[str, str]]:
        # Errors travel through durable steps by pickle; the default would lose the remedy.
        return (type(self), (self.fact, self.remedy))


class InvalidConfig(HeadraceError):
    """headrace.yaml, an MLproject or a setting is wrong, before anything was done."""

    exit_code = 2
    http_status = 422


class InvalidInput(HeadraceError):
    """A request or a command's argument cannot be right."""

    exit_code = 2
    http_status = 400


class NotFound(HeadraceError):
    """The named component, version, run or prediction does not exist."""

    exit_code = 3
    http_status = 404


class Conflict(HeadraceError):
    """Somebody else was faster, or the thing is in a state in which this cannot be done."""

    exit_code = 4
    http_status = 409


class EnvironmentFailed(HeadraceError):
    """The component's environment cannot be locked or built."""

    exit_code = 5


class TrainingFailed(HeadraceError):
    """The component's tests or training failed, was killed, or left no usable model."""

    exit_code = 6


class ModelRefused(HeadraceError):
    """The model may not be registered or served: pickled, tampered with, not loadable, wrong golden answers."""

    exit_code = 7


class GateFailed(HeadraceError):
    """The candidate was judged and is not promoted."""

    exit_code = 8


class AcceptanceFailed(HeadraceError):
    """The dev deployment did not do what it must."""

    exit_code = 9


class Unavailable(HeadraceError):
    """A service, port, disk or machine that is needed does not answer."""

    exit_code = 10
    http_status = 503


class NotAllowed(HeadraceError):
    """Who asks may not do this."""

    exit_code = 11
    http_status = 403


class Cancelled(HeadraceError):
    """A person or a newer trigger stopped this work."""

    exit_code = 130


def raise_together(troubles: Mapping[str, HeadraceError]) -> None:
    """Raise Unavailable with what went wrong for each of several components, if anything did."""
    if troubles:
        facts = " ".join(f"{component}: {error.fact}" for component, error in troubles.items())
        raise Unavailable(facts, next(iter(troubles.values())).remedy)
