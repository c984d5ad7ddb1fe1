"""One process's place among the nodes: its claims, and the work that it left running when it lost them."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from headrace.config.settings import Settings
from headrace.errors import HeadraceError
from headrace.files import write_atomically
from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.nodes.heart import Heart
from headrace.lifecycle.nodes.sql import SqlNodes, check_owner
from headrace.lifecycle.request import folder_name
from headrace.lifecycle.rooms import place_of
from headrace.training import supervise

LOG = logging.getLogger("headrace.nodes")


@dataclass(frozen=True, slots=True)
class Owned:
    """The `Claim` of one execution: DBOS's owner token, as the database holds it."""

    flow: str
    owner: str
    epoch: int
    book: SqlNodes
    heart: Heart

    def check(self) -> None:
        with self.book.writing() as connection:
            self.check_in(connection)

    def check_in(self, connection: Connection) -> None:
        """Check in a transaction of the same database, and keep the claim until it ends. Raises Superseded."""
        check_owner(connection, self.flow, self.owner)

    def is_lost(self) -> bool:
        if self.heart.is_fresh():
            return False
        try:
            self.check()
        except Superseded:
            return True
        except HeadraceError:
            # Without the database nobody can have taken it over.
            return False
        return False


@dataclass(frozen=True, slots=True)
class Membership:
    """A node's name, heart and claims."""

    settings: Settings
    book: SqlNodes
    heart: Heart

    @property
    def name(self) -> str:
        return self.heart.node.name

    def claim(self, flow: str, owner: str) -> Owned:
        """Write down that this node has a flow. Raises Superseded."""
        epoch = self.book.take(flow, owner, self.name)
        note = {"flow": flow, "epoch": epoch}
        write_atomically(self._notes / f"{folder_name(flow)}.json", json.dumps(note))
        return Owned(flow, owner, epoch, self.book, self.heart)

    def forget(self, flow: str) -> None:
        """A flow ended here: nothing of it has to be ended at the next start."""
        (self._notes / f"{folder_name(flow)}.json").unlink(missing_ok=True)

    def clear_away(self) -> None:
        """End the children of flows that this node had and that others have by now."""
        for path in sorted(self._notes.glob("*.json")):
            try:
                note = json.loads(path.read_text())
            except FileNotFoundError:
                continue  # The flow has just ended here.
            if self.book.holder(note["flow"]) != (note["epoch"], self.name):
                self._end_work(note["flow"], note["epoch"])
                path.unlink(missing_ok=True)

    def _end_work(self, flow: str, epoch: int) -> None:
        # Only phases have children; a phase's id is its flow's with the phase's name behind it.
        place = place_of(self.settings.flows / folder_name(flow.rpartition("/")[0]), epoch)
        for child in sorted(place.glob("*/pid.json")):
            LOG.warning("ending what is left of %s in %s: another worker has it", flow, child.parent)
            supervise.stop(child.parent)

    @property
    def _notes(self) -> Path:
        return self.settings.run / "claims"
