"""A target that serves nothing: it remembers what it was told. For tests, and for rehearsals without processes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.deploy.base import Route, Status
from headrace.errors import ModelRefused
from headrace.types import Endpoint, Stage


@dataclass(slots=True)
class MemoryTarget:
    """Remembers routes. Versions in `broken` are refused as if they could not be loaded."""

    broken: set[int] = field(default_factory=set)
    routes: dict[tuple[str, Stage], Route] = field(default_factory=dict)
    generations: dict[tuple[str, Stage], int] = field(default_factory=dict)

    def apply(self, route: Route) -> Status:
        for version in route.versions:
            if version.version in self.broken:
                raise ModelRefused(f"Version {version.version} of {route.component} cannot be loaded.")
        place = (route.component, route.stage)
        if self.routes.get(place) != route:
            self.routes[place] = route
            self.generations[place] = self.generations.get(place, 0) + 1
        return self._status(route)

    def status(self, component: str, stage: Stage) -> Status | None:
        route = self.routes.get((component, stage))
        return None if route is None else self._status(route)

    def remove(self, component: str, stage: Stage) -> None:
        self.routes.pop((component, stage), None)

    def endpoints(self) -> Sequence[Endpoint]:
        return [self._status(route).endpoint for route in self.routes.values()]

    def _status(self, route: Route) -> Status:
        place = (route.component, route.stage)
        endpoint = Endpoint(route.component, route.stage, "http://memory", os.getpid())
        warm = [version.version for version in route.versions]
        return Status(endpoint, self.generations[place], dict(route.shares), warm)
