"""The book of nodes and of claims in PostgreSQL, beside the ledger and the flows.

Nothing here is history: a lost table is filled again by the next heartbeats. What may change between releases lies in
one JSON document, so that nodes of different protocols can read enough of each other to refuse.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    create_engine,
    delete,
    extract,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DatabaseError

from headrace.errors import Conflict, NotFound, Unavailable
from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.base import ENDED, STALE_S, Condition, Node, Wish
from headrace.processes import pid_exists
from headrace.types import Json

_LOCK = 0x6865616472616F6E  # of PostgreSQL's advisory lock: one node joins at a time
_FORGET = timedelta(days=1)
_NOW = func.clock_timestamp(type_=DateTime(timezone=True))

metadata = MetaData()

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("session", String(40), nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("condition", String(16), nullable=False),
    Column("wish", String(16), nullable=False),
    Column("beat", DateTime(timezone=True), nullable=False),
    Column("document", Text, nullable=False),
)

#: Which node has a flow, and how often it moved; written only by who has DBOS's owner token.
claims = Table(
    "claims",
    metadata,
    Column("flow", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("node", String(63), nullable=False),
)

#: One row: the mark that the shared folders carry, too.
installation = Table("installation", metadata, Column("mark", String(40), primary_key=True))

# The row stays locked until the transaction ends, so that no hand-over lands between the check and the write.
_OWNER = text("SELECT owner_xid FROM dbos.workflow_status WHERE workflow_uuid = :flow FOR NO KEY UPDATE")


class SqlNodes:
    """The `Nodes` of an installation on PostgreSQL, and the claims of its flows."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = create_engine(url, pool_pre_ping=True, pool_size=4, max_overflow=28)
        with self.writing() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            metadata.create_all(connection)

    def join(self, node: Node) -> None:
        with self.writing() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            known = _read(connection)
            for other in known:
                if other.name == node.name:
                    _refuse_same_name(other, node)
            living = [other for other in known if other.name != node.name and _is_heard(other)]
            _refuse_skew([other for other in living if other.protocol != node.protocol], node)
            connection.execute(delete(nodes).where(nodes.c.beat < _NOW - _FORGET))
            values = _values(node)
            connection.execute(insert(nodes).values(values).on_conflict_do_update(index_elements=["name"], set_=values))

    def beat(self, node: Node) -> Wish | None:
        mine = (nodes.c.name == node.name) & (nodes.c.session == node.session)
        with self.writing() as connection:
            row = connection.execute(
                update(nodes)
                .where(mine, nodes.c.condition.not_in([one.value for one in ENDED]))
                .values(beat=_NOW, condition=node.condition.value, document=_document(node))
                .returning(nodes.c.wish)
            ).first()
        return Wish(row.wish) if row else None

    def leave(self, node: Node) -> None:
        mine = (nodes.c.name == node.name) & (nodes.c.session == node.session)
        with self.writing() as connection:
            connection.execute(update(nodes).where(mine).values(condition=Condition.LEFT.value))

    def bury(self) -> Sequence[Node]:
        silent = nodes.c.beat < _NOW - timedelta(seconds=STALE_S)
        with self.writing() as connection:
            gone = update(nodes).where(silent, nodes.c.condition.not_in([one.value for one in ENDED]))
            connection.execute(gone.values(condition=Condition.DEAD.value))
            dead = [node for node in _read(connection) if not node.is_alive and node.beat_ago_s >= STALE_S]
            # Also for the node itself, should it come back: whoever takes a flow next begins an epoch.
            names = [node.name for node in dead]
            connection.execute(update(claims).where(claims.c.node.in_(names)).values(node=""))
            return dead

    def lead(self, role: Role, name: str) -> bool:
        """Tell whether a node is the one that plays a role that only one may play; it is made it where none lives."""
        flow = f"role/{role.value}"
        with self.writing() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            working = {node.name for node in _read(connection) if node.condition is Condition.ALIVE and _is_heard(node)}
            leader = connection.execute(select(claims.c.node).where(claims.c.flow == flow)).scalar()
            if leader in working or name not in working:
                return bool(leader == name)
            values = {"flow": flow, "epoch": 1, "node": name}
            change = {"epoch": claims.c.epoch + 1, "node": name}
            connection.execute(
                insert(claims).values(values).on_conflict_do_update(index_elements=["flow"], set_=change)
            )
            return True

    def all(self) -> Sequence[Node]:
        with self.writing() as connection:
            return _read(connection)

    def wish(self, name: str, wish: Wish) -> Node:
        with self.writing() as connection:
            connection.execute(update(nodes).where(nodes.c.name == name).values(wish=wish.value))
            known = {node.name: node for node in _read(connection)}
        if name not in known:
            raise NotFound(
                f"There is no node {name} (there are: {', '.join(known) or 'none'}).", "See them with `headrace nodes`."
            )
        return known[name]

    def mark(self, proposed: str, first: Callable[[], None]) -> str:
        """Return the installation's mark; where there is none yet, it is the proposed one from now on.

        Args:
            first: what has to be done before that, by one worker of all that start at once.
        """
        with self.writing() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            found = connection.execute(select(installation.c.mark)).scalar()
            if found is None:
                first()
                connection.execute(insert(installation).values(mark=proposed))
            return str(found or proposed)

    # Claims

    def take(self, flow: str, owner: str, node: str) -> int:
        """Write down that `node` has a flow now, and return how often it moved.

        Raises:
            Superseded: the flow was handed to another execution meanwhile.
        """
        with self.writing() as connection:
            check_owner(connection, flow, owner)
            row = connection.execute(select(claims.c.epoch, claims.c.node).where(claims.c.flow == flow)).first()
            epoch = 1 if row is None else row.epoch + (row.node != node)
            values = {"flow": flow, "epoch": epoch, "node": node}
            connection.execute(
                insert(claims).values(values).on_conflict_do_update(index_elements=["flow"], set_=values)
            )
            return int(epoch)

    def holder(self, flow: str) -> tuple[int, str] | None:
        """Return the epoch and the node of a flow; None where nobody ever had it."""
        with self.writing() as connection:
            row = connection.execute(select(claims.c.epoch, claims.c.node).where(claims.c.flow == flow)).first()
        return (row.epoch, row.node) if row else None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction. Raises Unavailable."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except DatabaseError as error:
            cause = str(error.orig).strip().splitlines()[0]
            place = self._engine.url.render_as_string(hide_password=True)
            raise Unavailable(
                f"The database at {place} does not answer: {cause}", "Start it, or wait for it."
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def check_owner(connection: Connection, flow: str, owner: str) -> None:
    """Raise Superseded unless an execution still has its flow; it keeps it until the transaction ends."""
    if connection.execute(_OWNER, {"flow": flow}).scalar() != owner:
        raise Superseded(f"Another worker has taken over {flow}; what this one still does counts for nothing.")


def _is_heard(node: Node) -> bool:
    return node.is_alive and node.beat_ago_s < STALE_S


def _refuse_same_name(known: Node, node: Node) -> None:
    """Raise Conflict where another process works under the name; one of this very host that is gone does not."""
    is_gone = known.host == node.host and (known.pid == node.pid or not pid_exists(known.pid))
    if _is_heard(known) and not is_gone:
        raise Conflict(
            f"A worker named {node.name} runs already on {known.host} (pid {known.pid}, heard "
            f"{known.beat_ago_s:.0f} s ago).",
            "Give this one another name: `headrace worker --name NAME`.",
        )


def _refuse_skew(others: Sequence[Node], node: Node) -> None:
    if not others:
        return
    named = ", ".join(f"{one.name} on {one.host} (headrace {one.headrace}, protocol {one.protocol})" for one in others)
    raise Conflict(
        f"{node.name} is headrace {node.headrace} and speaks protocol {node.protocol}; at work are {named}.",
        "Install the same headrace everywhere. To move all to another one: `headrace drain NODE` for each, stop them, "
        "`headrace upgrade`, start them again.",
    )


def _values(node: Node) -> dict[str, object]:
    return {
        "name": node.name,
        "session": node.session,
        "protocol": node.protocol,
        "condition": node.condition.value,
        "wish": node.wish.value,
        "beat": _NOW,
        "document": _document(node),
    }


def _document(node: Node) -> str:
    return json.dumps(
        {
            "roles": [role.value for role in node.roles],
            "labels": list(node.labels),
            "headrace": node.headrace,
            "host": node.host,
            "pid": node.pid,
            "url": node.url,
            "run": node.run,
            "figures": dict(node.figures),
        }
    )


def _read(connection: Connection) -> list[Node]:
    ago = extract("epoch", _NOW - nodes.c.beat).label("ago")
    return [_node(row) for row in connection.execute(select(nodes, ago).order_by(nodes.c.name))]


def _node(row: Row[tuple[object, ...]]) -> Node:
    values = row._mapping
    document = json.loads(values["document"])
    known = {role.value for role in Role}
    return Node(
        name=values["name"],
        roles=[Role(name) for name in document["roles"] if name in known],
        session=values["session"],
        protocol=values["protocol"],
        headrace=document["headrace"],
        host=document["host"],
        pid=document["pid"],
        labels=document["labels"],
        url=document["url"],
        run=document["run"],
        figures=cast("dict[str, Json]", document["figures"]),
        condition=Condition(values["condition"]),
        wish=Wish(values["wish"]),
        beat_ago_s=float(values["ago"]),
    )
