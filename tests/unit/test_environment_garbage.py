"""Only what is neither kept, nor fresh, nor running is removed."""

import fcntl
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from headrace.clock import ManualClock
from headrace.config.settings import Settings, read_settings
from headrace.environment.garbage import WEEK_S, collect_garbage

# Well past the week: this module is read long before its tests run.
LATER = ManualClock(datetime.now(UTC) + timedelta(seconds=3 * WEEK_S))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "state", tmp_path / "home").prepare()


def environment(settings: Settings, letter: str) -> Path:
    folder = settings.environments / (letter * 64)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("x" * 10)
    (folder / ".ready").write_text("{}")
    return folder


def test_kept_fresh_and_busy_ones_stay(settings: Settings) -> None:
    kept, busy, locked, old = (environment(settings, letter) for letter in "abcd")
    (settings.environments / "locks").mkdir()
    byte_code = settings.state / "cache" / "pyc" / old.relative_to("/")
    byte_code.mkdir(parents=True)
    (busy / "bin" / "python").unlink()
    shutil.copy(shutil.which("sleep") or "/bin/sleep", busy / "bin" / "python")
    assert collect_garbage(settings, keep=[], clock=ManualClock(datetime.now(UTC))).environments == ()

    process = subprocess.Popen([busy / "bin" / "python", "60"])
    try:
        while not psutil.Process(process.pid).cmdline():  # For a moment after its start it has none.
            assert process.poll() is None
        with (settings.environments / f"{locked.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = collect_garbage(settings, keep=[kept.name], clock=LATER)
    finally:
        process.kill()
        process.wait()
    assert found.environments == (old.name,)
    assert found.bytes == 10
    assert not old.exists()
    assert not byte_code.exists()
    assert kept.exists()
    assert busy.exists()
    assert locked.exists()
    assert (settings.environments / "locks").exists()


def test_files_that_are_shared_free_nothing(settings: Settings) -> None:
    old = environment(settings, "e")
    os.link(old / "bin" / "python", settings.state / "cached")
    assert collect_garbage(settings, keep=[], clock=LATER).bytes == 0


def test_a_tracking_uri_means_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = {
        "sqlite:///mlflow.db": f"sqlite:///{tmp_path}/mlflow.db",
        "sqlite:////srv/mlflow.db": "sqlite:////srv/mlflow.db",
        "./mlruns": f"{tmp_path}/mlruns",
        "http://127.0.0.1:5000": "http://127.0.0.1:5000",
        "databricks": "databricks",
    }
    for given, meant in expected.items():
        assert read_settings({"HOME": str(tmp_path), "MLFLOW_TRACKING_URI": given}).tracking_uri == meant
    assert read_settings({"HOME": str(tmp_path)}).tracking_uri is None
