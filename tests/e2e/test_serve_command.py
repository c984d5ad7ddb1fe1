"""`headrace serve`: a model folder behind an address until Ctrl-C, and nothing left afterwards."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from tests.conftest import SmallModels

from headrace.config.settings import read_settings

pytestmark = pytest.mark.slow


def test_serve_answers_until_it_is_interrupted(small_models: SmallModels, tmp_path: Path) -> None:
    shared = read_settings()
    command = [
        str(Path(sys.executable).with_name("headrace")),
        "serve",
        str(small_models.table),
        "--port",
        "0",
        "--json",
    ]
    command += ["--python", str(small_models.python)]
    environment = {**shared.variables, "HEADRACE_STATE": str(shared.state), "HEADRACE_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = server.stdout.readline()
            assert line, f"it ended: {text}"
            text += line
        url = json.loads(text)["url"]
        family = psutil.Process(server.pid).children(recursive=True)
        row = {"age": 1.5, "rooms": 3, "town": "Bern"}
        answer = httpx.post(f"{url}/invocations", json={"instances": [row]}, trust_env=False, timeout=60)
        assert answer.json()["predictions"] == [16.0]
        server.send_signal(signal.SIGINT)
        assert server.wait(120) == 0
    assert len(family) >= 2
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert list((tmp_path / "home" / "run").iterdir()) == []


def test_serve_names_what_is_no_model(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("headrace")), "serve", str(tmp_path), "--json"]
    environment = {**read_settings().variables, "HEADRACE_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert "MLmodel" in json.loads(done.stdout)["error"]["fact"]
