"""Production is looked at all the time: where it has not been what the ledger says for a while, it is made so again.

What has been kept warm for long enough is let go here, too.
"""

import logging
from dataclasses import dataclass, field

from headrace.deploy.base import Status
from headrace.errors import HeadraceError
from headrace.lifecycle.control import Control
from headrace.lifecycle.production.reconcile import settle
from headrace.lifecycle.versions import recall
from headrace.types import Stage

LOG = logging.getLogger(__name__)
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
    #: By component: what is loaded without traffic beside what the ledger says, and since when.
    _spare: dict[str, tuple[tuple[int, frozenset[int]], float]] = field(default_factory=dict)

    def look(self) -> None:
        """Bring up every component whose endpoint died, or serves another than the ledger's version, a while ago."""
        running = self.control.engine.running()
        for component in self.control.rooms.ledger.components():
            if any(flow.startswith(f"{component}/promote/") for flow in running):
                self._forget(component)
            else:
                self._look_at(component)

    def _look_at(self, component: str) -> None:
        serving = self.control.rooms.ledger.serving(component, Stage.PRODUCTION)
        if serving is None or serving.version is None:
            self._forget(component)
            return
        status = self.control.rooms.target.status(component, Stage.PRODUCTION)
        if status is not None and status.shares.get(serving.version) == 1:
            self._since.pop(component, None)
            self._grace.pop(component, None)
            self._let_go(component, serving.sequence, serving.version, status)
            return
        now = self.control.rooms.clock.monotonic_s()
        grace = self._grace.setdefault(component, GRACE_S)
        if now - self._since.setdefault(component, now) >= grace:
            self._grace[component] = min(2 * grace, LATEST_S)
            self._since[component] = now
            self.control.bring_one_up(component)

    def _forget(self, component: str) -> None:
        for known in (self._since, self._grace, self._spare):
            known.pop(component, None)

    def _let_go(self, component: str, sequence: int, version: int, status: Status) -> None:
        """Unload what has had no traffic for `release.keep_warm_s`, counted from when it was first seen so."""
        rooms = self.control.rooms
        spare = frozenset(status.warm) - {version}
        now = rooms.clock.monotonic_s()
        known, since = self._spare.get(component, (None, now))
        if not spare or known != (sequence, spare):
            self._spare[component] = (sequence, spare), now
            return
        try:
            if now - since < recall(rooms, component, version).settings.release.keep_warm_s:
                return
            self._spare[component] = (sequence, spare), now
            settle(rooms, component)
        except HeadraceError as error:
            LOG.warning("%s: what was kept warm stays loaded: %s", component, error.fact)
