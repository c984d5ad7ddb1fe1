"""The nodes: which workers there are, what they play, and whether they still live."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from headrace.errors import NotFound
from headrace.lifecycle.durable import Role
from headrace.types import Json

BEAT_S = 2.0
#: A node that was not heard for so long is dead; its flows go to others.
STALE_S = 8.0
#: After so long without a heartbeat of its own a node asks before it acts.
LEASE_S = 5.0


class Wish(StrEnum):
    """What a node is to do; told with its next heartbeat."""

    WORK = "work"
    DRAIN = "drain"  #: end what runs and take nothing new
    RESTART = "restart"  #: begin anew, taking work again; what runs goes on where it was


class Condition(StrEnum):
    """How a node is."""

    ALIVE = "alive"
    DRAINING = "draining"
    DRAINED = "drained"
    DEAD = "dead"
    LEFT = "left"  #: stopped in order


ENDED = frozenset({Condition.DEAD, Condition.LEFT})


@dataclass(frozen=True, slots=True)
class Node:
    """One worker.

    Attributes:
        name: unique; also DBOS's executor id, so that a restart on the same node goes on with its own flows.
        session: tells one start of a node from the next.
        protocol: nodes work together only where it is equal.
        figures: cpu_percent, memory_mb, disk_free_gb, gpus, and what it does, as of the last heartbeat.
        beat_ago_s: by the database's clock.
    """

    name: str
    roles: Sequence[Role]
    session: str
    protocol: str
    headrace: str
    host: str
    pid: int
    labels: Sequence[str] = ()
    url: str = ""
    run: str = ""  #: its own run folder, on its own disk
    figures: Mapping[str, Json] = field(default_factory=dict)
    condition: Condition = Condition.ALIVE
    wish: Wish = Wish.WORK
    beat_ago_s: float = 0.0

    @property
    def is_alive(self) -> bool:
        return self.condition not in ENDED

    def as_json(self) -> dict[str, Json]:
        """Return the node as scripts read it."""
        return {
            "name": self.name,
            "roles": [role.value for role in self.roles],
            "labels": list(self.labels),
            "condition": self.condition.value,
            "wish": self.wish.value,
            "host": self.host,
            "pid": self.pid,
            "session": self.session,
            "url": self.url,
            "run": self.run,
            "protocol": self.protocol,
            "headrace": self.headrace,
            "beat_ago_s": round(self.beat_ago_s, 1),
            **dict(self.figures),
        }


class Nodes(Protocol):
    """What every book of nodes does. Writes are durable when they return."""

    def join(self, node: Node) -> None:
        """Enter a node, in place of an earlier start of it.

        Raises:
            Conflict: another process works under this name, or the living ones speak another protocol.
        """
        ...

    def beat(self, node: Node) -> Wish | None:
        """Say that a node lives and return what it is to do; None where it was declared dead or replaced."""
        ...

    def leave(self, node: Node) -> None:
        """Say that a node ends in order."""
        ...

    def bury(self) -> Sequence[Node]:
        """Declare dead who was silent for too long, and return all whose flows others should take."""
        ...

    def all(self) -> Sequence[Node]:
        """Return all nodes by name, the dead of the last day among them."""
        ...

    def wish(self, name: str, wish: Wish) -> Node:
        """Tell a node what to do. Raises NotFound."""
        ...


@dataclass(slots=True)
class OneNode:
    """The book of an installation on files: one process, and nobody to take over from it."""

    node: Node | None = None
    asked: Wish = Wish.WORK

    def join(self, node: Node) -> None:
        self.node = node

    def beat(self, node: Node) -> Wish | None:
        self.node = replace(node, wish=self.asked)
        wish, self.asked = self.asked, Wish.DRAIN if self.asked is Wish.DRAIN else Wish.WORK
        return wish

    def leave(self, node: Node) -> None:
        self.node = None

    def bury(self) -> Sequence[Node]:
        return []

    def all(self) -> Sequence[Node]:
        return [] if self.node is None else [self.node]

    def wish(self, name: str, wish: Wish) -> Node:
        if self.node is None or self.node.name != name:
            known = self.node.name if self.node else "none"
            raise NotFound(f"There is no node {name} (there is: {known}).", "See them with `headrace nodes`.")
        self.asked = wish
        return replace(self.node, wish=wish)
