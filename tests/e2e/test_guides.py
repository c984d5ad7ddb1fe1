"""The guides' own commands, run as they stand: the news tutorial, and bringing three kinds of projects."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HEADRACE = BIN / "headrace"
AG_NEWS = ROOT.parent / "shared" / "data" / "ag_news_train.parquet"
PROJECTS = {
    "pytorch": ("tumours", "benign", "PyTorch pt2"),
    "sklearn": ("diabetes", "progression", "scikit-learn skops"),
    "xgboost": ("wine", "cultivar", "XGBoost UBJ or JSON"),
}


def blocks(guide: str) -> list[str]:
    """Return the commands of a guide that are meant to be run as they stand: its ```bash blocks."""
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / guide).read_text(), re.DOTALL)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own, with nothing left running in it afterwards."""
    yield tmp_path / "home"
    subprocess.run([HEADRACE, "down"], env=variables(tmp_path / "home"), check=False, capture_output=True, timeout=120)


def variables(home: Path, **more: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return env | {"HEADRACE_HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"} | more


def shell(commands: str, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=1400,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def ask(*command: str, env: dict[str, str]) -> Any:
    done = subprocess.run([HEADRACE, *command, "--json"], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", PROJECTS)
def test_ten_lines_take_a_project_to_production(kind: str, tmp_path: Path, home: Path) -> None:
    name, label, saved_as = PROJECTS[kind]
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "your_own" / kind, folder)
    env = variables(home, PROJECT=str(folder), NAME=name, LABEL=label)
    (commands,) = blocks("howto-bring-your-project.md")
    out = shell(commands, ROOT, env)
    assert len(commands.strip().splitlines()) <= 10
    assert saved_as in out
    actions = [entry["action"] for entry in ask("history", name, env=env)["entries"]]
    assert actions[0] == "promoted"
    assert not list(folder.rglob("*.pkl"))


@pytest.mark.skipif(not AG_NEWS.exists(), reason="AG News is not in ../shared/data")
@pytest.mark.timeout(1500)
def test_the_news_tutorial_leads_from_a_release_over_drift_to_a_better_version_and_back(
    tmp_path: Path, home: Path
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "examples").mkdir(parents=True)
    shutil.copytree(
        ROOT / "examples" / "news_classifier",
        checkout / "examples" / "news_classifier",
        ignore=shutil.ignore_patterns("data", "__pycache__"),
    )
    env = variables(home)
    # Step 2 of the tutorial; its own headlines are too few for a stream that looks like the holdout.
    shell(f"python examples/news_classifier/prepare.py --source {AG_NEWS}", checkout, env)
    *commands, last = blocks("tutorial-news.md")
    assert "headrace down" in last
    out = shell("\n".join(commands), checkout, env)
    accuracies = [json.loads(line)["accuracy"] for line in out.splitlines() if line.startswith('{"sent"')]
    plain, hyphens, retrained, rolled_back = accuracies
    assert hyphens < plain - 0.1
    assert retrained > rolled_back + 0.05
    entries = ask("history", "news-classifier", env=env)["entries"]
    moves = [(one["action"], one["version"]) for one in reversed(entries) if one["stage"] == "production"]
    assert moves == [("promoted", 1), ("promoted", 2), ("rolled back", 1)]
    alarm = next(one for one in reversed(entries) if one["action"] == "alarm")
    (promoted,) = [one for one in entries if (one["action"], one["version"]) == ("promoted", 2)]
    assert promoted["reason"] == alarm["reason"]
    shell(last, checkout, env)
    left = subprocess.run(["pgrep", "-f", str(home)], capture_output=True, text=True, check=False).stdout.split()
    assert left == []
