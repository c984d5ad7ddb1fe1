"""A laptop's home moves to PostgreSQL and S3, is stopped half way, goes on, and everything is there and still valid.

.venv/bin/python -m benchmarks.migrate --json [--smoke]
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.object_store import Absent, Store, rclone
from benchmarks.postgres import Postgres, running
from benchmarks.report import Claim, report
from headrace import wiring
from headrace.config.component import Component
from headrace.config.settings import Settings, read_settings
from headrace.errors import HeadraceError
from headrace.ledger.base import Action, Draft
from headrace.lifecycle.evidence.doors import admit_version, verify_version
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember, served_version, version_folder
from headrace.predictions.ids import Ids
from headrace.predictions.query import connect
from headrace.predictions.segments import SegmentLog
from headrace.predictions.writer import PredictionWriter
from headrace.processes import free_port
from headrace.provenance import baseline, sign
from headrace.provenance.code import Code
from headrace.provenance.digest import digest_folder
from headrace.registry.base import RunState
from headrace.types import UNNAMED, Actor, Golden, Stage

COMPONENT = "digits"
ADA = Actor("person:ada")
HEADRACE = Path(sys.executable).with_name("headrace")
MLMODEL = """
flavors:
  python_function: {loader_module: mlflow.onnx, data: model.onnx}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
"""
#: One finished flow, kept by the durable engine.
FLOW = """
from headrace import wiring
from headrace.config.settings import read_settings
from headrace.lifecycle.durable import Role
from headrace.lifecycle.engine import start_engine
import sys
settings = read_settings().prepare()
engine = start_engine(wiring.rooms(settings), roles=list(Role), flows={"work": lambda s, r, q: q}, phases={})
if sys.argv[1] == "run":
    engine.start("work", "digits/person-1/1", 4)
    from dbos import DBOS
    DBOS.retrieve_workflow("digits/person-1/1").get_result(polling_interval_sec=0.05)
print(engine.state("digits/person-1/1"))
engine.stop()
"""


def run(*, smoke: bool) -> str:
    runs, versions, predictions = (60, 5, 5_000) if smoke else (1_000, 50, 100_000)
    try:
        with running() as database, rclone() as store, tempfile.TemporaryDirectory(prefix="headrace-migrate-") as name:
            found = measure(Path(name), database, store, runs, versions, predictions)
    except (FileNotFoundError, Absent) as error:
        return report("migrate", [], [Claim("counts_and_digests_equal", None, "== True", None, str(error))])
    return report("migrate", [found], list(judge(found)))


def judge(found: dict[str, Any]) -> Iterator[Claim]:
    told = (
        f"{found['runs']} runs, {found['versions']} versions, {found['predictions']} predictions: "
        f"{found['tables']} tables with {found['rows']} rows, {found['artifacts']} artifacts, all read back"
    )
    for name, evidence in (
        ("counts_and_digests_equal", told),
        ("version_names_and_aliases_equal", "as the registry tells them, before and after"),
        ("versions_verified_there", "baseline, signature and model copy of each, and its files fetched from S3"),
        ("chains_whole_there", "the ledger's, recomputed"),
        ("finished_flow_known_there", "so that nothing that ended is done again"),
        ("prediction_ids_found_there", "200 ids from before, drawn by chance, with their actuals"),
        ("old_home_untouched", "SHA-256 of every file, before and after"),
        ("stopped_half_way_and_went_on", "Ctrl-C while it copied, then the same command"),
        ("repeat_changes_nothing", "the command once more"),
        ("no_secret_in_output_or_home", "the keys and passwords, searched for in what was printed and in the new home"),
    ):
        yield Claim(name, found[name], "== True", bool(found[name]), evidence)


def measure(
    folder: Path, database: Postgres, store: Store, runs: int, versions: int, predictions: int
) -> dict[str, Any]:
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "MLFLOW_", "AWS_"))},
        "HEADRACE_STATE": str(folder / "state"), "HEADRACE_HOME": str(folder / "home"),
    }  # fmt: skip
    settings = read_settings(variables).prepare()
    start_s = time.monotonic()
    rooms = wiring.rooms(settings)
    fill(rooms, folder, runs, versions, predictions)
    assert flow(variables, "run") == "SUCCESS"
    filled_s = time.monotonic() - start_s
    before = fingerprint(settings.home)
    known = registry_contents(rooms)
    ids = some_ids(SegmentLog(settings.predictions))
    file, mlflow_port = production_env(folder, database, store), free_port()
    stopped = stop_half_way(variables, file)
    start_s = time.monotonic()
    done = command(variables, "migrate", "--to", file, "--json")
    seconds = time.monotonic() - start_s
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    told = json.loads(done.stdout)
    again = command(variables, "migrate", "--to", file, "--json")
    there = variables | dict(line.split("=", 1) for line in file.read_text().splitlines())
    there["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{mlflow_port}"
    with mlflow_server(there, mlflow_port, folder / "mlflow.log"):
        new = wiring.rooms(read_settings(there).prepare())
        return {
            "runs": runs, "versions": versions, "predictions": predictions, "filled_s": round(filled_s, 1),
            "migrated_s": round(seconds, 1), "tables": len(told["tables"]),
            "rows": sum(one["rows"] for one in told["tables"].values()),
            "artifacts": told["artifacts"]["files"],
            "counts_and_digests_equal": told["done"]
            and told["predictions"][COMPONENT]["predictions"] == predictions
            and told["tables"]["mlflow.runs"]["rows"] == runs
            and told["tables"]["mlflow.model_versions"]["rows"] == versions,
            "version_names_and_aliases_equal": registry_contents(new) == known,
            "versions_verified_there": all([is_valid(new, folder, number) for number in range(1, versions + 1)]),
            "chains_whole_there": new.ledger.verify(COMPONENT).problem == ""
            and new.ledger.verify(COMPONENT).head == rooms.ledger.verify(COMPONENT).head,
            "finished_flow_known_there": flow(there, "look") == "SUCCESS",
            "prediction_ids_found_there": some_ids(wiring.segment_log(new.settings), among=list(ids)) == ids,
            "old_home_untouched": is_as_before(fingerprint(settings.home), before),
            "stopped_half_way_and_went_on": stopped,
            "repeat_changes_nothing": again.returncode == 0 and json.loads(again.stdout)["was_done"],
            "no_secret_in_output_or_home": is_silent(store, folder / "new", done, again),
        }  # fmt: skip


# What a laptop has


def fill(rooms: Rooms, folder: Path, runs: int, versions: int, predictions: int) -> None:
    (folder / "note.txt").write_text("made by a run")
    signer = sign.own_signer(rooms.settings.keys)
    for number in range(1, runs + 1):
        run = rooms.registry.start_run(COMPONENT, key=f"run-{number}", tags={"mlflow.runName": f"run {number}"})
        rooms.registry.log(
            run.id, parameters={"epochs": str(number)}, metrics={f"m{n}": n / number for n in range(10)},
            tags={"note": "Grüße — 'quoted'"},
        )  # fmt: skip
        rooms.registry.upload(run.id, folder / "note.txt", "notes")
        if number <= versions:
            release(rooms, folder, run.id, number, signer)
        rooms.registry.end_run(run.id, RunState.FINISHED)
    rooms.registry.set_alias(COMPONENT, "champion", versions)
    log_predictions(rooms.settings, predictions)


def release(rooms: Rooms, folder: Path, run_id: str, number: int, signer: sign.Signer) -> None:
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    (model / "MLmodel").write_text(MLMODEL)
    (model / "model.onnx").write_bytes(os.urandom(2_000))
    rooms.registry.upload(run_id, model, "model")
    place = rooms.settings.artifacts / COMPONENT / run_id / "artifacts" / "model"
    assert (place / "MLmodel").exists()
    version = rooms.registry.register(COMPONENT, run_id=run_id, model=str(place), key=f"v{number}", tags={"n": "1"})
    assert version.number == number
    target = version_folder(rooms, COMPONENT, number)
    golden = Golden({UNNAMED: np.ones((3, 2), "float32")}, {UNNAMED: np.zeros((3, 1), "float32")})
    draft = baseline.Draft(
        component=COMPONENT, at=datetime.now(UTC), actor=ADA, run_id=run_id, model=model,
        code=Code("https://example.org/ml.git", "a" * 40, "main", COMPONENT), lock="numpy==2.4.6\n",
        lock_digest="c" * 64, python="3.11.7", golden=golden, settings={"component": COMPONENT},
    )  # fmt: skip
    sealed = baseline.seal(draft, target / "baseline", signer)
    admitted = admit_version(rooms, sealed.folder, model, expected=sealed.digest)
    remember(
        rooms,
        VersionRecord(
            COMPONENT, number, run_id, str(place), str(admitted.model), admitted.seal, sys.executable, sealed.digest,
            str(folder), Component(component=COMPONENT).as_json(),
        ),
    )  # fmt: skip
    for action in (Action.REGISTERED, Action.GATED, Action.ACCEPTED):
        rooms.ledger.append(
            Draft(COMPONENT, action, ADA, f"{action} it", f"{action}-{number}", None, number, sealed.digest)
        )
    serving = rooms.ledger.serving(COMPONENT, Stage.PRODUCTION)
    move = Draft(COMPONENT, Action.PROMOTED, ADA, "better", f"p-{number}", Stage.PRODUCTION, number, sealed.digest)
    rooms.ledger.move(move, expected=serving.version if serving else None)


def log_predictions(settings: Settings, count: int) -> None:
    """Log through the front's own writer, with actuals; the last rows stay in a journal, as on any morning."""
    from headrace.types import Actual

    writer = PredictionWriter(settings.predictions, COMPONENT, roll_s=3600)
    ids, made = Ids(), list[str]()
    for start in range(0, count, 500):
        batch = ids.batch(min(500, count - start))
        made += batch
        inputs = {"x": np.random.default_rng(start).random((len(batch), 4)), "text": [f"Zeile {n}" for n in batch]}
        while not writer.offer(
            batch, at=time.time(), version=1, inputs=inputs, outputs={"": list(range(len(batch)))}, latency_ms=1.5
        ):
            time.sleep(0.02)
        if start == count // 2 // 500 * 500:
            writer.close()
            SegmentLog(settings.predictions).roll(COMPONENT)
            writer = PredictionWriter(settings.predictions, COMPONENT, roll_s=3600)
    writer.close()
    now = datetime.now(UTC)
    SegmentLog(settings.predictions).append_actuals(COMPONENT, [Actual(one, "yes", now) for one in made[::10]])


# What must be the same afterwards


def registry_contents(rooms: Rooms) -> list[tuple[object, ...]]:
    """Return versions with everything but where their files lie."""
    return [
        (one.component, one.number, one.run_id, tuple(one.aliases), one.tags["headrace.key"])
        for one in rooms.registry.versions(COMPONENT)
    ]


def is_valid(rooms: Rooms, folder: Path, number: int) -> bool:
    """Tell whether a version can be served there: verified by its baseline, and its files fetched through MLflow."""
    try:
        verify_version(rooms, COMPONENT, number)
        served = served_version(rooms, COMPONENT, number, Stage.PRODUCTION)
        assert str(folder / "new") in str(served.model)
        with tempfile.TemporaryDirectory(prefix="headrace-migrate-") as name:
            fetched = rooms.registry.download(rooms.registry.version(COMPONENT, number).source, Path(name))
            return digest_folder(fetched).digest == served.seal
    except HeadraceError as error:
        print(error.fact, error.remedy, file=sys.stderr)
        return False


def some_ids(log: SegmentLog, among: list[str] | None = None) -> dict[str, object]:
    """Return 200 predictions' inputs and actuals by id: drawn by chance, or those of given ids."""
    with connect(log.snapshot(COMPONENT)) as connection:
        rows = connection.execute("SELECT id::VARCHAR, in_text, actual FROM joined ORDER BY id").fetchall()
    wanted = set(among) if among else {row[0] for row in random.Random(7).sample(rows, 200)}
    return {identity: (text, actual) for identity, text, actual in rows if identity in wanted}


def fingerprint(home: Path) -> dict[str, str]:
    """Return the digest of every file but those of this machine's processes."""
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        # SQLite's `-shm` is an index in memory that every reader makes anew; the log beside it counts.
        if path.is_file() and path.relative_to(home).parts[0] != "run" and path.suffix != ".db-shm"
    }


def is_as_before(now: dict[str, str], before: dict[str, str]) -> bool:
    changed = sorted(name for name, _ in now.items() ^ before.items())
    for name in dict.fromkeys(changed):
        print(f"the old home's {name} is not as it was", file=sys.stderr)
    return not changed


def is_silent(store: Store, home: Path, *done: "subprocess.CompletedProcess[str]") -> bool:
    secret = store.access.secret
    printed = any(secret in one.stdout + one.stderr for one in done)
    kept = any(secret.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())
    return not printed and not kept


# The commands


def production_env(folder: Path, database: Postgres, store: Store) -> Path:
    """Write the file that names the new place: two databases, S3, a home."""
    from sqlalchemy import create_engine, text

    engine = create_engine(database.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in ("headrace", "mlflow"):
            connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    file = folder / "production.env"
    lines = {"HEADRACE_HOME": str(folder / "new"), **store.variables}
    for variable, name in (("HEADRACE_DATABASE_URL_FILE", "headrace"), ("HEADRACE_MLFLOW_DATABASE_URL_FILE", "mlflow")):
        (folder / f"{name}-url").write_text(database.url.replace("/postgres", f"/{name}"))
        lines[variable] = str(folder / f"{name}-url")
    lines["HEADRACE_PREDICTIONS_URL"] = store.bucket("predictions").url
    lines["HEADRACE_ARTIFACTS_URL"] = store.bucket("artifacts").url
    file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    return file


def stop_half_way(variables: dict[str, str], file: Path) -> bool:
    """Press Ctrl-C once it copies; tell whether it ended as it should."""
    # What a shell starts in the background ignores Ctrl-C, and hands that on.
    hear = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", hear, HEADRACE, "migrate", "--to", file], env=variables, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("copied:"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    code = process.wait()
    print(code, rest[-1500:], file=sys.stderr)
    return code == 130 and "the same command goes on" in rest


def command(variables: dict[str, str], *words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([HEADRACE, *words], env=variables, capture_output=True, text=True, check=False)


def flow(variables: dict[str, str], what: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FLOW, what], env=variables, capture_output=True, text=True, timeout=180, check=False
    )
    return done.stdout.strip() or done.stderr[-2000:]


@contextmanager
def mlflow_server(variables: dict[str, str], port: int, log: Path) -> Iterator[None]:
    """Run `headrace mlflow` over the new parts."""
    import httpx

    with log.open("wb") as file:
        process = subprocess.Popen(
            [HEADRACE, "mlflow", "--port", str(port)], env=variables, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the default; named for the sake of the others")
    parser.add_argument("--smoke", action="store_true", help="60 runs, 5 versions, 5,000 predictions")
    print(run(smoke=parser.parse_args().smoke))
