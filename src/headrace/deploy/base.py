"""Targets: where a stage of a component runs. A target is told what should serve and makes it so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace.config.component import Serve
from headrace.types import Endpoint, Json, ServedVersion, Stage


@dataclass(frozen=True, slots=True)
class Route:
    """What an endpoint should do.

    Attributes:
        versions: all that must be loaded and warm; those without a share are kept for an instant rollback.
        shares: version number to its share of traffic; they add up to 1.
        shadow: versions that get copies of the requests; their answers are logged and never returned.
    """

    component: str
    stage: Stage
    versions: Sequence[ServedVersion]
    shares: Mapping[int, float]
    serve: Serve = field(default_factory=Serve)
    shadow: Sequence[int] = ()
    shadow_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """How an endpoint stands.

    Attributes:
        generation: rises by one with every committed route.
        warm: the versions that are loaded.
        measured: of each version that tells: load_s, peak_mb, forward_ms by number of rows; image, by its digest.
        problem: the first cause where it does not serve, or does not keep what it answers; empty where all is well.
        predict_keys, feedback_keys: the variables that hold the keys it asks for; empty where it asks for none.
    """

    endpoint: Endpoint
    generation: int
    shares: Mapping[int, float]
    warm: Sequence[int]
    restarts: int = 0
    problem: str = ""
    measured: Mapping[int, Mapping[str, Json]] = field(default_factory=dict)
    predict_keys: Sequence[str] = ()
    feedback_keys: Sequence[str] = ()


class Target(Protocol):
    """What every place to serve does."""

    def apply(self, route: Route) -> Status:
        """Make the endpoint serve `route`: prepare every version (verified, loaded, warm), then swap the route.

        Starts the endpoint where none runs. A repeat with the same route changes nothing. On an error the route
        that was there before goes on serving.

        Raises:
            ModelRefused: a version could not be verified, loaded, or gave other than its golden answers.
            Unavailable: the port is taken, or the endpoint did not come up; the first cause is named.
        """
        ...

    def status(self, component: str, stage: Stage) -> Status | None:
        """Return how the endpoint stands; None where none runs."""
        ...

    def remove(self, component: str, stage: Stage) -> None:
        """Drain and stop the endpoint, and wait until it is gone. Removing what is not there is no error."""
        ...

    def endpoints(self) -> Sequence[Endpoint]:
        """Return all endpoints that run here."""
        ...
