"""Approval is an entry of the ledger: it waits without a thread, one decision counts, and no commit lifts the rule."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.clock import ManualClock
from headrace.config.component import Approval, Component, Release
from headrace.config.settings import Settings
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import Conflict, NotAllowed, NotFound, Unavailable
from headrace.ledger.base import Action, Draft
from headrace.ledger.memory import MemoryLedger
from headrace.lifecycle.candidates import candidate
from headrace.lifecycle.control import Control
from headrace.lifecycle.engine import Engine
from headrace.lifecycle.production import aliases, approvals
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Event, Wants
from headrace.lifecycle.triggers.book import Became, Book
from headrace.lifecycle.versions import VersionRecord, recall, remember
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Stage

ADA, BOB = Actor("person:ada"), Actor("person:bob")
COMMIT = Trigger(Cause.COMMIT, "c0ffee", "git:Ada", "commit c0ffee on main")


def no_environments(_kind: object) -> Environments:
    raise AssertionError("approval builds no environment")


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    clock = ManualClock()
    settings = Settings(tmp_path / "state", tmp_path / "home").prepare()
    return Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())


def version(rooms: Rooms, number: int, **release: object) -> None:
    config = Component(component="digits", release=Release.model_validate(release)).as_json()
    remember(rooms, VersionRecord("digits", number, "run", "models:/m", "model", "seal", "python", "b", "/", config))
    run = rooms.registry.start_run("digits", key=f"run-{number}", tags={})
    rooms.registry.register("digits", run_id=run.id, model="models:/m", key=f"v{number}", tags={})


def serve(rooms: Rooms, number: int, expected: int | None) -> None:
    draft = Draft("digits", Action.PROMOTED, ADA, "better", f"p{number}", Stage.PRODUCTION, number)
    rooms.ledger.move(draft, expected=expected)
    aliases.project(rooms)


def ask(rooms: Rooms, number: int, key: str = "c0ffee") -> None:
    trigger = Trigger(Cause.COMMIT, key, "git:Ada", f"commit {key}")
    serving = rooms.ledger.serving("digits", Stage.PRODUCTION)
    champion = serving.version if serving else None
    approvals.request(rooms, "digits", number, trigger, "approval is required", champion=champion)


def test_an_approval_starts_the_promotion_of_what_was_asked_for(rooms: Rooms) -> None:
    version(rooms, 1)
    ask(rooms, 1)
    ask(rooms, 1)
    (waiting,) = approvals.waiting(rooms, "digits")
    entry, promotion = approvals.decide(rooms, "digits", None, actor=BOB, comment="fine", action=Action.APPROVED)
    assert (entry.action, entry.actor, entry.reason) == (Action.APPROVED, BOB, "fine")
    assert promotion is not None
    assert (promotion.version, promotion.expected, promotion.flow_id) == (1, None, waiting.evidence["flow"])
    assert promotion.trigger.actor == "person:bob"
    assert approvals.waiting(rooms, "digits") == []
    assert approvals.tidy(rooms, "digits") == [promotion], "a crash before its start is made up for"


def test_of_two_decisions_the_first_counts(rooms: Rooms) -> None:
    version(rooms, 1)
    ask(rooms, 1)
    approvals.decide(rooms, "digits", 1, actor=ADA, comment="", action=Action.REJECTED)
    with pytest.raises(NotFound, match="No version 1 of digits waits"):
        approvals.decide(rooms, "digits", 1, actor=BOB, comment="", action=Action.APPROVED)
    assert approvals.tidy(rooms, "digits") == []


def test_several_that_wait_must_be_named(rooms: Rooms) -> None:
    version(rooms, 1)
    version(rooms, 2)
    ask(rooms, 1, "a")
    ask(rooms, 2, "b")
    with pytest.raises(Conflict, match="v2, v1"):
        approvals.decide(rooms, "digits", None, actor=ADA, comment="", action=Action.APPROVED)


def test_only_named_approvers_decide_and_the_champions_list_counts(rooms: Rooms) -> None:
    version(rooms, 1, approvers=["person:ada"])
    version(rooms, 2, approvers=["person:bob"])
    serve(rooms, 1, None)
    ask(rooms, 2)
    with pytest.raises(NotAllowed, match="person:bob may not decide on digits; these may: person:ada"):
        approvals.decide(rooms, "digits", 2, actor=BOB, comment="", action=Action.APPROVED)
    with pytest.raises(NotAllowed):
        approvals.check_may_promote(rooms, "digits", 2, BOB)
    assert approvals.decide(rooms, "digits", 2, actor=ADA, comment="", action=Action.APPROVED)[1] is not None


def test_what_was_judged_against_another_champion_is_not_approved(rooms: Rooms) -> None:
    for number in (1, 2, 3):
        version(rooms, number)
    serve(rooms, 1, None)
    ask(rooms, 3)
    serve(rooms, 2, 1)
    with pytest.raises(Conflict, match="judged against v1, and v2 serves by now"):
        approvals.decide(rooms, "digits", 3, actor=ADA, comment="", action=Action.APPROVED)
    approvals.tidy(rooms, "digits")
    assert approvals.waiting(rooms, "digits") == []
    assert rooms.ledger.history("digits")[0].action is Action.REJECTED


@pytest.mark.parametrize("approval", [Approval.AUTOMATIC, Approval.REQUIRED])
def test_a_candidate_may_follow_the_champion_that_it_was_judged_against(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, approval: Approval
) -> None:
    monkeypatch.setattr(candidate, "baseline_of", lambda *_: None)
    monkeypatch.setattr(candidate, "refuse_for_production", lambda *_: None)
    for number, before in ((1, None), (2, 1)):
        version(rooms, number, approval=Approval.AUTOMATIC)
        serve(rooms, number, before)
    version(rooms, 3, approval=approval)
    trained: Any = SimpleNamespace(evaluated=SimpleNamespace(champion=1))
    decision = candidate.decide(rooms, CandidateRequest("digits", "/", COMMIT), trained, 3)
    if approval is Approval.AUTOMATIC:
        assert decision.promotion is not None
        assert decision.promotion.expected == 1, "which its promotion then finds not to serve any more"
        return
    assert len(approvals.waiting(rooms, "digits")) == 1
    approvals.tidy(rooms, "digits")
    assert "v2 went to production meanwhile" in rooms.ledger.history("digits")[0].reason


def test_what_nobody_decides_on_is_rejected_in_the_end(rooms: Rooms) -> None:
    version(rooms, 1, decide_within="2d")
    ask(rooms, 1)
    assert isinstance(rooms.clock, ManualClock)
    rooms.clock.advance(2 * 86400 - 1)
    approvals.tidy(rooms, "digits")
    assert len(approvals.waiting(rooms, "digits")) == 1
    rooms.clock.advance(2)
    approvals.tidy(rooms, "digits")
    assert approvals.waiting(rooms, "digits") == []
    assert rooms.ledger.history("digits")[0].reason == "nobody decided within 48 hours"


@pytest.mark.parametrize(
    ("champion", "own", "cause", "same", "needed"),
    [
        (None, Approval.AUTOMATIC, Cause.COMMIT, False, False),
        (None, Approval.REQUIRED, Cause.ALARM, False, True),
        (None, Approval.NEW_CODE, Cause.ALARM, False, True),
        (Approval.REQUIRED, Approval.AUTOMATIC, Cause.COMMIT, False, True),
        (Approval.NEW_CODE, Approval.AUTOMATIC, Cause.COMMIT, False, True),
        (Approval.NEW_CODE, Approval.NEW_CODE, Cause.ALARM, True, False),
        (Approval.NEW_CODE, Approval.NEW_CODE, Cause.CRON, True, False),
        (Approval.NEW_CODE, Approval.NEW_CODE, Cause.ALARM, False, True),
        (Approval.NEW_CODE, Approval.NEW_CODE, Cause.COMMIT, True, True),
        (Approval.AUTOMATIC, Approval.AUTOMATIC, Cause.REGISTRY, False, False),
    ],
)
def test_who_needs_a_person(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, champion: Approval | None, own: Approval, cause: Cause,
    same: bool, needed: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(approvals, "is_same_code", lambda *_: same)
    version(rooms, 2, approval=own)
    if champion is not None:
        version(rooms, 1, approval=champion)
        serve(rooms, 1, None)
    assert approvals.rule(rooms, "digits", 2, cause).is_needed is needed


def test_an_alias_that_somebody_moved_is_put_back_and_asks(rooms: Rooms) -> None:
    version(rooms, 1)
    version(rooms, 2)
    serve(rooms, 1, None)
    assert not aliases.guard(rooms, "digits")
    for _ in range(3):
        rooms.registry.set_alias("digits", aliases.CHAMPION, 2)
        assert aliases.guard(rooms, "digits")
        assert rooms.registry.alias("digits", aliases.CHAMPION) == 1
    (event,) = Book(rooms, "digits").waiting()
    assert (event.wants, event.version, event.trigger.actor) == (Wants.PROMOTION, 2, "unknown")
    assert not event.is_approval
    assert {line.became for line in Book(rooms, "digits").log()} == {Became.PUT_BACK}


def test_an_alias_that_somebody_removed_is_put_back_and_asks_for_nothing(rooms: Rooms) -> None:
    version(rooms, 1)
    serve(rooms, 1, None)
    rooms.registry.set_alias("digits", aliases.CHAMPION, None)
    assert aliases.guard(rooms, "digits")
    assert rooms.registry.alias("digits", aliases.CHAMPION) == 1
    assert Book(rooms, "digits").waiting() == []


def test_an_alias_that_cannot_be_put_back_is_told_by_status_and_not_called_put_back(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise NotFound("MLflow has no version 1 of digits.")

    version(rooms, 1)
    serve(rooms, 1, None)
    rooms.registry.set_alias("digits", aliases.CHAMPION, None)
    control = Control(rooms, Engine(rooms))
    with monkeypatch.context() as patched:
        patched.setattr(type(rooms.registry), "set_alias", lost)
        for _ in range(3):
            with pytest.raises(Unavailable):
                control.guard_aliases()
    assert Book(rooms, "digits").log() == []
    assert "MLflow has no version 1" in control.aliases["digits"]
    control.guard_aliases()
    assert control.aliases == {}
    assert [line.became for line in Book(rooms, "digits").log()] == [Became.PUT_BACK]


def test_headraces_own_moves_are_left_alone_also_before_they_are_remembered(rooms: Rooms) -> None:
    version(rooms, 1)
    version(rooms, 2)
    serve(rooms, 1, None)
    draft = Draft("digits", Action.PROMOTED, ADA, "better", "p2", Stage.PRODUCTION, 2)
    rooms.ledger.move(draft, expected=1)
    assert not aliases.guard(rooms, "digits"), "still the old one: the outbox has it"
    rooms.registry.set_alias("digits", aliases.CHAMPION, 2)  # A crash before `mark_written`.
    assert not aliases.guard(rooms, "digits")


def tagged(number: int) -> Event:
    trigger = Trigger(Cause.TAG, f"v{number}-abc", "git:Ada", f"the tag digits/v{number} was pushed")
    return Event("digits", trigger, Wants.PROMOTION, version=number, is_approval=True)


def configured(rooms: Rooms, number: int, tags: str, **release: object) -> None:
    version(rooms, number)
    document = {"component": "digits", "triggers": {"tags": tags}, "release": release}
    record = recall(rooms, "digits", number)
    remember(rooms, replace(record, config=Component.model_validate(document).as_json()))


def test_a_tag_approves_only_where_the_champion_says_so_too(rooms: Rooms) -> None:
    configured(rooms, 1, "request")
    configured(rooms, 2, "approve")
    assert not approvals.rule_for(rooms, "digits", 2, tagged(2)).is_needed, "nothing serves yet"
    serve(rooms, 1, None)
    assert approvals.rule_for(rooms, "digits", 2, tagged(2)).is_needed


def test_no_trigger_decides_where_approvers_are_named(rooms: Rooms) -> None:
    configured(rooms, 1, "approve", approval="automatic", approvers=["person:ada"])
    found = approvals.rule_for(rooms, "digits", 1, tagged(1))
    assert (found.is_needed, found.because) == (True, "only person:ada may decide")
