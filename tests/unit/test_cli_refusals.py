"""What a person can mistype ends in a fact, a remedy and an exit code that is not zero; never in a traceback."""

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.cli import start
from headrace.cli.terminal import print_json
from headrace.cli.watching import resized
from headrace.config.component import Monitor
from headrace.config.settings import read_settings
from headrace.errors import HeadraceError, InvalidInput, Unavailable
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.processes import name_of
from headrace.serving.control import Limits
from headrace.serving.supervisor import open_listener
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
        (["predictions", "prune", "digits", "--older-than", "4000000d"], "`4000000d` is too long; at most 36525d"),
        (["predictions", "labels", "digits", "--maturity", "99999999999d"], "is too long; at most 36525d"),
        (["gc", "--unused-for", "9" * 400 + "d"], "` is too long; at most 36525d"),
        (["token", "create", "ada", "--expires", "4000000d"], "is too long; at most 36525d"),
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


HOLD = """
import sys
from headrace.config.settings import read_settings
from headrace.lifecycle.home_lock import take_lock
lock = take_lock(read_settings())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(headrace: Command) -> Iterator["subprocess.Popen[str]"]:
    """Give a process that works on the home and says nowhere how it is reached."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=pipe, stdout=pipe, text=True) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "held\n"
        yield holding
        holding.kill()


DOCUMENTS = ["{}", "[]", "7", "null", '{"pid": "x"}', "no JSON", '{"url": 1, "token": "", "pid": 1, "started": 0}',
             '{"url": "http://a:1", "token": "", "pid": -1, "started": 0}', "\udcff"]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_control_file_that_is_none_counts_as_none_where_nothing_runs(headrace: Command, document: str) -> None:
    (read_settings().run / "control.json").write_text(document, errors="surrogateescape")
    assert headrace("status")[0] == 0
    assert headrace("down")[0] == 0


@pytest.mark.parametrize("words", [["status"], ["rollback", "digits"], ["nodes"], ["up"], ["down"]])
@pytest.mark.parametrize("document", ["{}", "[]"])
def test_a_control_file_that_is_none_is_told_where_a_process_runs(
    headrace: Command, worker: "subprocess.Popen[str]", words: list[str], document: str
) -> None:
    file = read_settings().run / "control.json"
    file.write_text(document)
    code, out, err = headrace(*words)
    assert (code, out) == (4, "")
    assert f"Process {worker.pid} works on {read_settings().home}" in err
    assert str(file) in err
    assert f"kill {worker.pid}" in err


def test_down_does_not_say_that_nothing_ran_while_a_worker_lives(
    headrace: Command, worker: "subprocess.Popen[str]"
) -> None:
    code, out, err = headrace("down")
    assert (code, out) == (4, "")
    assert f"Process {worker.pid} works on" in err
    assert f"kill {worker.pid}" in err
    worker.kill()
    worker.wait()
    assert headrace("down")[:2] == (0, "✓ stopped: nothing ran\n")


def announced() -> None:
    """Say that a control process runs where nobody listens."""
    document = {"url": "http://127.0.0.1:9", "token": "x", **name_of(os.getpid()).as_json()}
    (read_settings().run / "control.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["rollback", "digits", "-m", "\udcff"], "reason"),
        (["stop", "\udcff"], "flow"),
        (["follow", "\udcff"], "flow"),
        (["promote", "digits\udcff", "--version", "1"], "component"),
    ],
)
def test_an_argument_that_is_no_text_is_told(headrace: Command, words: list[str], name: str) -> None:
    announced()
    code, out, err = headrace(*words)
    assert (code, out) == (2, "")
    assert f"The {name} " in err
    assert "is no UTF-8 text" in err


def test_an_actor_that_is_no_text_is_told(headrace: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    announced()
    monkeypatch.setenv("HEADRACE_ACTOR", "\udcff")
    code, _, err = headrace("rollback", "digits")
    assert code == 2
    assert "The actor " in err
    assert "HEADRACE_ACTOR" in err


@pytest.mark.parametrize("words", [["history", "\udcff"], ["predictions", "query", "digits", "SELECT '\udcff'"]])
def test_what_is_no_text_ends_no_command_of_this_machine_either(headrace: Command, words: list[str]) -> None:
    code, out, err = headrace(*words)
    assert code in {2, 3}
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("words", ["abc", "²", "0", "-1", "", "9" * 5000, "1.5", "AUTO"])
def test_what_says_no_number_of_workers_is_told(headrace: Command, words: str) -> None:
    code, out, err = headrace("serve", ".", f"--workers={words}")
    assert (code, out) == (2, "")
    assert "neither a number from 1 nor `auto`" in err
    assert "Write for example" in err


@pytest.mark.parametrize("name", ["workers", "threads", "fronts"])
def test_limits_refuse_what_is_no_number(name: str) -> None:
    assert Limits(**{name: "auto"}) != Limits(**{name: 2})  # type: ignore[arg-type]
    for wrong in ("abc", 0):
        with pytest.raises(InvalidInput, match=f"`{name}` is `{wrong}`"):
            Limits(**{name: wrong})  # type: ignore[arg-type]


def test_a_model_without_its_file_is_refused(headrace: Command, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn, model_path: m.pkl}}\n")
    code, out, err = headrace("serve", str(model), "--python", sys.executable, "--allow-pickle")
    assert (code, out) == (7, "")
    assert f"{model / 'm.pkl'}, which the MLmodel names, cannot be read: No such file or directory" in err


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "x" * 70, "::1"])
def test_a_host_that_is_none_of_ours_is_no_taken_port(host: str) -> None:
    with pytest.raises(InvalidInput, match=f"no address `{host}`") as told:
        open_listener(host, 0)
    assert "127.0.0.1" in told.value.remedy


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"Port {port} on 127.0.0.1 is taken by another process") as told:
            open_listener("127.0.0.1", port)
    assert "--port" in told.value.remedy


@pytest.mark.parametrize(
    ("window", "false_alarms", "fact"),
    [(5, 0.0, "--window must be at least 20, not `5`"), (0, math.nan, "--false-alarms must be a finite number"),
     (0, 1.0, "--false-alarms must be below 1"), (-5, 0.01, "--window `-5` is no window")],
)  # fmt: skip
def test_a_watch_that_cannot_be_is_refused(window: int, false_alarms: float, fact: str) -> None:
    with pytest.raises(HeadraceError) as told:
        resized(Monitor(), window, false_alarms)
    assert fact in told.value.fact
    assert "--window 200" in told.value.remedy


def test_a_watch_of_another_size_keeps_the_rest() -> None:
    monitor = Monitor(window=500, every_s=3.0, label_delay="auto", time_column="at", season="hour")
    assert resized(monitor, 200, 0.0) == monitor.model_copy(update={"window": 200})
