"""Ledger and durable flows on one real PostgreSQL, as a role without rights beyond its database."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError
from tests.containers.parts import installed
from tests.contract.conftest import _program, postgres_url  # noqa: F401 - a fixture

from headrace.config.settings import Settings
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.lifecycle.upkeep.roles import prepare
from headrace.types import Actor, Stage


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, owned by a role that may nothing else."""
    if _program("initdb") is None:
        installed("pg_ctlcluster", "postgresql")
    server: str = request.getfixturevalue("postgres_url")
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    name = f"t{os.getpid()}_{abs(hash(request.node.name)) % 10**8}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'only-here' NOSUPERUSER NOCREATEDB NOCREATEROLE"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {name}"))
    engine.dispose()
    address = server.partition("@")[2]
    return f"postgresql://{name}:only-here@{address}/{name}"


FLOW = """
import os, sys
from headrace import wiring
from headrace.config.settings import read_settings
from headrace.lifecycle.durable import Role
from headrace.lifecycle.engine import start_engine

def work(steps, rooms, request):
    first = steps.step("first", lambda: request + 1)
    if not os.path.exists(sys.argv[1]):
        open(sys.argv[1], "w").close()
        os._exit(9)
    return steps.step("second", lambda: first * 10)

settings = read_settings().prepare()
engine = start_engine(wiring.rooms(settings), roles=list(Role), flows={"work": work}, phases={})
engine.start("work", "flow-1", 4)
from dbos import DBOS
print(DBOS.retrieve_workflow("flow-1").get_result(polling_interval_sec=0.05), engine.state("flow-1"))
engine.stop()
"""


def test_a_flow_that_was_killed_goes_on_where_it_was(database: str, settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    script.write_text(FLOW)
    environment = {
        **settings.variables, "HEADRACE_HOME": str(settings.home), "HEADRACE_DATABASE_URL": database,
        "HEADRACE_STATE": str(settings.state),
    }  # fmt: skip
    command = [sys.executable, script, tmp_path / "was-here"]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == 9, killed.stderr
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert again.stdout.split() == ["50", "SUCCESS"], again.stderr
    assert not list(settings.home.glob("*.db"))


def test_the_ledger_keeps_its_chain_beside_the_flows(database: str, settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "database-url"
    secret.write_text(database + "\n")
    mine = replace(settings, variables={**settings.variables, "HEADRACE_DATABASE_URL_FILE": str(secret)})
    ledger, other = SqlLedger(mine.ledger_url), SqlLedger(mine.ledger_url)
    draft = Draft("digits", Action.PROMOTED, Actor("person:ada"), "better", "k1", Stage.PRODUCTION, 1)
    entry = ledger.move(draft, expected=None)
    assert other.serving("digits", Stage.PRODUCTION) == entry
    assert ledger.verify("digits").problem == ""
    # PostgreSQL does not stop while anybody is connected.
    ledger.close()
    other.close()
    assert "only-here" not in repr(mine)


@pytest.fixture
def roles(request: pytest.FixtureRequest, database: str) -> tuple[str, str]:
    """The URLs of the tables' owner and of a worker, with the rights that `headrace database-roles` gives it."""
    server: str = request.getfixturevalue("postgres_url")
    name = database.rpartition("/")[2]
    worker, reader = f"{name}_worker", f"{name}_reader"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for role in (worker, reader):
            connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'only-here'"))
    engine.dispose()
    owner = database.replace("postgresql:", "postgresql+psycopg:")
    for _ in range(2):
        prepare(owner, worker=worker, reader=reader)
    return owner, owner.replace(f"{name}:", f"{worker}:")


FORBIDDEN = (
    "UPDATE entries SET reason = 'another'", "DELETE FROM entries", "TRUNCATE entries", "DROP TABLE entries",
    "ALTER TABLE entries ADD COLUMN more text", "DELETE FROM heads", "DELETE FROM projections",
    "UPDATE projections SET version = 9", "UPDATE ledger_schema SET version_num = '9999'",
    "CREATE TABLE mine (n int)", "DROP SCHEMA dbos CASCADE", "CREATE ROLE another SUPERUSER",
)  # fmt: skip


def test_a_worker_can_neither_change_nor_delete_what_was_decided(roles: tuple[str, str]) -> None:
    owner, worker = roles
    ledger = SqlLedger(worker)
    ledger.append(Draft("digits", Action.REGISTERED, Actor("person:ada"), "made", "k0", None, 1))
    ledger.close()
    engine = create_engine(worker)
    for statement in FORBIDDEN:
        with (
            engine.begin() as connection,
            pytest.raises(ProgrammingError, match=r"permission denied|must be owner|must be superuser"),
        ):
            connection.execute(text(statement))
    engine.dispose()
    seen = SqlLedger(owner)
    assert (seen.verify("digits").problem, seen.verify("digits").entries) == ("", 1)
    seen.close()


def test_a_worker_does_its_whole_work_with_its_few_rights(
    roles: tuple[str, str], settings: Settings, tmp_path: Path
) -> None:
    _, worker = roles
    ledger = SqlLedger(worker)
    for number in (1, 2):
        draft = Draft("digits", Action.PROMOTED, Actor("person:ada"), "it", f"k{number}", Stage.PRODUCTION, number)
        ledger.move(draft, expected=number - 1 or None)
    for projection in ledger.unwritten():
        ledger.mark_written(projection)
    assert not ledger.unwritten()
    ledger.close()
    book = SqlNodes(worker)
    assert book.mark("m" * 32, lambda: None) == "m" * 32
    book.close()
    script = tmp_path / "flow.py"
    script.write_text(FLOW)
    environment = {
        **settings.variables, "HEADRACE_HOME": str(settings.home), "HEADRACE_STATE": str(settings.state),
        "HEADRACE_DATABASE_URL": worker,
    }  # fmt: skip
    command = [sys.executable, script, tmp_path / "was-here"]
    subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert again.stdout.split() == ["50", "SUCCESS"], again.stderr
