"""After a newer headrace was installed: everything is backed up, the ledger's migration is rehearsed, then done.

The engine's own tables are moved by the engine at its next start; they are backed up here, because they have to fit the
ledger if somebody goes back.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from headrace.clock import Clock
from headrace.config.settings import Settings
from headrace.errors import Conflict, Unavailable
from headrace.files import sync_folder
from headrace.ledger import upgrade as ledger
from headrace.ledger.base import SCHEMA
from headrace.ledger.schema import engine_of
from headrace.lifecycle.home_lock import take_lock
from headrace.types import Json

#: Beside the databases, what a home cannot make again.
SETTINGS = ("tokens.json", "notified.json", "triggers", "watch")


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was found and done.

    Attributes:
        before, after: the ledger's schema; empty where there is no ledger yet.
        rows: of each table, the rows that came through unchanged.
        backup: where everything was put before; empty where nothing had to be done.
    """

    before: str
    after: str
    is_done: bool
    rows: Mapping[str, int] = field(default_factory=dict)
    backup: str = ""

    def as_json(self) -> dict[str, Json]:
        return {
            "before": self.before,
            "after": self.after,
            "done": self.is_done,
            "rows": dict(self.rows),
            "backup": self.backup,
        }


def upgrade(settings: Settings, clock: Clock, *, is_rehearsal: bool = False) -> Upgraded:
    """Bring this home's ledger to the schema that this headrace knows; where it is there already, nothing is done.

    Raises:
        Conflict: a control process or another connection uses it.
        Unavailable: the rehearsal failed, or a backup cannot be made; all is as it was.
    """
    before = ledger.revision_of(settings.ledger_url)
    if before in ("", SCHEMA):
        return Upgraded(before, before, False)
    lock = take_lock(settings)
    try:
        _check_is_alone(settings)
        rehearsed = ledger.rehearse(settings.ledger_url)
        if is_rehearsal:
            return Upgraded(before, rehearsed.after, False, rehearsed.rows)
        backup = _back_up(settings, before, clock.now())
        done = ledger.perform(settings.ledger_url)
        return Upgraded(before, done.after, True, done.rows, str(backup))
    finally:
        os.close(lock)


def _check_is_alone(settings: Settings) -> None:
    """Raise Conflict where somebody else is connected to the PostgreSQL: a worker on another machine, say."""
    if settings.database_url is None:
        return
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    engine = engine_of(settings.database_url)
    try:
        with engine.connect() as connection:
            others = int(connection.execute(text(query)).scalar_one())
    finally:
        engine.dispose()
    if others:
        raise Conflict(
            f"{others} other connections use {_without_password(settings.database_url)}.",
            "Stop headrace on every machine first (`headrace down`), then repeat the command.",
        )


def _back_up(settings: Settings, revision: str, now: datetime) -> Path:
    """Return the folder that holds copies of ledger, flows and settings; half a backup is never seen."""
    folder = settings.home / "backups" / f"{now:%Y%m%d-%H%M%S}-schema-{revision}"
    temporary = folder.with_name(f".{folder.name}")
    temporary.mkdir(parents=True, mode=0o700)
    try:
        if settings.database_url is not None:
            _dump(settings, settings.database_url, temporary / "database.dump")
        else:
            for url in (settings.ledger_url, settings.flows_url):
                path = Path(url.removeprefix("sqlite:///"))
                if path.exists():
                    ledger.copy_sqlite(path, temporary / path.name)
        for name in SETTINGS:
            source = settings.home / name
            if source.is_dir():
                shutil.copytree(source, temporary / name)
            elif source.exists():
                shutil.copy2(source, temporary / name)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise Unavailable(
            f"The backup in {folder.parent} cannot be written: {error.strerror}.",
            "Make room on that disk; nothing was changed.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _dump(settings: Settings, url: str, to: Path) -> None:
    """Keep the whole database, as `pg_restore` reads it. Raises Unavailable."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"))
    program = shutil.which("pg_dump") or (str(installed[-1]) if installed else None)
    if program is None:
        raise Unavailable(
            "`pg_dump` is not installed, so the database cannot be backed up; nothing was changed.",
            "Install PostgreSQL's client programs (on Debian: apt-get install postgresql-client).",
        )
    place, password = libpq_url(url)
    done = subprocess.run(
        [program, "--format=custom", f"--file={to}", f"--dbname={place}"],
        # The password goes the way that others on this machine cannot see.
        env={**settings.variables, **({"PGPASSWORD": password} if password else {})}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unavailable(
            f"`pg_dump` failed: {told}; nothing was changed.",
            "Use a `pg_dump` that is at least as new as the server.",
        )
    to.chmod(0o600)


def libpq_url(url: str) -> tuple[str, str]:
    """Return an address as PostgreSQL's own programs read it, `?host=` and `?sslmode=` included; and the password."""
    parsed = make_url(url)
    password = parsed.password or parsed.query.get("password") or ""
    place = parsed.set(drivername="postgresql").difference_update_query(["password"])
    place = URL.create(place.drivername, place.username, None, place.host, place.port, place.database, place.query)
    return place.render_as_string(hide_password=False), str(password)


def _without_password(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)
