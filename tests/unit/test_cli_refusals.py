"""What a person can mistype ends in a fact, a remedy and an exit code that is not zero; never in a traceback."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli import start
from headrace.cli.terminal import print_json
from headrace.config.settings import read_settings
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.types import Actor

Command = Callable[..., tuple[int, str, str]]
HEADRACE = [sys.executable, "-c", "from headrace.cli.start import run; run()"]


@pytest.fixture
def headrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Give the command, in a home that has a ledger and predictions of `digits`; it returns exit code, output, errors.

    What it raises is what a person would see as a traceback.
    """
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    settings = read_settings().prepare()
    (settings.predictions / "digits").mkdir(parents=True)
    ledger = SqlLedger(f"sqlite:///{settings.home / 'ledger.db'}")
    ledger.append(Draft("digits", Action.GATED, Actor("person:ada"), "good", "g", version=1))
    ledger.close()

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headrace", *words])
        try:
            start.run()
        except SystemExit as ended:
            code = ended.code
        else:
            code = 0
        said = capsys.readouterr()
        assert isinstance(code, int)
        return code, said.out, said.err

    return call


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["history", "digits", "--limit", "0"], "--limit"),
        (["history", "digits", "--limit", "-1"], "--limit"),
        (["history", "digits", "--limit", "9" * 20], "--limit"),
        (["triggers", "show", "--limit", "0"], "--limit"),
        (["serve", ".", "--port", "99999"], "--port"),
        (["mlflow", "--port", "99999"], "--port"),
        (["rollback", "digits", "--to", "0"], "--to"),
        (["promote", "digits", "--version", "9" * 10], "--version"),
        (["retire", "digits", "--version", "0"], "--version"),
        (["monitor", "replay", "digits", "--window", "-5"], "--window"),
        (["monitor", "replay", "digits", "--false-alarms", "-1"], "--false-alarms"),
        (["monitor", "replay", "digits", "--version", "-1"], "--version"),
        (["predictions", "query", "digits", ""], "There is no SQL statement"),
        (["predictions", "query", "digits", "--", "-- c"], "There is no SQL statement"),
        (["predictions", "prune", "digits", "--older-than", "4000000d"], "`4000000d` is longer than 11574 days"),
        (["predictions", "labels", "digits", "--maturity", "99999999999d"], "is longer than 11574 days"),
        (["gc", "--unused-for", "9" * 400 + "d"], "…` is longer than 11574 days"),
        (["token", "create", "ada", "--expires", "4000000d"], "is longer than 11574 days"),
        (["token", "create", "ada", "--role", "king"], "There is no role `king`"),
    ],
)
def test_what_cannot_be_right_is_told(headrace: Command, words: list[str], fact: str) -> None:
    code, out, err = headrace(*words)
    assert (code, out) == (2, "")
    assert fact in err


def test_history_still_answers(headrace: Command) -> None:
    assert headrace("history", "digits", "--limit", "1", "--json")[0] == 0


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    print_json({"a": math.nan, "b": [[math.inf, -math.inf, 1.5, "NaN"]]})
    found = json.loads(capsys.readouterr().out, parse_constant=refused)
    assert found == {"a": None, "b": [[None, None, 1.5, "NaN"]]}


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8", "UTF8"])
def test_json_is_json_in_every_encoding(headrace: Command, encoding: str) -> None:
    words = ["predictions", "query", "digits", "SELECT 'é–😀' AS name, 'nan'::DOUBLE AS number", "--json"]
    done = subprocess.run(
        [*HEADRACE, *words], capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert json.loads(done.stdout.decode(encoding)) == {"columns": ["name", "number"], "rows": [["é–😀", None]]}


def test_a_table_is_written_in_every_encoding(headrace: Command) -> None:
    words = ["predictions", "query", "digits", "SELECT 'é–😀' AS name"]
    done = subprocess.run(
        [*HEADRACE, *words], capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )
    assert "é\\u2013" in done.stdout.decode("latin-1")
