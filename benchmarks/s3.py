"""Two serving nodes log predictions to S3 while one of them is killed, again and again; nothing is lost or doubled.

    .venv/bin/python -m benchmarks.s3 --json [--smoke]

On two servers: Ceph's gateway, which honours conditional writes, and `rclone serve s3`, which ignores them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.object_store import STORES, Absent, Store
from benchmarks.report import Claim, report
from benchmarks.s3_node import COMPONENT
from headrace.predictions.query import connect
from headrace.predictions.segments import SegmentLog
from headrace.predictions.shipping import ship

KILLS = 3


def run(*, smoke: bool, only: str = "") -> str:
    rows, claims = list[dict[str, Any]](), list[Claim]()
    for name, server in STORES.items():
        if only and name != only:
            continue
        try:
            with server() as store:
                found = measure(store, 60_000 if smoke else 1_000_000)
        except Absent as error:
            claims += [Claim(f"{name}_{what}", None, bar, None, str(error)) for what, bar in BARS]
            continue
        rows.append({"store": name, **found})
        claims += judge(name, store, found)
    return report("s3", rows, claims)


BARS = (("acknowledged_rows_missing", "== 0"), ("rows_twice", "== 0"), ("wrong_secret_refused", "== True"))


def judge(name: str, store: Store, found: dict[str, Any]) -> list[Claim]:
    told = (
        f"{found['acknowledged']} acknowledged rows of two nodes, one killed {found['kills']} times, on {store.name} "
        f"(honours conditional writes: {found['honours_conditions']}), read by a third node with the store alone"
    )
    missing, twice = found["missing"], found["twice"]
    return [
        Claim(f"{name}_acknowledged_rows_missing", missing, "== 0", missing == 0, told),
        Claim(f"{name}_rows_twice", twice, "== 0", twice == 0, f"{found['rows']} rows in {found['segments']} segments"),
        Claim(
            f"{name}_wrong_secret_refused", found["wrong_secret_refused"], "== True", found["wrong_secret_refused"],
            "a put with the right key and another secret",
        ),
    ]  # fmt: skip


def measure(store: Store, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-s3-") as name:
        folders = [Path(name) / node for node in ("steady", "killed")]
        for folder in folders:
            folder.mkdir()
        url = store.bucket("logs").url
        start_s = time.monotonic()
        steady = start(folders[0], store, url, rows // 2)
        kills = kill_again_and_again(folders[1], store, url, rows // 2)
        assert steady.wait() == 0
        seconds = time.monotonic() - start_s
        for folder in folders:  # What the last kill left: any process that has the folder ships it.
            remote = SegmentLog(folder / "predictions", store=store.bucket("logs")).remote(COMPONENT)
            assert remote is not None
            assert ship(remote).left == 0
        reader = SegmentLog(Path(name) / "reader", store=store.bucket("logs"))
        seen = reader.snapshot(COMPONENT)
        with connect(seen) as connection:
            there = Counter(uuid_bytes(connection))
        acknowledged = [one for folder in folders for one in acknowledged_ids(folder)]
        remote = reader.remote(COMPONENT)
        assert remote is not None
        return {
            "acknowledged": len(acknowledged),
            "rows": sum(there.values()),
            "missing": sum(one not in there for one in acknowledged),
            "twice": sum(count - 1 for count in there.values()),
            "segments": len(seen.manifest.predictions),
            "damaged_objects": len(remote.check()),
            "kills": kills,
            "seconds": round(seconds, 1),
            "rows_per_s": round(sum(there.values()) / seconds),
            "honours_conditions": store.honours_conditions(),
            "wrong_secret_refused": store.refuses_wrong_secret(),
        }


def start(folder: Path, store: Store, url: str, rows: int) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **store.variables}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "benchmarks.s3_node", folder, url, str(rows)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def kill_again_and_again(folder: Path, store: Store, url: str, rows: int) -> int:
    """Kill a node, without warning, whenever another part of its rows is acknowledged; return how often."""
    kills = 0
    for part in range(KILLS + 1):
        node = start(folder, store, url, rows)
        goal = rows * (part + 1) // (KILLS + 1)
        while node.poll() is None and (part == KILLS or sum(count for _, count in ranges(folder)) < goal):
            time.sleep(0.02)
        if node.poll() is None:
            node.kill()
            kills += 1
        node.wait()
        if part == KILLS and node.returncode:
            raise RuntimeError((folder / "log").read_text()[-2000:])
    return kills


def ranges(folder: Path) -> list[tuple[int, int]]:
    path = folder / "acknowledged"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(first), int(count)) for first, count in map(str.split, lines)]


def acknowledged_ids(folder: Path) -> Iterator[bytes]:
    raw = (folder / "offered").read_bytes()
    for first, count in ranges(folder):
        for place in range(first, first + count):
            yield raw[16 * place : 16 * place + 16]


def uuid_bytes(connection: Any) -> Iterator[bytes]:
    for (text,) in connection.execute("SELECT id::VARCHAR FROM predictions").fetchall():
        yield uuid.UUID(text).bytes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the default; named for the sake of the others")
    parser.add_argument("--smoke", action="store_true", help="60,000 rows instead of a million")
    parser.add_argument("--only", choices=STORES, default="", help="one kind of store")
    options = parser.parse_args()
    print(run(smoke=options.smoke, only=options.only))
