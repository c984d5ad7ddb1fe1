"""What users get wrong: a fact and a remedy, an exit code of its own, and nothing half-done."""

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from tests.houses import House, Told

pytestmark = pytest.mark.timeout(900)


def error_of(told: Told) -> dict[str, object]:
    """Return the error that a `--json` command told, whether before or in a flow."""
    assert "headrace/src" not in told.err, "a traceback of headrace's own"
    document = told.document
    found: dict[str, object] = document.get("error") or document
    return found


def nothing_registered(house: House, name: str) -> bool:
    told = house.headrace("history", name, "--json")
    return told.code == 3


def test_without_a_headrace_yaml_the_way_to_one_is_named(house: House, tmp_path: Path) -> None:
    told = house.headrace("run", tmp_path, "--json")
    assert told.code == 2
    assert "headrace init" in str(error_of(told)["remedy"])


def test_an_unknown_key_is_told_with_its_line_and_the_nearest(house: House, tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text("component: a\ngat: {}\n")
    told = house.headrace("run", tmp_path, "--json")
    assert told.code == 2
    fact = str(error_of(told)["fact"])
    assert "line 2" in fact
    assert "gate" in fact


def test_an_unknown_entry_point_is_told_before_anything_is_built(house: House) -> None:
    folder = house.component("entry")
    with (folder / "headrace.yaml").open("a") as file:
        file.write("entry_point: mian\n")
    told = house.headrace("run", folder, "--json")
    assert told.code == 2
    assert "main" in str(error_of(told)["remedy"])
    assert nothing_registered(house, "entry")


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("fails", 6, "the petals are too long"),
        ("killed", 6, "SIGKILL"),
        ("silent", 6, "logged no model"),
        ("pickle", 7, "skops"),
    ],
)
def test_a_bad_training_registers_nothing(house: House, mode: str, code: int, words: str) -> None:
    told = house.headrace("run", house.component(mode, mode=mode), "--json")
    error = error_of(told)
    assert told.code == code, error
    assert words in f"{error['fact']} {error['remedy']}"
    assert nothing_registered(house, mode)
    with closing(sqlite3.connect(house.home / "mlflow.db")) as runs:
        rows = runs.execute(
            "SELECT status, (SELECT value FROM tags WHERE tags.run_uuid = runs.run_uuid AND key = 'headrace.refused') "
            "FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?",
            (mode,),
        ).fetchall()
    assert [status for status, _ in rows] == ["FAILED"]
    assert [bool(refused) for _, refused in rows] == [mode == "pickle"]


def test_a_metric_that_nobody_knows_is_told_before_anything_is_trained(house: House) -> None:
    told = house.headrace("run", house.component("metric", gate="{metrics: {acuracy: {min: 0.5}}}"), "--json")
    assert told.code == 2
    assert "accuracy" in str(error_of(told)["remedy"])
    assert list(house.home.glob("flows/metric--*"))
    assert not list(house.home.glob("flows/metric--*/train")), "nothing was trained in vain"


def test_a_failing_gate_and_a_failing_acceptance_leave_production_as_it_was(house: House) -> None:
    folder = house.component("careful")
    first = house.headrace("run", folder, "--json")
    assert first.code == 0, first.out + first.err
    alone = house.headrace("rollback", "careful", "--json")
    assert alone.code == 4
    assert "nothing to go back to" in str(error_of(alone)["fact"])

    good = (folder / "headrace.yaml").read_text()
    (folder / "headrace.yaml").write_text(good.replace("mode: good", "mode: bad"))
    refused = house.headrace("run", folder, "--json")
    assert refused.code == 8, refused.out
    (folder / "headrace.yaml").write_text(good.replace("requests: 20", "p99_ms: 0.001, requests: 20"))
    slow = house.headrace("run", folder, "--json")
    assert slow.code == 9, slow.out
    assert "p99" in str(error_of(slow)["fact"])

    status = house.headrace("status", "--json").document
    (row,) = [one for one in status["components"] if one["component"] == "careful"]
    assert row["production"] == 1
    assert not any("careful-dev" in words for words in house.processes())
    answer = house.headrace("predict", "careful", "-f", rows(house.home.parent), "--json")
    assert answer.code == 0, answer.out + answer.err
    assert answer.document["version"] == "1"


def rows(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("sepal_length,sepal_width,petal_length,petal_width\n5.1,3.5,1.4,0.2\n")
    return path


def test_production_comes_back_as_the_ledger_says(house: House) -> None:
    """After `down`, as after a reboot; at the same address."""
    before = house.headrace("status", "--json").document["components"]
    house.headrace("down")
    assert house.processes() == []
    up = house.headrace("up", "--json")
    assert up.code == 0, up.err
    after = up.document["components"]
    assert [(one["component"], one["production"], one["url"]) for one in after] == [
        (one["component"], one["production"], one["url"]) for one in before
    ]
    answer = house.headrace("predict", "careful", "-f", rows(house.home.parent), "--json")
    assert answer.code == 0, answer.err


def test_ctrl_c_ends_the_training_and_tells_the_run(house: House) -> None:
    command = house.start("run", house.component("slow", mode="slow"))
    deadline = time.monotonic() + 300
    while not training(house) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(command.pid, signal.SIGINT)
    command.wait(timeout=240)
    assert command.returncode == 130
    assert training(house) == []
    assert nothing_registered(house, "slow")


@pytest.mark.parametrize("after", ["train", "gate", "acceptance"])
def test_ctrl_c_later_leaves_nothing_running_and_production_empty(house: House, after: str) -> None:
    name = f"stopped-{after}"
    command = house.start("run", house.component(name))
    assert command.stdout is not None
    seen = next((line for line in command.stdout if f"✓ {after}" in line), "")
    assert seen, command.stderr.read() if command.stderr else ""
    os.killpg(command.pid, signal.SIGINT)
    command.communicate(timeout=240)
    assert command.returncode == 130
    rows = [one for one in house.headrace("status", "--json").document["components"] if one["component"] == name]
    assert [row["production"] for row in rows] in ([], [None])
    assert not any(name in words for words in house.processes())


def training(house: House) -> list[int]:
    """Return the trainings that run in this home; their checkouts lie in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        is_here = str(process.info["cwd"]).startswith(str(house.home))
        if is_here and any("train.py" in word for word in process.info["cmdline"] or []):
            found.append(process.pid)
    return found


def test_a_tracking_server_that_does_not_answer_is_named(house: House, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    home = tmp_path / "away"
    told = house.headrace("up", "--json", MLFLOW_TRACKING_URI=url, HEADRACE_HOME=str(home))
    house.headrace("down", HEADRACE_HOME=str(home))
    assert told.code == 10
    assert url in str(error_of(told)["fact"])


def test_a_port_that_is_taken_is_named_and_nothing_serves(house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder = house.component("crowded", serve=f"{{port: {port}}}")
        told = house.headrace("run", folder, "--json")
    assert told.code == 10, told.out
    assert str(port) in str(error_of(told)["fact"])
    (row,) = [one for one in house.headrace("status", "--json").document["components"] if one["component"] == "crowded"]
    assert row["production"] is None
    assert row["url"] is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB of its own; a release does not fit."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("making a small disk needs the right to mount one")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_told_and_down_still_works(house: House, small_disk: Path) -> None:
    home = small_disk / "home"
    told = house.headrace("run", house.component("full"), "--json", HEADRACE_HOME=str(home))
    down = house.headrace("down", HEADRACE_HOME=str(home))
    assert told.code == 10, told.out + told.err
    assert "No space left" in str(error_of(told)["fact"])
    assert down.code == 0, down.err
    assert House(home, house.variables).processes() == []


def test_a_disk_that_cannot_be_written_is_told(house: House, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    told = house.headrace("up", "--json", HEADRACE_HOME=str(small_disk / "home"))
    assert told.code == 10
    assert "Read-only" in str(error_of(told)["fact"])
    assert "HEADRACE_HOME" in str(error_of(told)["remedy"])
