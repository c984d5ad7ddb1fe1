"""How a ledger is opened, and what it says when it cannot be."""

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from headrace.clock import ManualClock
from headrace.errors import Unavailable
from headrace.ledger import schema
from headrace.ledger.base import Action, Draft
from headrace.ledger.chain import Head, check_chain, link
from headrace.ledger.sql import SqlLedger
from headrace.types import Actor, Stage


def draft(key: str) -> Draft:
    return Draft("digits", Action.GATED, Actor("person:ada"), "judged", key, version=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with three entries."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", ManualClock())
    for key in "abc":
        ledger.append(draft(key))
    ledger.close()
    return tmp_path / "ledger.db"


def test_the_migrations_end_at_the_schema_that_the_code_knows(path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD
    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []


def test_opening_an_existing_ledger_imports_no_alembic(path: Path) -> None:
    program = (
        "import sys\nfrom headrace.ledger.sql import SqlLedger\n"
        f"assert len(SqlLedger('sqlite:///{path}').history('digits')) == 3\n"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_file_is_durable_and_can_be_read_while_it_is_written(path: Path) -> None:
    engine = schema.open_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


@pytest.mark.parametrize(("revision", "remedy"), [("9999", "newer"), ("0000", "headrace upgrade")])
def test_another_schema_is_refused_with_what_to_do(path: Path, revision: str, remedy: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{revision}'")
    with pytest.raises(Unavailable, match=revision) as refusal:
        SqlLedger(f"sqlite:///{path}")
    assert remedy in refusal.value.remedy


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(Unavailable, match=r"ledger\.db cannot be used: file is not a database"):
        SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE entries SET reason = 'x' WHERE sequence = 2", "entry 2 (gated, 2026-01-01 00:00:00 UTC) was changed"),
        ("DELETE FROM entries WHERE sequence = 2", "entry 2 is missing"),
        ("DELETE FROM entries WHERE sequence = 3", "the chain ends at entry 2, not at 3"),
        ("UPDATE entries SET previous = hash WHERE sequence = 2", "entry 2 does not continue entry 1"),
        ("DELETE FROM entries", "the chain ends at entry 0, not at 3"),
    ],
)
def test_a_changed_row_breaks_the_chain_and_is_named(path: Path, change: str, problem: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    assert SqlLedger(f"sqlite:///{path}").verify("digits").problem.startswith(problem)


def test_a_refused_write_says_what_to_do(path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    with pytest.raises(Unavailable, match="disk is full") as refusal:
        ledger.append(draft("d"))
    assert "Free some space" in refusal.value.remedy
    assert ledger.find("d") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("component", "news"),
        ("at", ManualClock().now().replace(year=2027)),
        ("action", Action.ALARM),
        ("actor", Actor("person:eve")),
        ("reason", "x"),
        ("key", "x"),
        ("stage", Stage.DEV),
        ("version", 7),
        ("from_version", 7),
        ("baseline", "x"),
        ("evidence", {"a": 1}),
    ],
)
def test_every_field_is_part_of_the_hash(name: str, value: Any) -> None:
    entry = link(draft("a"), Head(), at=ManualClock().now())
    assert check_chain("digits", [entry], Head(1, entry.hash)).problem == ""
    assert check_chain("digits", [replace(entry, **{name: value})], Head(1, entry.hash)).problem
