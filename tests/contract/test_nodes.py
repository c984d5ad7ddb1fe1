"""The book of nodes and claims on a real PostgreSQL: who lives, who has a flow, and who is refused."""

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text
from tests.contract.conftest import postgres_url  # noqa: F401 - a fixture

from headrace.errors import Conflict, NotFound
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.base import Condition, Node, OneNode, Wish
from headrace.lifecycle.nodes.heart import Heart
from headrace.lifecycle.nodes.membership import Owned
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.types import Actor

FLOW = "digits/person-1/1/train"


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """An empty database, with as much of DBOS's table as is looked at."""
    server = request.getfixturevalue("postgres_url")
    name = f"nodes_{uuid.uuid4().hex[:12]}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    run(f"{server}/{name}", "CREATE SCHEMA dbos")
    run(f"{server}/{name}", "CREATE TABLE dbos.workflow_status (workflow_uuid text primary key, owner_xid text)")
    return f"{server}/{name}"


def run(url: str, statement: str, **values: object) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


def own(url: str, owner: str | None) -> None:
    """Hand the flow to an execution, as DBOS does."""
    run(
        url,
        "INSERT INTO dbos.workflow_status VALUES (:flow, :owner) "
        "ON CONFLICT (workflow_uuid) DO UPDATE SET owner_xid = :owner",
        flow=FLOW, owner=owner,
    )  # fmt: skip


def silence(url: str, name: str) -> None:
    """Let a node have been silent for a minute."""
    run(url, "UPDATE nodes SET beat = beat - interval '1 minute' WHERE name = :name", name=name)


@pytest.fixture
def book(url: str) -> Iterator[SqlNodes]:
    book = SqlNodes(url)
    yield book
    book.close()


def node(name: str, *, session: str = "1", protocol: str = "1", host: str = "elsewhere", pid: int = 1) -> Node:
    return Node(name, [Role.TRAIN], session, protocol, "0.1.0", host, pid)


def test_a_silent_node_is_dead_and_its_heart_is_told(book: SqlNodes, url: str) -> None:
    heart, other = Heart(book, node("a")), node("b")
    book.join(heart.node)
    book.join(other)
    heart.beat()
    assert not heart.is_dead
    assert book.bury() == []
    silence(url, "a")
    assert [one.name for one in book.bury()] == ["a"]
    heart.beat()
    assert heart.is_dead
    assert {one.name: one.condition for one in book.all()} == {"a": Condition.DEAD, "b": Condition.ALIVE}


def test_a_name_is_given_once_while_its_node_is_heard(book: SqlNodes, url: str) -> None:
    book.join(node("a"))
    with pytest.raises(Conflict, match="named a runs already on elsewhere"):
        book.join(node("a", session="2", pid=2))
    silence(url, "a")
    book.join(node("a", session="2", pid=2))
    assert book.beat(node("a")) is None
    assert book.beat(node("a", session="2", pid=2)) is Wish.WORK


def test_a_node_whose_process_is_gone_may_begin_again_at_once(book: SqlNodes) -> None:
    book.join(node("a", pid=2**22 + 1))
    book.join(node("a", session="2", pid=2))


def test_another_protocol_is_refused_only_while_others_work(book: SqlNodes, url: str) -> None:
    book.join(node("a"))
    with pytest.raises(Conflict, match=r"speaks protocol 2; at work are a on elsewhere \(headrace 0.1.0, protocol 1\)"):
        book.join(node("b", protocol="2"))
    silence(url, "a")
    book.join(node("b", protocol="2"))


def test_a_wish_is_told_with_the_next_heartbeat(book: SqlNodes) -> None:
    told: list[Wish] = []
    heart = Heart(book, node("a"), on_wish=told.append)
    book.join(heart.node)
    book.wish("a", Wish.DRAIN)
    heart.beat()
    heart.beat()
    assert told == [Wish.DRAIN]
    with pytest.raises(NotFound, match=r"no node b \(there are: a\)"):
        book.wish("b", Wish.DRAIN)


def test_an_epoch_rises_with_another_node_and_after_a_death_not_with_a_restart(book: SqlNodes, url: str) -> None:
    for name in ("a", "b"):
        book.join(node(name))
    own(url, "x1")
    assert book.take(FLOW, "x1", "a") == 1
    own(url, "x2")
    assert book.take(FLOW, "x2", "a") == 1
    own(url, "x3")
    assert book.take(FLOW, "x3", "b") == 2
    silence(url, "b")
    book.bury()
    own(url, "x4")
    assert book.take(FLOW, "x4", "b") == 3
    assert book.holder(FLOW) == (3, "b")


def test_who_was_stopped_before_claiming_cannot_claim_on_top(book: SqlNodes, url: str) -> None:
    own(url, "new")
    assert book.take(FLOW, "new", "b") == 1
    with pytest.raises(Superseded):
        book.take(FLOW, "old", "a")
    assert book.holder(FLOW) == (1, "b")


def test_a_late_entry_is_refused_in_its_own_transaction(book: SqlNodes, url: str) -> None:
    heart = Heart(book, node("a"))
    book.join(heart.node)
    own(url, "mine")
    claim = Owned(FLOW, "mine", book.take(FLOW, "mine", "a"), book, heart)
    ledger = SqlLedger(url)
    guarded = ledger.guarded(claim.check_in)
    draft = Draft("digits", Action.REGISTERED, Actor("a"), "in time", "k1", version=1)
    guarded.append(draft)
    own(url, None)
    with pytest.raises(Superseded):
        guarded.append(replace(draft, key="k2"))
    with pytest.raises(Superseded):
        guarded.append(draft)
    assert [entry.reason for entry in ledger.history("digits")] == ["in time"]
    assert ledger.verify("digits").problem == ""
    ledger.close()


def test_a_claim_is_asked_for_once_the_heart_is_late(book: SqlNodes, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heart = Heart(book, node("a"))
    own(url, "mine")
    claim = Owned(FLOW, "mine", 1, book, heart)
    own(url, "other")
    assert not claim.is_lost()
    monkeypatch.setattr("headrace.lifecycle.nodes.heart.LEASE_S", -1.0)
    assert claim.is_lost()
    own(url, "mine")
    assert not claim.is_lost()


def test_one_of_several_leads_until_it_is_gone_or_drained(book: SqlNodes, url: str) -> None:
    for name in ("a", "b"):
        book.join(node(name))
    assert book.lead(Role.SERVE, "a")
    assert not book.lead(Role.SERVE, "b")
    assert book.lead(Role.SERVE, "a")
    silence(url, "a")
    assert book.lead(Role.SERVE, "b")
    assert not book.lead(Role.SERVE, "a")


def test_one_node_hears_what_it_is_to_do() -> None:
    told: list[Wish] = []
    book = OneNode()
    heart = Heart(book, node("here"), on_wish=told.append)
    book.join(heart.node)
    heart.beat()
    book.wish("here", Wish.DRAIN)
    heart.beat()
    book.wish("here", Wish.RESTART)
    heart.beat()
    assert told == [Wish.DRAIN, Wish.RESTART]
    (shown,) = book.all()
    assert shown.as_json()["name"] == "here"
    assert shown.figures["memory_gb"]
    with pytest.raises(NotFound, match="no node there"):
        book.wish("there", Wish.DRAIN)
