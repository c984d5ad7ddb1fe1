"""Workers: the words of their command, their logs, what they share, and how a route is asked for from afar."""

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.cli.workers import tail
from headrace.clock import ManualClock
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Route, Status
from headrace.errors import Conflict, InvalidConfig, InvalidInput, Unavailable
from headrace.lifecycle import home_lock
from headrace.lifecycle.claims import Superseded
from headrace.lifecycle.durable import Role, roles_of
from headrace.lifecycle.events import Journal
from headrace.lifecycle.nodes.base import Node, OneNode
from headrace.lifecycle.nodes.far import FarTarget
from headrace.lifecycle.nodes.shared import check_several, check_shared
from headrace.lifecycle.nodes.sql import SqlNodes
from headrace.types import Endpoint, Stage


def test_roles_are_read_and_a_wrong_one_is_named() -> None:
    assert roles_of("serve, train") == [Role.TRAIN, Role.SERVE]
    assert roles_of("") == list(Role)
    with pytest.raises(InvalidInput, match="`fly` is no role"):
        roles_of("fly,train")


def test_who_only_looks_at_a_lock_is_taken_for_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path).prepare()
    with (settings.run / "control.lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        os.close(home_lock.take_lock(settings))
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        with pytest.raises(Conflict, match="runs here already"):
            home_lock.take_lock(settings)


def test_the_end_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert tail(path, 2) == ["line 9998", "line 9999"]


@dataclass
class Marks:
    """The database's mark."""

    kept: str = ""

    def mark(self, proposed: str, first: Callable[[], None]) -> str:
        if not self.kept:
            first()
        self.kept = self.kept or proposed
        return self.kept


def settings_in(folder: Path, home: str = "home", state: str = "state", **variables: str) -> Settings:
    return read_settings({"HEADRACE_STATE": str(folder / state), "HEADRACE_HOME": str(folder / home), **variables})


def test_the_first_worker_marks_the_folders_and_others_must_find_the_marks(tmp_path: Path) -> None:
    book = cast("SqlNodes", Marks())
    check_shared(settings_in(tmp_path), book)
    check_shared(settings_in(tmp_path), book)
    with pytest.raises(Conflict, match=r"other .HEADRACE_HOME. is not the folder"):
        check_shared(settings_in(tmp_path, home="other"), book)
    with pytest.raises(Conflict, match=r"other .HEADRACE_STATE. is not the folder"):
        check_shared(settings_in(tmp_path, state="other"), book)
    with pytest.raises(Conflict, match="HEADRACE_HOME"):
        check_shared(settings_in(tmp_path), cast("SqlNodes", Marks("another database's")))


def test_what_one_process_can_do_without_several_workers_need(tmp_path: Path) -> None:
    database = {"HEADRACE_DATABASE_URL": "postgresql://db/headrace"}
    server = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    for variables, missing in (
        ({}, "HEADRACE_DATABASE_URL"),
        (database, "MLFLOW_TRACKING_URI"),
        (database | server, "run folder of its own"),
    ):
        with pytest.raises(InvalidConfig, match=missing):
            check_several(settings_in(tmp_path, **variables))
    check_several(settings_in(tmp_path, **database, **server, HEADRACE_RUN=str(tmp_path / "run")))


def test_far_target_reads_heartbeats_and_asks_for_changes() -> None:
    asked: list[tuple[Any, ...]] = []
    told = {
        "component": "digits", "stage": "production", "url": "http://s:1", "pid": 7, "generation": 2,
        "shares": {"3": 1.0}, "warm": [3], "restarts": 0, "problem": "",
    }  # fmt: skip
    serving = Node("s", [Role.SERVE], "1", "1", "0.1.0", "s", 1, figures={"endpoints": [told]})
    book = OneNode()
    target = FarTarget(book, ask=lambda *words: asked.append(words))
    route = Route("digits", Stage.PRODUCTION, [], {3: 1.0})
    with pytest.raises(Unavailable, match="No worker with the role `serve`"):
        target.apply(route)
    book.join(replace(serving, roles=[Role.TRAIN]))
    with pytest.raises(Unavailable):
        target.remove("digits", Stage.DEV)
    book.join(serving)
    target.apply(route)
    assert asked == [(Role.SERVE, "target", "apply", route)]
    assert target.status("digits", Stage.PRODUCTION) == Status(
        Endpoint("digits", Stage.PRODUCTION, "http://s:1", 7), 2, {3: 1.0}, [3]
    )
    assert target.status("digits", Stage.DEV) is None


@dataclass
class Fickle:
    """A claim that can be lost."""

    epoch: int = 1
    lost: bool = False
    checks: list[bool] = field(default_factory=list)

    def check(self) -> None:
        if self.lost:
            raise Superseded("lost")

    def is_lost(self) -> bool:
        return self.lost


def test_a_lost_flow_writes_nothing_into_its_journal(tmp_path: Path) -> None:
    claim = Fickle()
    journal = Journal(tmp_path, ManualClock(), claim)

    def work() -> None:
        with journal.step("train", "training"):
            claim.lost = True
            claim.check()

    with pytest.raises(Superseded):
        work()
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1
