"""Rounds of shipping: what was acknowledged on this machine goes into the object store.

Whoever serves needs no key to the store: a worker does this beside the endpoints, from the same folder.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.errors import HeadraceError
from headrace.predictions import upkeep
from headrace.predictions.actuals import roll_actuals
from headrace.predictions.manifest import Segment
from headrace.predictions.remote import CACHE, Remote, Shipped
from headrace.predictions.roll import roll
from headrace.predictions.segments import SegmentLog

log = logging.getLogger(__name__)
EVERY_S = 30.0
#: So many small segments of one version and day, or of actuals, are merged.
MANY = 24


def ship(remote: Remote) -> Shipped:
    """Put all that no living writer still has open into the store, and tidy up there. A repeat changes nothing.

    Raises:
        Unavailable: the store does not take it; it stays here.
    """
    roll(remote.folder)
    roll_actuals(remote.folder)
    upkeep.compact(remote.folder, clock=remote.clock)
    shipped = remote.ship()
    merge_small(remote)
    remote.sweep()
    return shipped


def merge_small(remote: Remote, *, many: int = MANY) -> int:
    """Merge this writer's small segments in the store, where there are many; return how many went into others."""
    merged = 0
    days: dict[tuple[int, str], list[Segment]] = {}
    own = remote.own()
    for one in (*own.predictions, *own.actuals):
        if not upkeep.is_full(one):
            # Actuals go by their latest id, to three days of its time: whole files are dropped when all in them is old.
            days.setdefault((one.version, one.day or one.last[:5]), []).append(one)
    for small in days.values():
        if len(small) < many:
            continue
        for one in small:
            remote.file(one)
        for group in upkeep.groups(remote.folder / CACHE, small):
            if len(group) > 1 and remote.replace(group, [upkeep.merge(remote.folder / CACHE, group)]):
                merged += len(group)
    return merged


@dataclass(slots=True)
class Shipper:
    """Ships all components' logs, round after round.

    Attributes:
        problems: by component, why its last round failed; its rows wait here.
    """

    log: SegmentLog
    problems: dict[str, str] = field(default_factory=dict)

    def work(self, ended: threading.Event, *, every_s: float = EVERY_S) -> None:
        """Ship until told to stop, and once more then."""
        while True:
            is_last = ended.wait(every_s)
            try:
                self.round()
            except Exception:  # The loop's boundary: what is left undone now is done in the next round.
                log.exception("shipping")
            if is_last:
                return

    def round(self) -> Mapping[str, Shipped]:
        """Ship once; one component's trouble holds up no other."""
        done = {}
        for component in self.log.local():
            remote = self.log.remote(component)
            if remote is None:
                continue
            try:
                done[component] = ship(remote)
                self._tell(component, "")
            except HeadraceError as error:
                self._tell(component, f"{error.fact} {error.remedy}".strip())
            except OSError as error:
                self._tell(component, f"{remote.folder} cannot be read or written: {error.strerror or error}.")
            except Exception as error:  # noqa: BLE001 - whatever it is: the others' turn comes all the same
                self._tell(component, f"{type(error).__name__}: {error}")
        return done

    def _tell(self, component: str, problem: str) -> None:
        if problem and problem != self.problems.get(component):
            log.warning("The predictions of %s wait in the local folder: %s", component, problem)
        if not problem and self.problems.pop(component, ""):
            log.info("The predictions of %s go to the store again", component)
        if problem:
            self.problems[component] = problem
