"""How commands find the control process, wait for it, end it, and what they say where HEADRACE_URL names another."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from headrace import wiring
from headrace.cli import client as control
from headrace.cli import services
from headrace.cli.main import app
from headrace.cli.terminal import text_of
from headrace.config.settings import Settings, read_settings
from headrace.deploy.memory import MemoryTarget
from headrace.errors import Conflict, InvalidConfig, InvalidInput, NotFound, Unavailable
from headrace.lifecycle.home_lock import take_lock
from headrace.processes import ProcessName, is_alive, name_of

GONE = ProcessName(2**22 + 1, 0.0)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    return read_settings().prepare()


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def answering(answer: Callable[[httpx.Request], httpx.Response], process: ProcessName | None = None) -> control.Client:
    http = httpx.Client(base_url="http://control", transport=httpx.MockTransport(answer))
    return control.Client("http://control", process, http)


def silent(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("silence")


def test_of_two_commands_at_once_the_slower_waits_for_the_others_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = answering(silent)
    looks = iter([None, None, None, winner])
    monkeypatch.setattr(control, "find", lambda _: next(looks))
    monkeypatch.setattr(control, "start_detached", lambda *_, **__: GONE)  # Its process ended at the winner's lock.
    lock = take_lock(settings)
    try:
        assert control.ensure(settings) is winner
    finally:
        os.close(lock)


def test_a_start_that_fails_is_told_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: Any, log: Path, **__: Any) -> ProcessName:
        log.write_text("no port\n")
        return GONE

    monkeypatch.setattr(control, "start_detached", start)
    monkeypatch.setattr(control, "START_S", 1e9)
    with pytest.raises(Unavailable, match="did not start: no port"):
        control.ensure(settings)


def test_a_silent_control_process_is_ended_by_its_pid(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as hung:
        name = name_of(hung.pid)
        monkeypatch.setattr(control, "find", lambda _: answering(silent, name))
        monkeypatch.setattr(wiring, "target", lambda _: MemoryTarget())
        monkeypatch.setattr(wiring, "stop_tracking", lambda _: True)
        assert services.take_down(settings) == ["control", "MLflow"]
        assert not is_alive(name)


@pytest.mark.parametrize(
    "words",
    [
        ["down"], ["predict", "digits", "-f", "rows.csv"], ["feedback", "digits", "id", "7"], ["logs"], ["upgrade"],
        ["signers", "list"], ["signers", "remove", "x"], ["environment", "list"], ["mlflow"], ["database-roles"],
        ["monitor", "replay", "digits"], ["predictions", "labels", "digits"], ["baseline", "show", "digits"],
    ],
)  # fmt: skip
def test_what_is_about_this_machine_is_refused_where_another_is_meant(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a\n1\n")
    monkeypatch.setenv("HEADRACE_URL", "http://far:8010")
    with pytest.raises(Conflict, match=r"HEADRACE_URL names http://far:8010") as refused:
        call(*words)
    assert "env -u HEADRACE_URL" in refused.value.remedy


def test_a_far_control_process_is_not_started_again_from_here() -> None:
    with pytest.raises(Unavailable) as far:
        answering(silent).ask("GET", "/api/status")
    assert "headrace down" not in far.value.remedy
    assert "HEADRACE_URL" in far.value.remedy
    with pytest.raises(Unavailable) as near:
        answering(silent, GONE).ask("GET", "/api/status")
    assert "headrace down" in near.value.remedy


def test_triggers_of_a_far_home_are_the_far_ones(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.url.query) == ("/api/triggers", b"")
        line = {
            "at": "2026-01-01T00:00:00", "source": "commit", "became": "started", "actor": "ada",
            "fact": "fix [/] path [skip ci]",
        }  # fmt: skip
        state = {
            "component": "digits", "folder": "/src/[red]", "sources": ["commit"], "waiting": ["wait [/] for"],
            "problems": {"data": "no [/] file"}, "log": [line],
        }  # fmt: skip
        return httpx.Response(200, json={"components": [state]})

    monkeypatch.setattr(control, "elsewhere", lambda _: answering(answer))
    shown = call("triggers", "show")
    for text in ("fix [/] path [skip ci]", "/src/[red]", "wait [/] for", "no [/] file"):
        assert text in shown


def test_what_others_wrote_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from headrace.cli import releases
    from headrace.cli.terminal import console, good, table

    good("kept [/] it")
    releases.tell({"fact": "fix [/] path [skip ci]", "exit_code": 0}, as_json=False)
    console().print(table("v1 [/]", ["a"], [["[b]"]]))
    shown = capsys.readouterr().out
    for text in ("kept [/] it", "fix [/] path [skip ci]", "v1 [/]", "[b]"):
        assert text in shown


@pytest.mark.parametrize(
    "words",
    [["predictions", "prune", "digits", "--older-than", "x"], ["predictions", "labels", "digits", "--maturity", "x"],
     ["gc", "--unused-for", "x"]],
)  # fmt: skip
def test_what_is_no_duration_is_told(settings: Settings, words: list[str]) -> None:
    (settings.predictions / "digits").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="`x` is no duration"):
        call(*words)


def test_a_token_lives_longer_than_no_time(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="cannot live for 0 s"):
        call("token", "create", "ada", "--expires", "0d")


def test_what_a_failed_step_said_last_is_shown_once_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    from headrace.cli.terminal import Steps, console
    from headrace.lifecycle.events import Event, Mark

    Steps(console()).show(Event("", "train", Mark.FAILED, "It ended with 1. Its last lines:\n    Traceback", 2.0))
    shown = capsys.readouterr().out
    assert "It ended with 1." in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("label", ["", "qualty"])
def test_init_names_the_columns_where_the_label_is_none(tmp_path: Path, label: str) -> None:
    from headrace.cli.project import check_holdout

    (tmp_path / "holdout.csv").write_text("alcohol,quality\n1,2\n")
    with pytest.raises(InvalidInput) as told:
        check_holdout(tmp_path, "holdout.csv", label)
    assert "--label" in told.value.remedy
    assert "alcohol, quality" in told.value.remedy


def test_a_component_that_nobody_knows_comes_with_a_way_to_one(settings: Settings) -> None:
    with pytest.raises(NotFound) as told:
        call("history", "wine")
    assert "headrace run" in told.value.remedy


@pytest.mark.parametrize(
    ("asked", "is_told"),
    [("", False), ("127.0.0.1:8010", False), ("0.0.0.0:8010", False), ("0.0.0.0:8011", True), ("10.0.0.7:8010", True)],
)
def test_up_tells_that_a_running_control_process_keeps_its_address(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, asked: str, is_told: bool
) -> None:
    monkeypatch.setenv("HEADRACE_CONTROL", asked)
    running = control.Client("http://127.0.0.1:8010/", GONE, httpx.Client())
    told = services.other_address(read_settings(), running)
    assert bool(told) is is_told
    assert not is_told or "headrace down" in told


def test_a_flow_whose_control_process_dies_is_found_again_by_its_name() -> None:
    from headrace.cli import releases

    with pytest.raises(Unavailable) as told:
        releases.finish(answering(silent, GONE), "digits/person-1/1", as_json=True, actor="person:ada")
    assert "headrace follow digits/person-1/1" in told.value.remedy
    assert "headrace down" not in told.value.remedy, "that would stop the flow"


@pytest.mark.parametrize(
    ("url", "token", "fact"),
    [
        ("http://far:80x", "t", "HEADRACE_URL is no address"),
        ("far:8010", "t", "HEADRACE_URL is far:8010, which is no address"),
        ("http://far:8010", "tö", "HEADRACE_TOKEN holds characters"),
        ("http://far:8010", "t\nx", "HEADRACE_TOKEN holds characters"),
    ],
)
def test_an_address_or_a_token_that_is_none_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str, token: str, fact: str
) -> None:
    monkeypatch.setenv("HEADRACE_URL", url)
    monkeypatch.setenv("HEADRACE_TOKEN", token)
    with pytest.raises(InvalidConfig, match=re.escape(fact)):
        call("status")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<title>MLflow</title>"),
        httpx.Response(404, html="<h1>not here</h1>"),
        httpx.Response(400, json={"error_code": "BAD_REQUEST"}),
        httpx.Response(500, json=["broken"]),
        httpx.Response(302, headers={"location": "/login"}),
    ],
)
def test_another_server_at_the_address_is_told(answer: httpx.Response) -> None:
    with pytest.raises(Unavailable, match=f"no control process of this headrace: {answer.status_code}") as refused:
        answering(lambda _: answer).ask("GET", "/api/status")
    assert "HEADRACE_URL" in refused.value.remedy


def test_what_would_steer_a_terminal_is_shown_as_text() -> None:
    assert text_of("a\x1b[2Jb\r[red]c\nd") == "a\ufffd[2Jb \\[red]c\nd"
