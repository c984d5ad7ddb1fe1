"""What every ledger does, run over every back end."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.errors import Conflict, InvalidInput, Unavailable
from headrace.ledger.base import Action, Draft
from headrace.ledger.memory import MemoryLedger
from headrace.ledger.sql import SqlLedger
from headrace.types import Actor, Stage

ADA = Actor("person:ada")
Open = Callable[[], Any]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the same ledger once more."""
    ledgers: list[SqlLedger] = []
    if request.param == "memory":
        memory = MemoryLedger(ManualClock())
        yield lambda: memory
        return
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = _new_database(request.getfixturevalue("postgres_url"))

    def open_again() -> SqlLedger:
        ledgers.append(SqlLedger(url, ManualClock()))
        return ledgers[-1]

    yield open_again
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def ledger(opened: Open) -> Any:
    return opened()


def _new_database(server: str, options: str = "") -> str:
    from sqlalchemy import create_engine, text

    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
    engine.dispose()
    return f"{server}/{name}"


def test_a_database_without_an_encoding_is_refused(postgres_url: str) -> None:
    url = _new_database(postgres_url, "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    with pytest.raises(Unavailable, match="has the encoding SQL_ASCII") as caught:
        SqlLedger(url, ManualClock())
    assert "ENCODING 'UTF8'" in caught.value.remedy


def promotion(version: int | None, key: str = "", component: str = "digits") -> Draft:
    return Draft(
        component,
        Action.PROMOTED,
        ADA,
        "it is better",
        key or f"promote-{version}",
        Stage.PRODUCTION,
        version,
        "b" * 64,
    )


def note(key: str, component: str = "digits", **more: Any) -> Draft:
    return Draft(component, Action.GATED, Actor("monitor:output-drift"), "judged", key, version=1, **more)


def test_an_entry_comes_back_as_it_was_written(opened: Open) -> None:
    evidence = {"accuracy": 0.9613, "slices": {"α": [1, None, True]}, "rows": 500}
    written = opened().append(note("k", evidence=evidence, stage=Stage.DEV, baseline="c" * 64))
    assert opened().find("k") == written
    assert opened().history("digits") == [written]
    assert written.sequence == 1
    assert written.previous == "0" * 64
    assert written.evidence == evidence


def test_a_repeat_with_the_same_key_writes_nothing(ledger: Any) -> None:
    first = ledger.append(note("k"))
    assert ledger.append(note("k", baseline="d" * 64)) == first
    assert len(ledger.history("digits")) == 1


def test_a_move_is_refused_when_another_version_serves(ledger: Any) -> None:
    ledger.move(promotion(1), expected=None)
    with pytest.raises(Conflict, match=r"Version 1 of digits serves in production by now \(by person:ada"):
        ledger.move(promotion(2), expected=None)
    assert ledger.serving("digits", Stage.PRODUCTION).version == 1
    assert len(ledger.history("digits")) == 1
    assert ledger.verify("digits").problem == ""


def test_a_move_names_what_served_before(ledger: Any) -> None:
    ledger.move(promotion(1), expected=None)
    entry = ledger.move(promotion(2), expected=1)
    assert (entry.from_version, entry.version) == (1, 2)
    assert ledger.serving("digits", Stage.PRODUCTION) == entry
    assert ledger.serving("digits", Stage.DEV) is None


def test_a_repeated_move_returns_the_first_entry_even_after_others(ledger: Any) -> None:
    first = ledger.move(promotion(1), expected=None)
    ledger.move(promotion(2), expected=1)
    assert ledger.move(promotion(1), expected=None) == first
    assert ledger.serving("digits", Stage.PRODUCTION).version == 2


def test_a_stage_can_be_emptied(ledger: Any) -> None:
    ledger.move(promotion(1), expected=None)
    ledger.move(promotion(None, "empty"), expected=1)
    assert ledger.serving("digits", Stage.PRODUCTION) is None
    ledger.move(promotion(1, "again"), expected=None)
    assert ledger.serving("digits", Stage.PRODUCTION).version == 1


def test_components_have_chains_of_their_own(ledger: Any) -> None:
    for component in ("news", "digits"):
        ledger.append(note(f"{component}-1", component))
        ledger.move(promotion(1, f"{component}-2", component), expected=None)
    assert ledger.components() == ["digits", "news"]
    assert [entry.sequence for entry in ledger.history("news")] == [2, 1]
    assert [entry.sequence for entry in ledger.history("news", limit=1)] == [2]
    assert ledger.history("unknown") == []
    verification = ledger.verify("digits")
    assert (verification.entries, verification.problem) == (2, "")
    assert verification.head == ledger.history("digits")[0].hash


def test_a_number_that_json_lacks_is_refused_and_nothing_is_written(ledger: Any) -> None:
    with pytest.raises(InvalidInput, match="NaN or infinite"):
        ledger.append(note("k", evidence={"accuracy": float("nan")}))
    assert ledger.history("digits") == []
    assert ledger.components() == []


def test_promotions_go_through_compare_and_swap_only(ledger: Any) -> None:
    with pytest.raises(ValueError, match="use `move`"):
        ledger.append(promotion(1))
    with pytest.raises(ValueError, match="use `append`"):
        ledger.move(note("k"), expected=None)


def test_of_twenty_promotions_at_once_one_wins_each_round(opened: Open) -> None:
    opened().move(promotion(0), expected=None)
    serving = 0
    for turn in range(3):
        barrier = threading.Barrier(20)

        def promote(
            number: int, turn: int = turn, expected: int = serving, barrier: threading.Barrier = barrier
        ) -> str:
            ledger = opened()
            barrier.wait()
            try:
                ledger.move(promotion(100 * turn + number, f"{turn}-{number}"), expected=expected)
            except Conflict as error:
                return error.fact
            return ""

        with ThreadPoolExecutor(20) as pool:
            outcomes = list(pool.map(promote, range(1, 21)))
        winners = [100 * turn + number for number, outcome in enumerate(outcomes, 1) if not outcome]
        assert len(winners) == 1
        serving = opened().serving("digits", Stage.PRODUCTION).version
        assert winners == [serving]
        assert all(f"Version {serving} of digits serves" in outcome for outcome in outcomes if outcome)
    verification = opened().verify("digits")
    assert (verification.entries, verification.problem) == (4, "")


def test_one_key_at_once_from_many_writes_one_entry(opened: Open) -> None:
    ledgers = [opened() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda ledger: ledger.append(note("k")), ledgers))
    assert len({entry.hash for entry in written}) == 1
    assert opened().verify("digits").entries == 1


def test_the_outbox_holds_what_moves_ask_for_until_it_is_written(opened: Open) -> None:
    ledger = opened()
    assert ledger.wrote("digits", Stage.PRODUCTION) == {None}
    ledger.append(note("k"))
    assert list(ledger.unwritten()) == []
    ledger.move(promotion(1), expected=None)
    assert ledger.wrote("digits", Stage.PRODUCTION) == {None, 1}, "there was no alias before the first"
    [first] = opened().unwritten()
    assert (first.component, first.stage, first.version) == ("digits", Stage.PRODUCTION, 1)
    ledger.move(promotion(2), expected=1)
    [second] = ledger.unwritten()
    assert second.version == 2
    ledger.mark_written(first)
    assert list(ledger.unwritten()) == [second]
    assert ledger.wrote("digits", Stage.PRODUCTION) == {1, 2}
    ledger.mark_written(second)
    ledger.mark_written(second)
    assert list(ledger.unwritten()) == []
    assert ledger.wrote("digits", Stage.PRODUCTION) == {2}


def test_entries_are_selected_by_action_and_version(ledger: Any) -> None:
    for number in (1, 2, 3):
        ledger.append(Draft("digits", Action.REGISTERED, ADA, "new", f"r{number}", version=number))
    ledger.append(Draft("digits", Action.REFUSED, ADA, "worse", "x2", version=2))
    ledger.append(Draft("other", Action.REGISTERED, ADA, "new", "o9", version=9))
    found = ledger.select("digits", {Action.REGISTERED, Action.REFUSED}, version=2)
    assert [(entry.action, entry.version) for entry in found] == [(Action.REFUSED, 2), (Action.REGISTERED, 2)]
    assert [entry.version for entry in ledger.select("digits", {Action.REGISTERED}, limit=2)] == [3, 2]
    assert ledger.select("digits", {Action.PROMOTED}) == []
    assert ledger.versions("digits") == [1, 2, 3]
