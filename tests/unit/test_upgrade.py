"""A ledger of every released schema comes through an upgrade row by row, or stays as it was."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from headrace.cli import upgrade as cli
from headrace.clock import ManualClock
from headrace.config.settings import Settings
from headrace.errors import Conflict, Unavailable
from headrace.ledger import upgrade as ledger_upgrade
from headrace.ledger.base import SCHEMA, Action, Draft
from headrace.ledger.schema import MIGRATIONS, VERSION_TABLE
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.home_lock import take_lock
from headrace.lifecycle.upkeep import upgrade as upgrading
from headrace.lifecycle.upkeep.upgrade import upgrade
from headrace.types import Actor, Stage

DUMPS = Path(__file__).parent / "ledgers"
RELEASED = sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("0*.py"))
OLDER = [revision for revision in RELEASED if revision != SCHEMA]
Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "state", tmp_path / "home").prepare()


def restore(settings: Settings, revision: str) -> Path:
    """Put a ledger of an older headrace into a home."""
    path = settings.home / "ledger.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((DUMPS / f"{revision}.sql").read_text(encoding="utf-8"))
        database.execute("PRAGMA journal_mode=WAL")
    return path


def rows(path: Path) -> Rows:
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(database.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


def test_there_is_a_ledger_of_every_released_schema() -> None:
    assert OLDER, "the oldest is kept for ever"
    assert sorted(path.stem for path in DUMPS.glob("*.sql")) == OLDER


@pytest.mark.parametrize("revision", OLDER)
def test_every_row_of_an_older_ledger_is_there_after_the_upgrade(settings: Settings, revision: str) -> None:
    path = restore(settings, revision)
    before = rows(path)
    with pytest.raises(Unavailable, match=f"has schema {revision}"):
        SqlLedger(settings.ledger_url)
    done = upgrade(settings, ManualClock())
    assert (done.before, done.after, done.is_done) == (revision, SCHEMA, True)
    after = rows(path)
    assert after.pop(VERSION_TABLE) == [(SCHEMA,)]
    del before[VERSION_TABLE]
    assert {name: [row[: len(before[name][0])] for row in after[name]] for name in before} == before
    assert done.rows == {name: len(found) for name, found in before.items()}
    ledger = SqlLedger(settings.ledger_url)
    serving = ledger.serving("digits", Stage.PRODUCTION)
    assert serving is not None
    assert serving.version == 1
    assert [one.component for one in ledger.unwritten()] == ["news"]
    ledger.append(Draft("news", Action.RETIRED, Actor("person:ada"), "old", "k", version=2))
    assert [ledger.verify(name).problem for name in ledger.components()] == ["", ""]
    ledger.close()


def test_everything_is_kept_as_it_was_before(settings: Settings) -> None:
    path = restore(settings, OLDER[0])
    before = rows(path)
    with closing(sqlite3.connect(settings.home / "flows.db")) as database:
        database.execute("CREATE TABLE flows (id TEXT)")
    (settings.home / "tokens.json").write_text("[]")
    (settings.home / "triggers" / "digits").mkdir(parents=True)
    (settings.home / "triggers" / "digits" / "marks.json").write_text("{}")
    backup = Path(upgrade(settings, ManualClock()).backup)
    assert backup == settings.home / "backups" / f"20260101-000000-schema-{OLDER[0]}"
    assert rows(backup / "ledger.db") == before
    assert list(rows(backup / "flows.db")) == ["flows"]
    assert (backup / "tokens.json").read_text() == "[]"
    assert (backup / "triggers" / "digits" / "marks.json").exists()
    assert (backup / "ledger.db").stat().st_mode & 0o077 == 0


def test_a_rehearsal_changes_nothing(settings: Settings) -> None:
    path = restore(settings, OLDER[0])
    before = rows(path)
    found = upgrade(settings, ManualClock(), is_rehearsal=True)
    assert (found.is_done, found.after, found.backup) == (False, SCHEMA, "")
    assert rows(path) == before
    assert not (settings.home / "backups").exists()


def loses_a_row(connection: Any) -> None:
    connection.execute(text("DELETE FROM projections"))


def changes_a_row(connection: Any) -> None:
    connection.execute(text("UPDATE entries SET reason = 'x' WHERE sequence = 2"))


def breaks(connection: Any) -> None:
    connection.execute(text("CREATE TABLE half (x INTEGER)"))
    connection.execute(text("SELECT * FROM nowhere"))


@pytest.mark.parametrize(
    ("migration", "fact"),
    [(loses_a_row, "rows of projections"), (changes_a_row, "rows of entries"), (breaks, "no such table: nowhere")],
)
def test_a_failed_rehearsal_leaves_everything_as_it_was(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, migration: Callable[[Any], None], fact: str
) -> None:
    path = restore(settings, OLDER[0])
    before = rows(path)
    monkeypatch.setattr(ledger_upgrade, "migrate_within", migration)
    with pytest.raises(Unavailable, match=fact) as refusal:
        upgrade(settings, ManualClock())
    assert "as it was" in refusal.value.remedy
    assert rows(path) == before
    assert not (settings.home / "backups").exists()
    with pytest.raises(Unavailable, match=fact):
        ledger_upgrade.perform(settings.ledger_url)
    assert rows(path) == before, "the migration itself is given up as a whole, too"


def test_it_is_refused_while_a_control_process_runs(settings: Settings) -> None:
    path = restore(settings, OLDER[0])
    before = rows(path)
    handle = take_lock(settings)
    with pytest.raises(Conflict, match="Another worker of"):
        upgrade(settings, ManualClock())
    with closing(open(handle)):
        assert rows(path) == before


def test_a_broken_chain_is_told_and_not_carried_over(settings: Settings) -> None:
    path = restore(settings, OLDER[0])
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE entries SET reason = 'x' WHERE component = 'news' AND sequence = 2")
        database.commit()
    with pytest.raises(Unavailable, match=r"news: entry 2 \(gated, .*\) was changed after it was written"):
        upgrade(settings, ManualClock())


def test_where_nothing_is_to_be_done_nothing_is(settings: Settings) -> None:
    assert upgrade(settings, ManualClock()).before == ""
    assert not (settings.home / "ledger.db").exists()
    SqlLedger(settings.ledger_url).close()
    found = upgrade(settings, ManualClock())
    assert (found.before, found.after, found.is_done) == (SCHEMA, SCHEMA, False)
    assert not (settings.home / "backups").exists()


def test_a_newer_ledger_is_left_alone(settings: Settings) -> None:
    path = restore(settings, OLDER[0])
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        database.commit()
    with pytest.raises(Unavailable, match="9999") as refusal:
        upgrade(settings, ManualClock())
    assert "newer" in refusal.value.remedy


def test_the_command_says_what_it_did(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(settings, OLDER[0])
    monkeypatch.setenv("HEADRACE_STATE", str(settings.state))
    monkeypatch.setenv("HEADRACE_HOME", str(settings.home))
    monkeypatch.delenv("HEADRACE_DATABASE_URL", raising=False)
    cli.upgrade(dry_run=True, as_json=False)
    assert "20 entries, 2 heads, 6 projections came through" in " ".join(capsys.readouterr().out.split())
    cli.upgrade(dry_run=False, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["done"], document["rows"]["entries"]) == (True, 20)
    cli.upgrade(dry_run=False, as_json=False)
    assert "nothing to upgrade" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "place", "password"),
    [
        ("postgresql+psycopg://u:p%40w@h:5433/db?sslmode=require", "postgresql://u@h:5433/db?sslmode=require", "p@w"),
        ("postgresql://u@/db?host=/run/pg&password=x", "postgresql://u@/db?host=%2Frun%2Fpg", "x"),
        ("postgresql://h/db", "postgresql://h/db", ""),
    ],
)
def test_postgresqls_own_programs_get_the_whole_address(url: str, place: str, password: str) -> None:
    assert upgrading.libpq_url(url) == (place, password)


def test_what_pg_dump_says_is_told_as_text(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "noise" >&2\necho "$@ and $PGPASSWORD" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(Unavailable) as failed:
        upgrading._dump(settings, "postgresql://u:secret@h/db?sslmode=require", tmp_path / "dump")
    wanted = f"--format=custom --file={tmp_path}/dump --dbname=postgresql://u@h/db?sslmode=require and secret"
    assert failed.value.fact == f"`pg_dump` failed: {wanted}; nothing was changed."
