"""Ledger and durable flows on one real PostgreSQL, as a role without rights beyond its database."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    BasicConstraints,
    CertificateBuilder,
    DNSName,
    ExtensionType,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    random_serial_number,
)
from cryptography.x509.oid import NameOID
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from tests.containers.parts import PASSWORD, own_database, restricted, with_driver

from headrace.config.settings import Settings
from headrace.errors import Unavailable
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.types import Actor, Stage


@pytest.fixture
def database(postgres: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, owned by a role that may nothing else."""
    return own_database(postgres, f"t{os.getpid()}_{abs(hash(request.node.name)) % 10**8}")


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


def flow_over(url: str, settings: Settings, folder: Path) -> list[str]:
    """Return what a flow gives that is killed between its steps and goes on in another process."""
    script = folder / "flow.py"
    script.write_text(FLOW)
    environment = {
        **settings.variables, "HEADRACE_HOME": str(settings.home), "HEADRACE_DATABASE_URL": url,
        "HEADRACE_STATE": str(settings.state),
    }  # fmt: skip
    command = [sys.executable, script, folder / "was-here"]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == 9, killed.stderr
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return again.stdout.split() or [again.stderr]


def test_a_flow_that_was_killed_goes_on_where_it_was(database: str, settings: Settings, tmp_path: Path) -> None:
    assert flow_over(database, settings, tmp_path) == ["50", "SUCCESS"]
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
    assert PASSWORD not in repr(mine)


@pytest.fixture
def roles(postgres: str, database: str) -> tuple[str, str]:
    """The URLs of the tables' owner and of a worker, with the rights that `headrace database-roles` gives it."""
    worker = restricted(postgres, database)
    return with_driver(database), with_driver(worker)


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
    assert flow_over(worker, settings, tmp_path) == ["50", "SUCCESS"]


@pytest.fixture
def authority(postgres: str, tmp_path: Path) -> Iterator[Path]:
    """The certificate of an authority of our own, by which the server from now on answers for `localhost`."""
    signer = ec.generate_private_key(ec.SECP256R1())
    root = certificate("our authority", signer.public_key(), signer, "our authority", BasicConstraints(True, 0))
    key = ec.generate_private_key(ec.SECP256R1())
    names = SubjectAlternativeName([DNSName("localhost")])
    server = certificate("localhost", key.public_key(), signer, "our authority", names)
    engine = create_engine(f"{postgres}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        place = Path(str(connection.execute(text("SHOW data_directory")).scalar()))
        contents = {
            "server.crt": server,
            "server.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        }
        for name, content in contents.items():
            (place / name).touch(mode=0o600)
            (place / name).write_bytes(content)
            os.chown(place / name, (place / "PG_VERSION").stat().st_uid, -1)
        connection.execute(text("ALTER SYSTEM SET ssl = on"))
        connection.execute(text("SELECT pg_reload_conf()"))
        path = tmp_path / "authority.pem"
        path.write_bytes(root)
        yield path
        connection.execute(text("ALTER SYSTEM RESET ssl"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


def certificate(
    name: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, issuer: str, more: ExtensionType
) -> bytes:
    now = datetime.now(UTC)
    made = (
        CertificateBuilder()
        .subject_name(Name([NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(Name([NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(more, critical=True)
        .sign(signer, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def test_ledger_and_flows_ask_the_server_for_its_certificate(
    database: str, authority: Path, settings: Settings, tmp_path: Path
) -> None:
    # By its name, which may stand for another address too.
    named = f"{database.replace('127.0.0.1', 'localhost')}?hostaddr=127.0.0.1&sslmode=verify-full"
    checked = f"{named}&sslrootcert={authority}"
    wait_until_encrypted(with_driver(checked))
    ledger = SqlLedger(with_driver(checked))
    ledger.append(Draft("digits", Action.REGISTERED, Actor("person:ada"), "made", "k0", None, 1))
    ledger.close()
    assert flow_over(checked, settings, tmp_path) == ["50", "SUCCESS"]

    other = tmp_path / "another.pem"
    signer = ec.generate_private_key(ec.SECP256R1())
    other.write_bytes(certificate("another", signer.public_key(), signer, "another", BasicConstraints(True, 0)))
    for url, why in (
        (f"{named}&sslrootcert={other}", "certificate verify failed"),
        (f"{database}?sslmode=verify-full&sslrootcert={authority}", "does not match host name"),
    ):
        with pytest.raises(Unavailable, match=why) as caught:
            SqlLedger(with_driver(url))
        assert PASSWORD not in caught.value.fact
        assert "sslrootcert=" in caught.value.remedy


def wait_until_encrypted(url: str) -> None:
    """Wait until the server has taken its settings up."""
    engine, deadline = create_engine(url, poolclass=NullPool), time.monotonic() + 120
    while True:
        try:
            with engine.connect() as connection:
                query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                assert connection.execute(query).scalar() is True
            return
        except OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
