"""Production is looked at all the time: where it has not been what the ledger says for a while, it is made so again."""

from dataclasses import dataclass, field

from headrace.lifecycle.control import Control
from headrace.types import Stage

LOOK_S = 10.0
#: How long a difference may last before something is done; after each try twice as long, up to the latter.
GRACE_S, LATEST_S = 30.0, 600.0


@dataclass(slots=True)
class Settling:
    """Who looks: the worker that serves.

    A promotion that is under way moves the route itself, and is left alone.
    """

    control: Control
    _since: dict[str, float] = field(default_factory=dict)
    _grace: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Bring up every component whose endpoint died, or serves another than the ledger's version, a while ago."""
        now = self.control.rooms.clock.monotonic_s()
        running = self.control.engine.running()
        for component in self.control.rooms.ledger.components():
            is_moving = any(flow.startswith(f"{component}/promote/") for flow in running)
            if is_moving or self._is_right(component):
                self._since.pop(component, None)
                self._grace.pop(component, None)
                continue
            grace = self._grace.setdefault(component, GRACE_S)
            if now - self._since.setdefault(component, now) >= grace:
                self._grace[component] = min(2 * grace, LATEST_S)
                self._since[component] = now
                self.control.bring_one_up(component)

    def _is_right(self, component: str) -> bool:
        serving = self.control.rooms.ledger.serving(component, Stage.PRODUCTION)
        if serving is None or serving.version is None:
            return True
        status = self.control.rooms.target.status(component, Stage.PRODUCTION)
        return status is not None and status.shares.get(serving.version) == 1
