"""A home on files becomes one on PostgreSQL and an object store: rehearsed, copied, compared.

The old home is only read.

Nothing there is used before all is there: a migration that breaks off is repeated with the same command, which
replaces the databases' rows and goes on with the files.
"""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from headrace.bucket import Bucket
from headrace.clock import Clock
from headrace.config.settings import Settings
from headrace.deploy.base import Target
from headrace.errors import Conflict, Unavailable
from headrace.files import write_atomically
from headrace.lifecycle.home_lock import take_lock
from headrace.lifecycle.migration import databases
from headrace.lifecycle.migration.artifacts import Moved, copy_artifacts, put_artifacts
from headrace.lifecycle.migration.home import copy_file, copy_home, files_of
from headrace.lifecycle.migration.mark import Mark
from headrace.lifecycle.migration.there import check_settings
from headrace.predictions.comparison import Contents, contents
from headrace.predictions.remote import CACHE, WRITER
from headrace.predictions.segments import SegmentLog
from headrace.predictions.shipping import ship
from headrace.types import Json

SUMMARY = "migration.json"
#: Of a component's predictions, what belongs to the folder and not to the log.
_OWN = frozenset({WRITER, CACHE, ".lock", ".ship.lock"})
#: Tables that are filled in a database that is in use.
_USED = (("ledger", None, "entries"), ("ledger", databases.FLOWS, "workflow_status"), ("mlflow", None, "runs"),
         ("mlflow", None, "registered_models"))  # fmt: skip
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was found and done.

    Attributes:
        tables: rows of each table, equal on both sides by count and digest.
        predictions: by component, equal on both sides.
        artifacts, files: counts, bytes and the digest over all files, each read back.
        is_done: whether the new home is ready; False for a rehearsal.
        was_done: whether an earlier run of the command had done it all.
    """

    source: str
    home: str
    is_done: bool
    was_done: bool = False
    tables: Mapping[str, Json] = field(default_factory=dict)
    predictions: Mapping[str, Json] = field(default_factory=dict)
    artifacts: Mapping[str, Json] = field(default_factory=dict)
    files: Mapping[str, Json] = field(default_factory=dict)

    def as_json(self) -> dict[str, Json]:
        return {
            "source": self.source,
            "home": self.home,
            "done": self.is_done,
            "was_done": self.was_done,
            "tables": dict(self.tables),
            "predictions": dict(self.predictions),
            "artifacts": dict(self.artifacts),
            "files": dict(self.files),
        }


def migrate(
    settings: Settings, to: Settings, target: Target, clock: Clock, *, is_rehearsal: bool = False, told: Told = print
) -> Migrated:
    """Move all that a home on files holds to where `to` says.

    Raises:
        InvalidConfig: the settings are not those of such a move.
        Conflict: something of headrace runs here, a flow has not ended, or somebody else's things are there.
        Unavailable: a part does not answer, or a comparison fails; the old home is as it was.
    """
    check_settings(settings, to)
    lock = take_lock(settings)
    try:
        _refuse_endpoints(target)
        return _Move(settings, to, clock, told).run(is_rehearsal=is_rehearsal)
    finally:
        os.close(lock)


@dataclass(slots=True)
class _Move:
    """One run of the command."""

    settings: Settings
    to: Settings
    clock: Clock
    told: Told

    def run(self, *, is_rehearsal: bool) -> Migrated:
        self.to.home.parent.mkdir(parents=True, exist_ok=True)
        mark = Mark(self._ledger, self._source, str(self.to.home))
        state = mark.state()
        if state == "done":
            known = json.loads((self.to.home / SUMMARY).read_text())
            return Migrated(**{**known, "is_done": True, "was_done": True})
        if not state:
            self._refuse_what_is_used()
        self._check_stores()
        before = self._fingerprint()
        with databases.copied_sources(self.settings, with_mlflow=self._has_mlflow) as sources:
            databases.refuse_unfinished_flows(sources)
            self.told("rehearsing: databases into schemas that are dropped again, predictions on a copy")
            rows = databases.rehearse(sources, self._places, self._change, self._tell_table("rehearsed"))
            known_predictions = self._rehearse_predictions()
            if is_rehearsal:
                tables = {name: one.count for name, one in rows.items()}
                found = {name: one.as_json() for name, one in known_predictions.items()}
                self._check_untouched(before)
                return Migrated(self._source, str(self.to.home), False, tables=tables, predictions=found)
            mark.note("under way", self.clock.now())
            rows = databases.perform(sources, self._places, self._change, self._tell_table("copied"))
        artifacts = self._artifacts()
        self.told("home: versions, models, flows, tokens")
        files = copy_home(self.settings.home, self.to.home).as_json()
        predictions = {name: self._move_predictions(name, one).as_json() for name, one in known_predictions.items()}
        self._check_untouched(before)
        done = Migrated(
            self._source, str(self.to.home), True, False,
            {name: {"rows": one.count, "digest": one.digest} for name, one in rows.items()},
            predictions, artifacts, files,
        )  # fmt: skip
        summary = {
            "source": done.source, "home": done.home, "tables": done.tables, "predictions": done.predictions,
            "artifacts": done.artifacts, "files": done.files,
        }  # fmt: skip
        write_atomically(self.to.home / SUMMARY, json.dumps(summary, indent=1))
        mark.note("done", self.clock.now())
        return done

    # Places

    @property
    def _source(self) -> str:
        return f"{socket.gethostname()}:{self.settings.home.resolve()}"

    @property
    def _has_mlflow(self) -> bool:
        return self.settings.tracking_uri is None

    @property
    def _ledger(self) -> str:
        assert self.to.database_url is not None
        return self.to.database_url

    @property
    def _places(self) -> databases.Places:
        return databases.Places(self._ledger, self.to.mlflow_database_url or self._ledger)

    @property
    def _change(self) -> Moved:
        # The server hands artifacts out, wherever it keeps them.
        new = "mlflow-artifacts:" if self.to.artifacts_url else str(self.to.artifacts)
        return Moved(self.settings.artifacts, new)

    @property
    def _log(self) -> SegmentLog:
        url = self.to.predictions_url
        store = Bucket(url, self.to.s3) if url else None
        return SegmentLog(self.to.predictions, store=store, clock=self.clock)

    # Checks

    def _refuse_what_is_used(self) -> None:
        """Raise Conflict where somebody else's things are there already."""
        places = {"ledger": self._ledger, "mlflow": self._places.mlflow}
        for which, schema, table in _USED:
            if table in databases.tables_of(places[which], schema) and self._count(places[which], schema, table):
                raise Conflict(
                    f"The {which} database has rows in {table}, which no unfinished migration of this home left.",
                    "Name an empty database; what is there is never overwritten.",
                )
        if self.to.predictions_url and self._log.components() and not self.to.home.exists():
            raise Conflict(
                f"{self.to.predictions_url} holds predictions of {', '.join(self._log.components())} already.",
                "Name an empty prefix.",
            )

    def _check_stores(self) -> None:
        for url in filter(None, (self.to.artifacts_url, self.to.predictions_url)):
            Bucket(url, self.to.s3).check()

    def _fingerprint(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for path in files_of(self.settings.home, {"run"}):
            about = path.stat()
            found[str(path)] = (about.st_size, about.st_mtime_ns, about.st_ino)
        return found

    def _check_untouched(self, before: dict[str, tuple[int, int, int]]) -> None:
        after = self._fingerprint()
        changed = sorted({*before.items()} ^ {*after.items()})
        if changed:
            raise Conflict(
                f"{changed[0][0]} was changed while it was copied.",
                "Stop what writes there (`headrace down`), then repeat the command.",
            )

    # Predictions

    def _rehearse_predictions(self) -> dict[str, Contents]:
        """Return what each component's log holds, once rolling it on a copy has changed nothing of that."""
        log, found = SegmentLog(self.settings.predictions), {}
        for component in log.components():
            before = contents(log.snapshot(component))
            with tempfile.TemporaryDirectory(prefix="headrace-migration-") as name:
                copy = SegmentLog(Path(name))
                _copy_log(log.folder(component), copy.folder(component))
                copy.roll(component)
                _compare(component, before, contents(copy.snapshot(component)))
            self.told(f"rehearsed: {before.predictions} predictions and {before.actuals} actuals of {component}")
            found[component] = before
        return found

    def _move_predictions(self, component: str, before: Contents) -> Contents:
        log = self._log
        new = log.folder(component)
        if not new.is_dir():  # Else an earlier run had it whole, and may have shipped some.
            part = new.with_name(f".moving-{component}")
            shutil.rmtree(part, ignore_errors=True)
            _copy_log(self.settings.predictions / component, part)
            part.rename(new)
        remote = log.remote(component)
        if remote is not None:
            ship(remote)
        after = contents(log.snapshot(component))
        _compare(component, before, after)
        self.told(f"moved: {after.predictions} predictions and {after.actuals} actuals of {component}")
        return after

    # The rest

    def _artifacts(self) -> dict[str, Json]:
        old = self.settings.artifacts
        if not self._has_mlflow or not old.is_dir():
            return {}

        def tell(files: int) -> None:
            if files % 500 == 0:
                self.told(f"artifacts: {files} files")

        url = self.to.artifacts_url
        tree = (
            put_artifacts(old, Bucket(url, self.to.s3), tell) if url else copy_artifacts(old, self.to.artifacts, tell)
        )
        self.told(f"artifacts: {tree.files} files, {tree.bytes / 1e6:.1f} MB, each read back")
        return tree.as_json()

    def _tell_table(self, done: str) -> Callable[[str, int], None]:
        return lambda name, rows: self.told(f"{done}: {rows} {name}") if rows else None

    def _count(self, url: str, schema: str | None, table: str) -> int:
        engine = create_engine(url)
        name = f'"{schema}"."{table}"' if schema else f'"{table}"'
        try:
            with engine.connect() as connection:
                return int(connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one())  # noqa: S608
        except SQLAlchemyError as error:
            raise Unavailable(f"{table} cannot be read: {str(error).splitlines()[0]}") from error
        finally:
            engine.dispose()


def _refuse_endpoints(target: Target) -> None:
    found = [f"{one.component} ({one.stage.value})" for one in target.endpoints()]
    if found:
        raise Conflict(f"{', '.join(found)} answers still, and logs predictions.", "Stop it first: headrace down")


def _copy_log(old: Path, new: Path) -> None:
    new.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in files_of(old, _OWN):
        copy_file(path, new / path.relative_to(old))


def _compare(component: str, before: Contents, after: Contents) -> None:
    if before != after:
        raise Unavailable(
            f"The predictions of {component} are not the same: {before.predictions} with {before.actuals} actuals "
            f"before, {after.predictions} with {after.actuals} after.",
            "The old home is as it was; see `headrace predictions check`.",
        )
