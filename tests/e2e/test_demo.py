"""The story, told whole: every claim true, nothing left behind, nothing written elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from headrace.config.settings import read_settings

HEADRACE = Path(sys.executable).parent / "headrace"


@pytest.fixture(scope="module")
def told() -> subprocess.CompletedProcess[str]:
    """One telling for all tests of this module."""
    return subprocess.run([HEADRACE, "demo", "--json"], capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.timeout(1600)
def test_every_claim_of_the_story_is_true(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 0, told.stderr[-4000:]
    story = json.loads(told.stdout)
    assert [claim["name"] for claim in story["claims"] if not claim["holds"]] == []
    assert {"alarm", "no failed request", "recovered", "rolled back", "ledger", "tamper"} <= {
        claim["name"] for claim in story["claims"]
    }
    assert story["requests"]["failed"] == 0
    assert story["accuracy"]["after, retrained"] > story["accuracy"]["during, scanner shifted"]


def test_nothing_of_it_is_left_running(told: subprocess.CompletedProcess[str]) -> None:
    home = str(read_settings().state / "demo")
    left = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and (
            home in words or (process.info["environ"] or {}).get("HEADRACE_HOME") == home
        ):
            left.append(words)
    assert left == []


def test_its_home_can_be_read_afterwards(told: subprocess.CompletedProcess[str]) -> None:
    variables = {**os.environ, "HEADRACE_HOME": str(read_settings().state / "demo")}
    history = subprocess.run(
        [HEADRACE, "history", "digits", "--json"], capture_output=True, text=True, check=True, env=variables
    )
    actions = [entry["action"] for entry in json.loads(history.stdout)["entries"]]
    assert actions.count("promoted") == 2
    assert actions.count("rolled back") == 2
    assert "alarm" in actions
