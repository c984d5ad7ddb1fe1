"""What a worker does besides flows: it reaps the dead, serves where nobody else does, and says how it stands."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headrace import wiring
from headrace.dashboard.server import watch_regularly
from headrace.errors import HeadraceError
from headrace.files import LOG_BYTES, cut
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.base import Condition, Wish
from headrace.lifecycle.nodes.far import endpoints_of, published
from headrace.lifecycle.nodes.heart import Heart
from headrace.lifecycle.nodes.membership import Membership
from headrace.lifecycle.settling import LOOK_S, Settling
from headrace.types import Json

LOG = logging.getLogger("headrace.worker")
TEND_S = 1.0


def cut_logs(run: Path, *, most: int = LOG_BYTES) -> None:
    """Keep the logs of endpoints, their workers and MLflow's server small: these may run for months."""
    for log in (*run.glob("*.log"), *run.glob("*/*.log")):
        cut(log, most=most)


@dataclass(slots=True)
class Post:
    """One worker at work.

    Attributes:
        member: its place among others; None where it is the only one.
    """

    control: Control
    heart: Heart
    member: Membership | None
    roles: Sequence[Role]
    ended: threading.Event
    _endpoints: list[Json] = field(default_factory=list)
    _is_serving: bool = False

    def work(self, is_well: Callable[[], bool]) -> None:
        """Do what has to be done every second, until the end."""
        if Role.MONITOR in self.roles:
            self._begin(watch_regularly, self.control, self.ended)
        if Role.SERVE in self.roles:
            self._ship()
        if Role.SERVE in self.roles and self.member is not None:
            self._begin(self._publish)
        elif Role.SERVE in self.roles:
            self._begin(self.control.bring_up)
        if Role.SERVE in self.roles:
            self._begin(self._settle)
        told = ""
        while is_well() and not self.ended.wait(TEND_S):
            try:
                self._tend()
                told = ""
            except HeadraceError as error:  # The database may be away, and come back.
                if error.fact != told:
                    LOG.warning("%s", error.fact)
                told = error.fact
            except Exception:  # The loop's boundary: what is left undone now is done in a second.
                LOG.exception("tending")

    def doing(self) -> Mapping[str, Json]:
        """Return what the worker does, as a heartbeat tells it."""
        return {"doing": list(self.control.engine.doing()), "endpoints": self._endpoints}

    def _ship(self) -> None:
        """Put into the object store, where there is one, what endpoints of this machine have logged."""
        settings = self.control.rooms.settings
        if settings.predictions_url:
            from headrace.predictions.shipping import Shipper

            self._begin(Shipper(wiring.segment_log(settings)).work, self.ended)

    def _begin(self, task: Callable[..., object], *args: object) -> None:
        threading.Thread(target=task, args=args, name=getattr(task, "__name__", "task"), daemon=True).start()

    def _tend(self) -> None:
        if self.heart.node.wish is Wish.DRAIN:
            condition = Condition.DRAINING if self.control.engine.doing() else Condition.DRAINED
            self.heart.node = replace(self.heart.node, condition=condition)
        if self.member is not None and Role.SERVE in self.roles:
            self._serve_alone(self.member)
        if self.member is not None and Role.CONTROL in self.roles:
            self._reap(self.member)

    def _reap(self, member: Membership) -> None:
        dead = [node.name for node in member.book.bury() if node.name != member.name]
        count = self.control.engine.hand_on(dead)
        if count:
            LOG.warning("%d flows and phases of %s go to others", count, ", ".join(dead))

    def _serve_alone(self, member: Membership) -> None:
        """Begin to serve where nobody else does, and stop where somebody else has begun."""
        is_serving = member.book.lead(Role.SERVE, member.name)
        if is_serving and not self._is_serving:
            LOG.info("%s serves from now on", member.name)
            self.control.engine.listen(Role.SERVE)
            self._begin(self.control.bring_up)
        elif not is_serving:
            self._leave_to_others(member)
        self._is_serving = is_serving

    def _leave_to_others(self, member: Membership) -> None:
        """Take down what another node answers for by now."""
        elsewhere = {
            (one.component, one.stage)
            for node in member.book.all()
            if node.is_alive and node.name != member.name
            for one in endpoints_of(node)
        }
        for endpoint in self.control.rooms.target.endpoints():
            if (endpoint.component, endpoint.stage) in elsewhere:
                LOG.info("%s is served elsewhere by now", endpoint.component)
                self.control.rooms.target.remove(endpoint.component, endpoint.stage)

    def _settle(self) -> None:
        settling = Settling(self.control)
        while not self.ended.wait(LOOK_S):
            try:
                cut_logs(self.control.rooms.settings.run)
                if self.member is None or self._is_serving:
                    settling.look()
            except HeadraceError as error:
                LOG.warning("production: %s", error.fact)
            except Exception:  # The loop's boundary: ledger or endpoint may be away for a moment.
                LOG.exception("production")

    def _publish(self) -> None:
        while not self.ended.wait(TEND_S):
            try:
                self._endpoints = published(self.control.rooms.target)
            except HeadraceError as error:
                LOG.warning("endpoints: %s", error.fact)
            except Exception:  # The loop's boundary: an endpoint may be in the middle of its start or end.
                LOG.exception("endpoints")
