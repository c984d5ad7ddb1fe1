"""TorchServe as a process: one whose starter was killed before it said so to anybody is found and ended."""

import json
import subprocess
from pathlib import Path

import pytest

from headrace.deploy.torchserve.process import STARTED, sweep
from headrace.deploy.torchserve.server import launcher_script
from headrace.processes import name_of


def test_what_a_killed_start_left_is_ended(tmp_path: Path) -> None:
    left = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / STARTED).write_text(json.dumps(name_of(left.pid).as_json()))
        sweep(tmp_path)
        assert left.poll() is not None
        sweep(tmp_path)
    finally:
        left.kill()
        left.wait()


@pytest.mark.parametrize("written", [None, "", "[]", "{", '{"pid": 1}', '{"pid": "x", "started": 0}'])
def test_where_nothing_was_started_nothing_is_ended(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / STARTED).write_text(written)
    sweep(tmp_path)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'ada\'s "$HOME" folder'
    folder.mkdir()
    script = folder / "python"
    (folder / "launch.py").write_text("import os; print(os.environ['HEADRACE_TORCHSERVE_MAP'])")
    script.write_text(launcher_script(folder, python="/usr/bin/env", launch=folder / "launch.py", home=folder))
    said = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert subprocess.run(
        ["sh", "-c", script.read_text().rpartition("exec")[0] + 'printf %s "$HEADRACE_TORCHSERVE_MAP"'],
        capture_output=True, text=True, check=True,
    ).stdout == str(folder / "workers.json")  # fmt: skip
