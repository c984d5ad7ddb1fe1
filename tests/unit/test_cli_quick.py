"""`history` and `status` answer from the ledger's file as the command line proper does, and load next to nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli import plain, records, services, start
from headrace.config.settings import read_settings
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.processes import ProcessName, name_of
from headrace.types import Actor, Stage

ADA = Actor("person:ada")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    ledger = SqlLedger(f"sqlite:///{home / 'ledger.db'}")
    for number in (1, 2, 3):
        ledger.append(
            Draft("digits", Action.GATED, ADA, "good – it is", f"g{number}", version=number, evidence={"a": 0.5})
        )
    ledger.move(Draft("digits", Action.PROMOTED, ADA, "best", "p", Stage.PRODUCTION, 3), expected=None)
    ledger.append(Draft("flowers", Action.GATED, ADA, "fine", "f"))
    ledger.close()
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path))
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    return home


@pytest.mark.parametrize("words", [["--json"], [], ["--limit", "2", "--json"]])
def test_history_is_the_same_both_ways(home: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert start._quick(["history", "digits", *words])
    quick = capsys.readouterr().out
    records.history("digits", limit=2 if "--limit" in words else 30, as_json="--json" in words)
    assert quick == capsys.readouterr().out
    assert "good – it is" in quick


@pytest.mark.parametrize("words", [["--json"], []])
def test_status_at_rest_is_the_same_both_ways(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(plain, "ago", lambda _at: "a while ago")  # A second may pass in between.
    assert start._quick(["status", *words])
    quick = capsys.readouterr().out
    services.status(as_json="--json" in words)
    assert quick == capsys.readouterr().out
    assert "digits" in quick


@pytest.mark.parametrize(
    "words", [["history"], ["history", "nobody"], ["history", "digits", "--limti", "2"], ["history", "a", "b"],
              ["history", "digits", "--limit", "x"], ["status", "--help"]],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_command_line(home: Path, words: list[str]) -> None:
    assert not start._quick(words)


def test_a_control_process_that_died_is_left_to_the_command_line(home: Path) -> None:
    (home / "run").mkdir()
    document = {"url": "http://127.0.0.1:9", "token": "x", "pid": 2**22 + 1, "started": 0.0}
    (home / "run" / "control.json").write_text(json.dumps(document))
    assert not start._quick(["status"])


def test_history_loads_next_to_nothing(home: Path) -> None:
    probe = (
        "import sys; from headrace.cli import start; sys.argv = ['headrace', 'history', 'digits', '--json'];"
        "start.run(); print(*sys.modules, sep=',', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["entries"][0]["version"] == 3
    loaded = {name.partition(".")[0] for name in done.stderr.strip().split(",")}
    assert loaded & {"typer", "rich", "sqlalchemy", "pydantic", "httpx", "psutil", "numpy", "alembic"} == set()


@pytest.mark.parametrize("is_running", [True, False])
def test_an_endpoint_that_outlived_its_control_process_is_not_called_down(
    home: Path, capsys: pytest.CaptureFixture[str], is_running: bool
) -> None:
    folder = read_settings().run / "digits-production"
    folder.mkdir(parents=True)
    name = name_of(os.getpid()) if is_running else ProcessName(2**22 + 1, 0.0)
    (folder / "supervisor.json").write_text(json.dumps(name.as_json()))
    (folder / "port").write_text("8123")
    assert start._quick(["status"])
    told = capsys.readouterr().out
    assert ("http://127.0.0.1:8123" in told) is is_running
    assert ("headrace is down" in told) is not is_running
    assert "headrace up" in told


def test_no_cell_forges_a_row_or_steers_the_terminal() -> None:
    forged = "tried\n7  2026-01-01 00:00:00  promoted  v1 → v2  person:ada\x1b[2K\x9b2J\u202e\u2028\ud800 – schön"
    entry = {"sequence": 1, "at": "2026-01-01T00:00:00+00:00", "action": "refused", "version": 2, "from_version": None}
    text = plain.history([{**entry, "stage": None, "actor": "a\rb", "reason": forged}])
    assert len(text.splitlines()) == 2
    assert not {"\x1b", "\x9b", "\r", "\u202e", "\ud800"} & set(text)
    assert "– schön" in text
    answer = {"home": "/h", "components": [], "flows": ["a/person-x\ny\x1b/1"]}
    assert plain.status(answer).splitlines()[-1].startswith("running   a/person-x y\ufffd/1")
