"""Every trigger becomes one flow or one line that says why not, however often it is delivered."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from headrace.cli.hook import install
from headrace.clock import ManualClock
from headrace.config.component import Component
from headrace.config.parse import read_component
from headrace.config.settings import Settings
from headrace.dashboard import api as dashboard_api
from headrace.dashboard.api import Api
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import Conflict, HeadraceError, NotAllowed, NotFound
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers import book, repository
from headrace.lifecycle.triggers.base import Event, Sighting, Wants, Watched
from headrace.lifecycle.triggers.book import Became, Book, Line
from headrace.lifecycle.triggers.commits import CommitSource
from headrace.lifecycle.triggers.data import DataSource
from headrace.lifecycle.triggers.door import Door
from headrace.lifecycle.triggers.patrol import Patrol, settings_of
from headrace.lifecycle.triggers.state import state_of
from headrace.lifecycle.triggers.webhook import receive
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Json

SECRET = "only the two of us"


@dataclass
class MemoryControl:
    """A control side that remembers what it was asked."""

    started: list[str] = field(default_factory=list)
    running: str = ""
    promotion: str = ""
    asked: list[Event] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    refusal: HeadraceError | None = None
    faster: str = ""  #: the flow of somebody who came between the look and the start

    def is_started(self, flow: str) -> bool:
        return flow in self.started

    def under_way(self, component: str) -> str:
        return self.running

    def promoting(self, component: str) -> str:
        return self.promotion

    def start_candidate(self, request: CandidateRequest) -> str:
        if self.faster:
            raise Conflict(f"A candidate of digits is under way (flow {self.faster}).")
        self.started.append(request.flow_id)
        return request.flow_id

    def ask_for(self, event: Event) -> str:
        if self.refusal:
            raise self.refusal
        self.asked.append(event)
        self.started.append(event.flow_id)
        return "asked"

    def stop(self, flow: str, *, actor: str) -> None:
        self.stopped.append(flow)


@dataclass
class Place:
    """A component under git, its patrol and its clock."""

    rooms: Rooms
    folder: Path
    clock: ManualClock
    control: MemoryControl
    patrol: Patrol

    @property
    def book(self) -> Book:
        return Book(self.rooms, "digits")

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(self.folder), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, name: str) -> str:
        (self.folder / "train.py").write_text(name)
        self.git("commit", "--quiet", "--all", "--message", name)
        return self.git("rev-parse", "HEAD")

    def configure(self, text: str) -> None:
        (self.folder / "headrace.yaml").write_text(f"component: digits\n{text}")

    def look(self, times: int = 3) -> None:
        for _ in range(times):
            self.clock.advance(10)
            self.patrol.look()

    def became(self) -> list[Became]:
        return [line.became for line in reversed(self.book.log())]


def no_environments(_kind: object) -> Environments:
    raise AssertionError("triggers build no environment")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    clock = ManualClock()
    variables = {"HOOK_SECRET": SECRET}
    settings = Settings(tmp_path / "state", tmp_path / "home", variables=variables).prepare()
    rooms = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    control = MemoryControl()
    folder = tmp_path / "repository" / "digits"
    folder.mkdir(parents=True)
    door = Door(rooms, control, lambda component: settings_of(rooms, component))
    made = Place(rooms, folder, clock, control, Patrol(rooms, door))
    made.configure("triggers: {commit: {branch: main}, tags: request, webhook_secret: HOOK_SECRET}\n")
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder.parent], check=True)
    (folder / "train.py").write_text("")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "first")
    made.book.watch(folder)
    return made


def test_what_is_there_at_the_first_look_starts_nothing(place: Place) -> None:
    place.look()
    assert place.control.started == []


def test_a_commit_is_one_candidate_at_its_full_id(place: Place) -> None:
    place.look()
    sha = place.commit("second")
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    (line,) = place.book.log()
    assert (line.became, line.actor) == (Became.STARTED, "git:Ada")
    assert "second" in line.fact


def test_a_commit_outside_the_component_starts_nothing(place: Place) -> None:
    place.look()
    (place.folder.parent / "elsewhere").write_text("x")
    place.git("add", "-A", "..")
    place.git("commit", "--quiet", "--message", "elsewhere")
    place.look()
    assert place.control.started == []


def test_of_commits_that_wait_the_newest_counts(place: Place) -> None:
    place.look()
    place.control.running = "digits/person-1/1"
    place.commit("second")
    place.look()
    newest = place.commit("third")
    place.look()
    assert place.control.started == []
    place.control.running = ""
    place.look()
    assert place.control.started == [f"digits/commit-{newest}/1"]
    assert place.became() == [Became.PROBLEM, Became.SUPERSEDED, Became.PROBLEM, Became.STARTED]


def test_a_newer_commit_may_stop_the_one_that_runs(place: Place) -> None:
    place.configure("triggers: {commit: {branch: main}, supersede: running}\n")
    place.look()
    place.control.running = "digits/commit-0123/1"
    place.commit("second")
    place.look(1)
    assert place.control.stopped == ["digits/commit-0123/1"]


def test_a_force_push_is_a_candidate_and_says_so(place: Place) -> None:
    place.look()
    place.commit("second")
    place.look()
    place.git("reset", "--quiet", "--hard", "HEAD~1")
    sha = place.commit("instead")
    place.look()
    assert place.control.started[-1] == f"digits/commit-{sha}/1"
    assert "rewritten" in place.book.log()[0].fact


def test_a_commit_that_waits_and_is_removed_by_a_force_push_is_superseded(place: Place) -> None:
    place.look()
    place.control.running = "digits/person-1/1"
    gone = place.commit("second")
    place.look()
    assert [event.commit for event in place.book.waiting()] == [gone]
    place.git("reset", "--quiet", "--hard", "HEAD~1")
    sha = place.commit("instead")
    place.look()
    place.control.running = ""
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    (line,) = [line for line in place.book.log() if line.became is Became.SUPERSEDED]
    assert line.key == gone


def test_a_remote_branch_is_watched_without_touching_the_checkout(place: Place, tmp_path: Path) -> None:
    bare = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", bare], check=True)
    place.git("remote", "add", "origin", str(bare))
    place.git("push", "--quiet", "origin", "main")
    place.configure("triggers: {commit: {branch: main, remote: origin}}\n")
    place.book.watch(place.folder)
    place.look()
    sha = place.commit("second")
    place.look()
    assert place.control.started == [], "it was not pushed yet"
    place.git("push", "--quiet", "origin", "main")
    refs = place.git("for-each-ref")
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    assert place.git("for-each-ref") == refs


def remote_of(place: Place, folder: Path) -> Path:
    """Give a component a remote, and return the copy that headrace keeps of it."""
    bare = folder / "remote.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", bare], check=True)
    place.git("remote", "add", "origin", str(bare))
    place.git("push", "--quiet", "origin", "main")
    place.configure("triggers: {commit: {branch: main, remote: origin}}\n")
    place.book.watch(place.folder)
    place.look()
    return place.rooms.settings.home / "triggers" / "digits" / "repository"


def test_what_a_crash_left_locked_in_headraces_own_copy_is_freed(place: Place, tmp_path: Path) -> None:
    copy = remote_of(place, tmp_path)
    for left in ("index.lock", "HEAD.lock", "refs/remotes/origin/main.lock"):
        (copy / ".git" / left).touch()
    sha = place.commit("second")
    place.git("push", "--quiet", "origin", "main")
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    assert (copy / "digits" / "train.py").read_text() == "second"
    assert place.book.problems() == {}


def test_a_remotes_password_is_read_by_nobody_else_and_told_to_nobody(place: Place, tmp_path: Path) -> None:
    copy = remote_of(place, tmp_path)
    assert copy.parent.stat().st_mode & 0o077 == 0
    place.git("remote", "set-url", "origin", "https://ada:hidden@127.0.0.1:1/digits.git")
    place.look()
    (problem,) = place.book.problems().values()
    assert "https://127.0.0.1:1/digits.git cannot be fetched" in problem
    assert "hidden" not in problem


def test_a_copy_that_is_there_already_is_not_written_again(place: Place, tmp_path: Path) -> None:
    copy = remote_of(place, tmp_path)
    before = (copy / ".git" / "index").stat().st_mtime_ns, (copy / ".git" / "logs" / "HEAD").read_text()
    place.look()
    assert ((copy / ".git" / "index").stat().st_mtime_ns, (copy / ".git" / "logs" / "HEAD").read_text()) == before


def test_one_at_a_time_changes_a_copy(place: Place, tmp_path: Path) -> None:
    copy = remote_of(place, tmp_path)
    watched = place.book.watched()
    assert watched is not None
    sha = place.commit("second")
    place.git("push", "--quiet", "origin", "main")
    with ThreadPoolExecutor(1) as pool:
        with repository._alone(copy):
            looking = pool.submit(repository.repository_of, place.rooms, watched, "origin", "main")
            with pytest.raises(TimeoutError):
                looking.result(0.5)
        assert looking.result(60).head("main") == sha


def test_who_comes_after_a_persons_run_waits_and_is_not_lost(place: Place) -> None:
    place.look()
    place.control.faster = "digits/person-1/1"
    sha = place.commit("second")
    place.look()
    assert (place.control.started, len(place.book.waiting())) == ([], 1)
    place.control.faster = ""
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    assert place.became() == [Became.STARTED]


def test_an_unknown_branch_is_told_once_with_those_that_are_there(place: Place) -> None:
    place.configure("triggers: {commit: {branch: mian}}\n")
    place.look(5)
    (line,) = place.book.log()
    assert line.became is Became.PROBLEM
    assert "`mian` (it has: main)" in line.fact
    assert "commit" in place.book.problems()


def test_a_broken_headrace_yaml_is_told_and_the_last_good_one_counts(place: Place) -> None:
    place.look()
    place.configure("triggers: {commmit: {}}\n")
    place.git("commit", "--quiet", "--all", "--message", "broken")
    sha = place.git("rev-parse", "HEAD")
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"], "its flow will say what is wrong with the commit"
    assert "commmit" in place.book.problems()["headrace.yaml"]


def test_a_data_file_counts_once_it_is_written_and_differs(place: Place) -> None:
    train = place.folder / "train.csv"
    train.write_text("a\n1\n")
    place.configure("data: {train: {uri: train.csv}}\nretrain: {on: [data], cooldown: 0s}\n")
    place.look()
    train.write_text("a\n1\n")
    place.look()
    assert place.control.started == [], "the same content again"
    train.write_text("a\n2\n")
    place.look(1)
    assert place.control.started == [], "it may still be being written"
    place.look()
    assert len(place.control.started) == 1
    train.unlink()
    place.look()
    assert "train.csv" in place.book.problems()["data"]
    assert len(place.control.started) == 1


def test_retraining_waits_for_a_promotion_and_a_commit_does_not(place: Place) -> None:
    place.configure('triggers: {commit: {branch: main}}\nretrain: {on: ["cron: 0 3 * * *"], cooldown: 0s}\n')
    place.book.watch(place.folder)
    place.look()
    place.control.promotion = "digits/promote/person-k2/1"
    sha = place.commit("second")
    place.clock.advance(86400)
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    assert "waits for flow digits/promote/person-k2/1" in place.book.problems()["waiting cron"]
    place.control.promotion = ""
    place.look()
    assert place.control.started[1:] == ["digits/cron-20260101T030000Z/1"]
    assert place.book.problems() == {}


def test_a_trigger_that_asks_for_a_promotion_waits_for_the_one_that_is_under_way(place: Place) -> None:
    place.control.promotion = "digits/promote/person-k2/1"
    trigger = Trigger(Cause.TAG, "v3", "git:Ada", "the tag digits/v3 was pushed")
    place.book.add(Event("digits", trigger, Wants.PROMOTION, version=3))
    place.patrol.door.admit("digits")
    assert (place.control.asked, len(place.book.waiting())) == ([], 1)
    place.control.promotion = ""
    place.look()
    assert [event.version for event in place.control.asked] == [3]
    assert place.became() == [Became.PROBLEM, Became.STARTED]


def test_a_cron_line_comes_due_once_and_missed_ticks_are_made_up_for_once(place: Place) -> None:
    place.configure('retrain: {on: ["cron: 0 3 * * *"], cooldown: 0s}\n')
    place.look()
    assert place.control.started == []
    place.clock.advance(5 * 86400)
    place.look()
    assert place.control.started == ["digits/cron-20260105T030000Z/1"]
    place.clock.advance(-86400)
    place.look()
    assert len(place.control.started) == 1, "the clock stepped back"


def test_a_cron_line_that_never_comes_due_is_told_and_the_last_good_one_counts(place: Place) -> None:
    place.look()
    place.configure('retrain: {on: ["cron: 0 0 30 2 *"]}\n')
    place.look()
    assert "never comes due" in place.book.problems()["headrace.yaml"]
    (line,) = place.book.log()
    assert (line.source, line.became) == ("headrace.yaml", Became.PROBLEM)
    place.clock.advance(366 * 86400)
    place.look()
    assert place.control.started == []


def test_retraining_keeps_its_cooldown(place: Place) -> None:
    place.configure('retrain: {on: ["cron: 0 * * * *"], cooldown: 6h}\n')
    place.look()
    for _ in range(12):
        place.clock.advance(3600)
        place.look(1)
    assert len(place.control.started) == 2


def test_a_pushed_tag_asks_for_a_promotion_once(place: Place) -> None:
    place.look()
    place.git("tag", "digits/v2")
    place.git("tag", "digits/vnext")
    place.look()
    (event,) = place.control.asked
    assert (event.version, event.is_approval) == (2, False)
    place.configure("triggers: {tags: approve}\n")
    place.git("tag", "digits/v3")
    place.look()
    assert place.control.asked[-1].is_approval


@pytest.mark.parametrize(
    "name",
    ["v99999999999999999999", "v2147483648", "v002", "v0", "v٣", "anything/v2", "v2/v3"],
)
def test_a_tag_that_names_no_version_asks_for_nothing(place: Place, name: str) -> None:
    place.look()
    place.git("tag", f"digits/{name}")
    sha = place.commit("second")
    place.look()
    assert (place.control.asked, place.control.started) == ([], [f"digits/commit-{sha}/1"])


def test_texts_of_git_that_are_no_utf8_can_be_told(place: Place) -> None:
    place.git("branch", os.fsdecode(b"caf\xe9"))
    place.look()
    place.git("-c", os.fsdecode(b"user.name=Ren\xe9"), "tag", "--annotate", "--message", "x", "digits/v2")
    tree, parent = place.git("rev-parse", "HEAD^{tree}"), place.git("rev-parse", "HEAD")
    (place.folder / "train.py").write_text("second")
    place.git("add", "train.py")
    tree = place.git("write-tree")
    # Git itself writes no such commit; other tools and old ones do.
    by = b"Ren\xe9 <rene@example.org> 1700000000 +0000"
    said = b"tree %b\nparent %b\nauthor %b\ncommitter %b\n\ncaf\xe9\n" % (tree.encode(), parent.encode(), by, by)
    (place.folder / "said").write_bytes(said)
    place.git("update-ref", "refs/heads/main", place.git("hash-object", "-t", "commit", "-w", "said"))
    place.look()
    (event,) = place.control.asked
    assert event.trigger.actor == "git:Ren\ufffd"
    (line,) = [line for line in place.book.log() if line.source == "commit"]
    assert (line.actor, line.fact.endswith("caf\ufffd.")) == ("git:Ren\ufffd", True)
    place.configure("triggers: {commit: {branch: nope}}\n")
    place.look()
    assert "`nope` (it has: caf\ufffd, main)" in place.book.problems()["commit"]
    json.dumps(state_of(place.rooms, "digits"), ensure_ascii=False).encode()


def test_a_taggers_name_may_have_separators(place: Place) -> None:
    place.look()
    place.git("-c", "user.name=Ada\u2028Byron", "tag", "--annotate", "--message", "x", "digits/v2")
    place.look()
    assert [event.version for event in place.control.asked] == [2]
    assert place.book.problems() == {}


def test_what_nobody_foresaw_in_one_event_is_refused_and_those_behind_it_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(event: Event) -> str:
        raise OverflowError("too large")

    monkeypatch.setattr(place.control, "ask_for", overflow)
    place.look()
    place.git("tag", "digits/v2")
    place.look(1)
    assert "OverflowError('too large')" in place.book.log()[0].fact
    sha = place.commit("second")
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]
    assert place.became() == [Became.REFUSED, Became.STARTED]


def test_an_event_waits_on_while_the_database_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_of: object) -> Any:
        raise RuntimeError("the database is away")

    place.look()
    with monkeypatch.context() as broken:
        broken.setattr(place.control, "is_started", away)
        broken.setattr(place.control, "under_way", away)
        sha = place.commit("second")
        place.look()
    assert len(place.book.waiting()) == 1
    place.look()
    assert place.control.started == [f"digits/commit-{sha}/1"]


def test_what_nobody_foresaw_in_one_source_is_told_and_silences_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_of: object) -> Sighting:
        raise FileNotFoundError("rows/a.csv")

    monkeypatch.setattr(DataSource, "look", broken)
    place.configure('retrain: {on: [data, "cron: 0 3 * * *"], cooldown: 0s}\n')
    place.look()
    place.clock.advance(86400)
    place.look()
    assert place.control.started == ["digits/cron-20260101T030000Z/1"]
    assert "FileNotFoundError('rows/a.csv')" in place.book.problems()["data"]


def test_a_link_that_leads_nowhere_is_no_data(place: Place) -> None:
    (place.folder / "rows").mkdir()
    (place.folder / "rows" / "a.csv").write_text("a\n1\n")
    place.configure("data: {train: {uri: rows}}\nretrain: {on: [data], cooldown: 0s}\n")
    place.look()
    (place.folder / "rows" / ".#a.csv").symlink_to("ada@host.123:9")
    place.look()
    assert (place.control.started, place.book.problems()) == ([], {})
    (place.folder / "rows" / "a.csv").write_text("a\n2\n")
    place.look()
    assert len(place.control.started) == 1


def test_what_is_forgotten_during_a_look_stays_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CommitSource.look

    def forgetting(source: CommitSource, rooms: Rooms, watched: Watched, mark: Json) -> Sighting:
        sighting = real(source, rooms, watched, mark)
        place.book.forget()
        return sighting

    place.look()
    place.commit("second")
    monkeypatch.setattr(CommitSource, "look", forgetting)
    place.look()
    assert (place.book.watched(), place.book.mark("commit"), place.control.started) == (None, None, [])


def test_a_headrace_yaml_that_changes_while_it_is_forgotten_is_not_watched_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetting(folder: Path) -> Component:
        place.book.forget()
        return read_component(folder)

    place.configure("retrain: {on: [data]}\n")
    monkeypatch.setattr(book, "read_component", forgetting)
    place.look(1)
    assert place.book.watched() is None


def test_a_tag_of_a_version_that_is_not_there_is_refused_with_the_reason(place: Place) -> None:
    place.look()
    place.control.refusal = NotFound("digits has no version 9 (it has: none).")
    place.git("tag", "digits/v9")
    place.look()
    (line,) = place.book.log()
    assert (line.became, line.fact) == (Became.REFUSED, "digits has no version 9 (it has: none).")
    assert place.book.waiting() == []


def test_a_version_that_somebody_else_registered_becomes_a_candidate(place: Place) -> None:
    place.configure("triggers: {registry: true}\n")
    place.look()
    run = place.rooms.registry.start_run("digits", key="theirs", tags={})
    place.rooms.registry.register("digits", run_id=run.id, model="models:/m-1", key="ui", tags={})
    place.look()
    assert place.control.started == ["digits/registry-v1-made/1"]


def signed(document: object, secret: str = SECRET) -> tuple[dict[str, str], bytes]:
    body = json.dumps(document).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": f"sha256={signature}", "x-github-event": "push"}, body


def push(place: Place, commit: str, ref: str = "refs/heads/main") -> Line:
    """Deliver a webhook about a push."""
    headers, body = signed({"ref": ref, "after": commit})
    return receive(place.rooms, "digits", headers, body)


def test_a_webhook_has_the_branch_looked_at_and_a_replayed_one_starts_nothing(place: Place) -> None:
    place.look()
    sha = place.commit("second")
    assert [push(place, sha).became for _ in range(3)] == [Became.NOTED] * 3
    assert place.control.started == []
    place.clock.advance(0.1)
    place.patrol.look()
    assert place.control.started == [f"digits/commit-{sha}/1"], "long before its turn"
    push(place, sha)
    place.look()
    assert len(place.control.started) == 1


def test_a_late_webhook_of_an_older_commit_does_not_replace_or_stop_the_newer_one(place: Place) -> None:
    place.configure("triggers: {commit: {branch: main}, supersede: running, webhook_secret: HOOK_SECRET}\n")
    place.look()
    place.control.running = "digits/person-1/1"
    older, newer = place.commit("second"), place.commit("third")
    push(place, newer)
    push(place, older)
    place.look()
    assert [event.commit for event in place.book.waiting()] == [newer]
    place.control.running = ""
    place.look()
    place.control.running = place.control.started[0]
    push(place, older)
    place.look()
    assert (place.control.started, place.control.stopped) == ([f"digits/commit-{newer}/1"], [])


def test_a_webhook_about_a_commit_elsewhere_starts_nothing(place: Place) -> None:
    place.look()
    (place.folder.parent / "elsewhere").write_text("x")
    place.git("add", "-A", "..")
    place.git("commit", "--quiet", "--message", "elsewhere")
    push(place, place.git("rev-parse", "HEAD"))
    place.look()
    assert place.control.started == []


@pytest.mark.parametrize("after", ["a" * 40, "0" * 40, "HEAD"])
def test_what_a_webhook_says_of_a_commit_is_not_believed(place: Place, after: str) -> None:
    place.look()
    assert push(place, after).became is Became.NOTED
    place.look()
    assert (place.control.started, place.book.problems()) == ([], {})


def test_a_webhook_does_not_ask_the_remote(place: Place, tmp_path: Path) -> None:
    place.configure(f"triggers: {{commit: {{branch: main, remote: {tmp_path}/gone}}, webhook_secret: HOOK_SECRET}}\n")
    assert push(place, "a" * 40).became is Became.NOTED
    assert not (place.book.folder / "repository").exists()


def test_a_webhook_about_another_branch_is_no_hint(place: Place) -> None:
    line = push(place, "a" * 40, "refs/heads/feature")
    assert (line.became, "watches `main`" in line.fact) == (Became.IGNORED, True)
    assert not place.book.hint.exists()


def test_a_webhook_about_a_tag_is_a_hint(place: Place) -> None:
    line = push(place, "a" * 40, "refs/tags/digits/v1")
    assert (line.became, "tags are being looked at" in line.fact) == (Became.NOTED, True)
    assert place.book.hint.exists()


def test_a_wrong_signature_is_refused_and_written_down(place: Place) -> None:
    headers, body = signed({"ref": "refs/heads/main"}, secret="guessed")
    with pytest.raises(NotAllowed):
        receive(place.rooms, "digits", headers, body)
    with pytest.raises(NotAllowed):
        receive(place.rooms, "digits", {}, body)
    assert place.became() == [Became.REFUSED, Became.REFUSED]


@pytest.mark.parametrize("component", ["flowers", "..", "digits/../.."])
def test_a_webhook_for_what_is_not_watched_is_not_found(place: Place, component: str) -> None:
    headers, body = signed({})
    with pytest.raises(NotFound):
        receive(place.rooms, component, headers, body)


def test_mlflows_webhook_is_a_hint_and_an_old_one_is_none(place: Place) -> None:
    body, sent = b"{}", int(place.clock.now().timestamp())
    content = f"id-1.{sent}.".encode() + body
    digest = base64.b64encode(hmac.new(SECRET.encode(), content, hashlib.sha256).digest()).decode()
    headers = {
        "x-mlflow-signature": f"v1,{digest}", "x-mlflow-delivery-id": "id-1", "x-mlflow-timestamp": str(sent),
    }  # fmt: skip
    assert receive(place.rooms, "digits", headers, body).became is Became.NOTED
    assert place.book.hint.exists()
    place.clock.advance(3600)
    with pytest.raises(NotAllowed):
        receive(place.rooms, "digits", headers, body)


@pytest.mark.parametrize("sent", ["²", "9" * 400, "9" * 5000, "-1", ""])
def test_a_time_of_sending_that_is_none_is_refused(place: Place, sent: str) -> None:
    with pytest.raises(NotAllowed):
        receive(place.rooms, "digits", {"x-mlflow-signature": "v1,a", "x-mlflow-timestamp": sent}, b"{}")


@dataclass
class Sender:
    """Sends a webhook's body as slowly as it likes, and counts how often it was asked for more."""

    parts: list[bytes] = field(default_factory=list)
    asked: int = 0
    others: "list[Sender]" = field(default_factory=list)  #: those who are being waited for now
    most: int = 0  #: so many of them at once

    async def receive(self) -> dict[str, object]:
        self.asked += 1
        if not self.parts:
            self.others.append(self)
            self.most = len(self.others)
            try:
                await asyncio.Event().wait()
            finally:
                self.others.remove(self)
        return {"type": "http.request", "body": self.parts.pop(0), "more_body": True}

    def request(self, component: str, headers: dict[str, str]) -> Request:
        told = [(name.encode(), text.encode()) for name, text in {"content-length": "1000000", **headers}.items()]
        scope = {"type": "http", "method": "POST", "path_params": {"component": component}, "headers": told}
        return Request(scope, self.receive)


def api_of(place: Place) -> Api:
    control: Any = SimpleNamespace(rooms=place.rooms)
    nobody: Any = None
    return Api(control, nobody, lambda: "")


@pytest.mark.parametrize(
    ("component", "headers", "error"),
    [("flowers", {"x-hub-signature-256": "sha256=0"}, NotFound), ("digits", {}, NotAllowed)],
)
def test_nothing_is_read_of_a_webhook_that_nobody_takes(
    place: Place, component: str, headers: dict[str, str], error: type[HeadraceError]
) -> None:
    sender = Sender()
    with pytest.raises(error):
        asyncio.run(api_of(place).hook(sender.request(component, headers)))
    assert sender.asked == 0


def test_few_webhooks_are_read_at_once_and_none_for_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard_api, "WEBHOOK_S", 0.2)
    together: list[Sender] = []
    senders = [Sender([b"x"], others=together) for _ in range(12)]

    async def send() -> list[Response]:
        api = api_of(place)
        return await asyncio.gather(*[api.hook(one.request("digits", {"x-hub-signature-256": "s"})) for one in senders])

    assert [answer.status_code for answer in asyncio.run(send())] == [408] * 12
    assert max(one.most for one in senders) == dashboard_api.MOST_WEBHOOKS


def test_a_webhook_that_is_larger_than_it_says_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard_api, "MOST_WEBHOOK_BYTES", 1000)
    headers = {"x-hub-signature-256": "s", "content-length": "10"}
    sender = Sender([b"x" * 600] * 3)
    assert asyncio.run(api_of(place).hook(sender.request("digits", headers))).status_code == 413
    assert sender.asked == 2


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-1", ""])
def test_a_length_that_is_none_is_refused(place: Place, length: str) -> None:
    request = Sender().request("digits", {"x-hub-signature-256": "s", "content-length": length})
    assert asyncio.run(api_of(place).hook(request)).status_code == 413


def test_a_conflict_at_the_door_is_told_and_forgotten(place: Place) -> None:
    place.look()
    place.control.refusal = Conflict("Version 2 of digits is in production already.")
    place.git("tag", "digits/v2")
    place.look()
    assert place.became() == [Became.REFUSED]


def test_a_git_hook_says_that_there_is_a_commit(place: Place) -> None:
    for _ in range(2):
        paths = install(place.folder, "digits", place.rooms.settings)
    place.look()
    sha = place.commit("second")
    assert place.book.hint.exists()
    place.clock.advance(0.1)
    place.patrol.look()
    assert place.control.started == [f"digits/commit-{sha}/1"], "long before its turn"
    paths[0].write_text("#!/bin/sh\nsomebody else's")
    with pytest.raises(Conflict, match="somebody else's"):
        install(place.folder, "digits", place.rooms.settings)
