"""Upgrading a ledger in PostgreSQL: rehearsed in a transaction that is given up, backed up with pg_dump."""

import shutil
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from headrace.clock import ManualClock
from headrace.config.settings import Settings
from headrace.errors import Conflict, Unavailable
from headrace.ledger import upgrade as ledger_upgrade
from headrace.ledger.base import SCHEMA, Action, Draft
from headrace.ledger.schema import VERSION_TABLE, engine_of, migrate
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.upkeep.upgrade import upgrade
from headrace.types import Actor, Stage

OLDER = "0001"


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    """Settings with a database that holds a ledger of an older schema."""
    name = f"t{uuid.uuid4().hex}"
    server = create_engine(f"{postgres_url}/postgres", isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    server.dispose()
    url = f"{postgres_url}/{name}"
    ledger = SqlLedger(url, ManualClock())
    ledger.append(Draft("digits", Action.GATED, Actor("person:ada"), "“judged”", "a", version=1))
    ledger.move(Draft("digits", Action.PROMOTED, Actor("person:ada"), "x", "b", Stage.PRODUCTION, 1), expected=None)
    ledger.close()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX entries_by_action"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{OLDER}'"))
    engine.dispose()
    variables = {"HEADRACE_DATABASE_URL": url, "PATH": "/usr/bin:/bin"}
    return Settings(tmp_path / "state", tmp_path / "home", variables=variables).prepare()


def test_a_rehearsal_leaves_no_trace_and_the_upgrade_keeps_every_row(settings: Settings) -> None:
    rehearsed = upgrade(settings, ManualClock(), is_rehearsal=True)
    assert (rehearsed.before, rehearsed.after, rehearsed.is_done) == (OLDER, SCHEMA, False)
    assert rehearsed.rows == {"entries": 2, "heads": 1, "projections": 1}
    engine = engine_of(settings.ledger_url)
    with engine.connect() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == OLDER
        schemas = connection.execute(text("SELECT nspname FROM pg_namespace")).scalars().all()
    engine.dispose()
    assert not [name for name in schemas if "rehearsal" in name]
    if shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    done = upgrade(settings, ManualClock())
    assert done.is_done
    assert (Path(done.backup) / "database.dump").read_bytes().startswith(b"PGDMP")
    ledger = SqlLedger(settings.ledger_url)
    assert ledger.verify("digits").problem == ""
    ledger.close()


def test_a_failed_rehearsal_leaves_the_database_as_it_was(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ledger_upgrade, "migrate_within", lambda connection: connection.execute(text("DELETE FROM projections"))
    )
    with pytest.raises(Unavailable, match="rows of projections"):
        upgrade(settings, ManualClock())
    monkeypatch.undo()
    migrate(engine := engine_of(settings.ledger_url))
    engine.dispose()
    ledger = SqlLedger(settings.ledger_url)
    assert [one.version for one in ledger.unwritten()] == [1]
    ledger.close()


def test_it_is_refused_while_somebody_else_is_connected(settings: Settings) -> None:
    engine = engine_of(settings.ledger_url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(Conflict, match="1 other connections use"):
            upgrade(settings, ManualClock())
    engine.dispose()


def test_a_database_that_does_not_answer_is_told(settings: Settings, tmp_path: Path) -> None:
    away = Settings(
        tmp_path / "state", tmp_path / "home", variables={"HEADRACE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}
    )
    with pytest.raises(Unavailable, match="cannot be read") as refusal:
        upgrade(away, ManualClock())
    assert isinstance(refusal.value.__cause__, OperationalError)
