"""Production changes whole or not at all, and going back goes to what really served before."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.clock import ManualClock
from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.deploy.base import Route, Status
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.errors import Conflict, ModelRefused, NotFound, Unavailable
from headrace.ledger.base import Action, Draft
from headrace.ledger.memory import MemoryLedger
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.control import Control
from headrace.lifecycle.durable import Undurable
from headrace.lifecycle.events import Mark
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.production import approvals
from headrace.lifecycle.production.aliases import CHAMPION, project
from headrace.lifecycle.production.reconcile import bring_up, previous_champion, production_route, settle
from headrace.lifecycle.production.retire import retire
from headrace.lifecycle.production.rollback import roll_back
from headrace.lifecycle.request import Cause, Outcome, PromoteRequest, State, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.settling import GRACE_S, Settling
from headrace.lifecycle.stopping import ask_to_stop
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Stage

ADA = Actor("person:ada")


def no_environments(_kind: object) -> Environments:
    raise AssertionError("promotion builds no environment")


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rooms:
    # The door has tests of its own; what is asked here is the order of things.
    monkeypatch.setattr("headrace.lifecycle.production.promote.pass_production_door", lambda *_: None)
    clock = ManualClock()
    settings = Settings(state=tmp_path / "state", home=tmp_path / "home").prepare()
    made = Rooms(settings, clock, MemoryRegistry(), MemoryLedger(clock), MemoryTarget(), no_environments, MemoryLog())
    for number in (1, 2, 3):
        run = made.registry.start_run("digits", key=f"run-{number}", tags={})
        made.registry.register("digits", run_id=run.id, model=f"models:/m-{number}", key=f"v{number}", tags={})
        remember(made, record(tmp_path, number))
    return made


def record(folder: Path, number: int) -> VersionRecord:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "python").touch()
    config = Component(component="digits").as_json()
    return VersionRecord(
        "digits", number, f"run-{number}", f"models:/m-{number}", str(folder / "model"), "seal", str(folder / "python"),
        f"baseline-{number}", str(folder), config,
    )  # fmt: skip


def promote(rooms: Rooms, version: int, expected: int | None) -> Outcome:
    request = PromoteRequest("digits", version, expected, Trigger(Cause.PERSON, f"k{version}", "person:ada", "better"))
    return FLOWS["promote"](Undurable({}), rooms, request)


def serving(rooms: Rooms) -> tuple[int | None, dict[int, float], int | None]:
    project(rooms)
    entry = rooms.ledger.serving("digits", Stage.PRODUCTION)
    status = rooms.target.status("digits", Stage.PRODUCTION)
    return (
        entry.version if entry else None,
        dict(status.shares) if status else {},
        rooms.registry.alias("digits", CHAMPION),
    )


def test_ledger_route_and_alias_agree_after_a_promotion(rooms: Rooms) -> None:
    assert promote(rooms, 1, None).state is State.PROMOTED
    assert serving(rooms) == (1, {1: 1.0}, 1)
    assert promote(rooms, 2, 1).state is State.PROMOTED
    assert serving(rooms) == (2, {2: 1.0}, 2)
    status = rooms.target.status("digits", Stage.PRODUCTION)
    assert status is not None
    assert set(status.warm) == {1, 2}, "the last champion is kept warm"


def test_who_stops_a_candidate_stops_the_promotion_that_follows(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    ask_to_stop(rooms.folder("digits/person-k2/1"), "person:ada")
    request = PromoteRequest(
        "digits", 2, 1, Trigger(Cause.PERSON, "k2", "person:ada", "better"), origin="digits/person-k2/1"
    )
    assert FLOWS["promote"](Undurable({}), rooms, request).state is State.CANCELLED
    assert serving(rooms) == (1, {1: 1.0}, 1)


def test_who_stops_while_a_version_is_loaded_finds_it_gone_again(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(rooms, 1, None)
    request = PromoteRequest("digits", 2, 1, Trigger(Cause.PERSON, "k2", "person:ada", "better"))

    def loaded(*args: Any, **kwargs: Any) -> Status | None:
        status = settle(*args, **kwargs)
        ask_to_stop(rooms.folder(request.flow_id), "person:ada")
        return status

    monkeypatch.setattr("headrace.lifecycle.production.promote.settle", loaded)
    assert FLOWS["promote"](Undurable({}), rooms, request).state is State.CANCELLED
    status = rooms.target.status("digits", Stage.PRODUCTION)
    assert status is not None
    assert list(status.warm) == [1]


def test_a_version_that_cannot_be_loaded_changes_nothing(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    before = rooms.ledger.history("digits")
    assert isinstance(rooms.target, MemoryTarget)
    rooms.target.broken.add(2)
    outcome = promote(rooms, 2, 1)
    assert (outcome.state, outcome.exit_code) == (State.FAILED, ModelRefused.exit_code)
    assert serving(rooms) == (1, {1: 1.0}, 1)
    assert rooms.ledger.history("digits") == before


def test_a_first_version_that_cannot_be_loaded_is_taken_back(rooms: Rooms) -> None:
    assert isinstance(rooms.target, MemoryTarget)
    rooms.target.broken.add(1)
    assert promote(rooms, 1, None).state is State.FAILED
    entry = rooms.ledger.serving("digits", Stage.PRODUCTION)
    assert entry is None or entry.version is None


def test_of_two_promotions_of_the_same_champion_the_second_is_refused(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    outcome = promote(rooms, 3, 1)
    assert (outcome.state, outcome.exit_code) == (State.REFUSED, Conflict.exit_code)
    assert serving(rooms) == (2, {2: 1.0}, 2)


def test_rollback_goes_to_the_champion_before_and_then_to_the_one_before_that(rooms: Rooms) -> None:
    for version, expected in ((1, None), (2, 1), (3, 2)):
        promote(rooms, version, expected)
    roll_back(rooms, "digits", to=None, actor=ADA, reason="worse", key="a")
    assert serving(rooms) == (2, {2: 1.0}, 2)
    roll_back(rooms, "digits", to=None, actor=ADA, reason="still worse", key="b")
    assert serving(rooms) == (1, {1: 1.0}, 1)
    with pytest.raises(Conflict, match="nothing to go back to"):
        roll_back(rooms, "digits", to=None, actor=ADA, reason="again", key="c")


def test_a_first_version_that_was_taken_back_is_nothing_to_go_back_to(rooms: Rooms) -> None:
    assert isinstance(rooms.target, MemoryTarget)
    rooms.target.broken.add(1)
    assert promote(rooms, 1, None).state is State.FAILED
    assert rooms.ledger.history("digits")[0].action is Action.ROLLED_BACK, "it was decided, and did not hold"
    rooms.target.broken.clear()
    promote(rooms, 2, None)
    with pytest.raises(Conflict, match="Version 2 is the only one of digits that was ever in production"):
        roll_back(rooms, "digits", to=None, actor=ADA, reason="worse", key="a")
    rooms.ledger.append(Draft("digits", Action.REGISTERED, ADA, "made", "r1", version=1))
    assert retire(rooms, "digits", 1, actor=ADA, reason="broken").action is Action.RETIRED


def test_what_was_rolled_back_from_is_no_way_back_though_what_served_instead_is_retired(rooms: Rooms) -> None:
    moves = [(1, None), (2, 1), (3, 2), (2, 3), (4, 2), (5, 4), (4, 5)]
    for turn, (version, expected) in enumerate(moves):
        action = Action.ROLLED_BACK if version < (expected or 0) else Action.PROMOTED
        draft = Draft("digits", action, ADA, "x", f"move-{turn}", stage=Stage.PRODUCTION, version=version)
        rooms.ledger.move(draft, expected=expected)
    assert previous_champion(rooms, "digits") == 2
    rooms.ledger.append(Draft("digits", Action.RETIRED, ADA, "old", "retired-2", version=2))
    assert previous_champion(rooms, "digits") == 1, "v3 did worse"


def test_forward_again_after_a_rollback(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    roll_back(rooms, "digits", to=None, actor=ADA, reason="back", key="a")
    roll_back(rooms, "digits", to=2, actor=ADA, reason="forward", key="b")
    assert serving(rooms) == (2, {2: 1.0}, 2)
    assert previous_champion(rooms, "digits") == 1


def test_a_repeated_rollback_is_one_entry(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    first = roll_back(rooms, "digits", to=None, actor=ADA, reason="back", key="a")
    assert roll_back(rooms, "digits", to=None, actor=ADA, reason="back", key="a") == first
    actions = [entry.action for entry in rooms.ledger.history("digits")]
    assert actions.count(Action.ROLLED_BACK) == 1


@pytest.mark.parametrize(("to", "fact"), [(1, "in production already"), (3, "never in production")])
def test_rollback_refuses_what_is_no_way_back(rooms: Rooms, to: int, fact: str) -> None:
    promote(rooms, 1, None)
    with pytest.raises(Conflict, match=fact):
        roll_back(rooms, "digits", to=to, actor=ADA, reason="x", key="a")


def test_rollback_of_nothing_says_so(rooms: Rooms) -> None:
    with pytest.raises(Conflict, match="Nothing of digits is in production"):
        roll_back(rooms, "digits", to=None, actor=ADA, reason="x", key="a")


def test_production_is_brought_back_as_the_ledger_says(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    rooms.target.remove("digits", Stage.PRODUCTION)
    status = bring_up(rooms, "digits")
    assert status is not None
    assert dict(status.shares) == {2: 1.0}
    assert set(status.warm) == {1, 2}


def test_of_twenty_promotions_at_once_one_wins_and_the_others_get_one_sentence(rooms: Rooms, tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    rooms = replace(rooms, ledger=ledger)
    for number in range(4, 42):
        remember(rooms, record(tmp_path, number))
        run = rooms.registry.start_run("digits", key=f"run-{number}", tags={})
        rooms.registry.register("digits", run_id=run.id, model="models:/m", key=f"v{number}", tags={})
    promote(rooms, 1, None)
    present = 1
    for turn in range(2):
        barrier = threading.Barrier(20)

        def at_once(version: int, expected: int = present, barrier: threading.Barrier = barrier) -> Outcome:
            barrier.wait()
            return promote(rooms, version, expected)

        with ThreadPoolExecutor(20) as pool:
            outcomes = list(pool.map(at_once, range(2 + 20 * turn, 22 + 20 * turn)))
        (winner,) = [outcome for outcome in outcomes if outcome.state is State.PROMOTED]
        others = [outcome for outcome in outcomes if outcome is not winner]
        assert {(outcome.state, outcome.exit_code) for outcome in others} == {(State.REFUSED, Conflict.exit_code)}
        assert all(f"not v{present}" in outcome.fact or f"not version {present}" in outcome.fact for outcome in others)
        assert winner.version is not None
        present = winner.version
        assert serving(rooms) == (present, {present: 1.0}, present)
    assert ledger.verify("digits").problem == ""
    assert len(ledger.select("digits", {Action.PROMOTED})) == 3
    ledger.close()


def test_a_rollback_that_a_crash_cut_short_is_finished_by_its_repeat(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    roll_back(rooms, "digits", to=None, actor=ADA, reason="worse", key="digits/rollback/k")
    settled = rooms.target.status("digits", Stage.PRODUCTION)
    # As if the process had died between the ledger and the route.
    rooms.target.apply(production_route(rooms, "digits", {2: 1.0}, warm=[1]))
    roll_back(rooms, "digits", to=None, actor=ADA, reason="worse", key="digits/rollback/k")
    assert serving(rooms) == (1, {1: 1.0}, 1)
    status = rooms.target.status("digits", Stage.PRODUCTION)
    assert status is not None
    assert settled is not None
    assert set(status.warm) == set(settled.warm) == {1, 2}


def test_the_same_key_for_two_components_makes_two_rollbacks(rooms: Rooms, tmp_path: Path) -> None:
    control = Control(rooms, cast("Any", None))
    for number in (1, 2):
        remember(rooms, replace(record(tmp_path, number), component="flowers"))
        for name in ("digits", "flowers"):
            trigger = Trigger(Cause.PERSON, f"{name}{number}", "person:ada", "better")
            FLOWS["promote"](Undurable({}), rooms, PromoteRequest(name, number, number - 1 or None, trigger))
    entries = [
        control.rollback(name, to=None, actor="person:ada", reason="worse", key="incident-42")
        for name in ("digits", "flowers", "flowers")
    ]
    assert [entry.component for entry in entries] == ["digits", "flowers", "flowers"]
    assert entries[1] == entries[2]


def test_a_promotion_stands_where_mlflow_cannot_be_told(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unavailable("MLflow is away.")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryRegistry, "set_alias", away)
        assert promote(rooms, 1, None).state is State.PROMOTED
    assert serving(rooms) == (1, {1: 1.0}, 1), "the outbox kept the wish"


def test_an_alias_that_cannot_be_written_holds_up_no_other(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(rooms.ledger, MemoryLedger)
    for name in ("gone", "there"):
        rooms.ledger.move(
            Draft(name, Action.PROMOTED, ADA, "better", f"{name}-1", stage=Stage.PRODUCTION, version=1), expected=None
        )
    written = []

    def set_alias(_self: object, component: str, _alias: str, _number: int | None) -> None:
        if component == "gone":
            raise NotFound("The registry has no model `gone`.")
        written.append(component)

    monkeypatch.setattr(MemoryRegistry, "set_alias", set_alias)
    with pytest.raises(Unavailable, match="gone: The registry has no model"):
        project(rooms)
    assert written == ["there"]
    assert [wanted.component for wanted in rooms.ledger.unwritten()] == ["gone"]


def test_a_canary_stops_at_once_when_somebody_asks(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    release = {"strategy": "canary", "steps": [10, 100], "step_s": "1h"}
    config = Component.model_validate({"component": "digits", "release": release}).as_json()
    for number in (1, 2):
        remember(rooms, replace(record(rooms.settings.home.parent, number), config=config))
    promote(rooms, 1, None)
    request = PromoteRequest("digits", 2, 1, Trigger(Cause.PERSON, "k2", "person:ada", "better"))

    def seen(*_: object, **__: object) -> dict[int, object]:
        ask_to_stop(rooms.folder(request.flow_id), "person:ada")
        return {}

    monkeypatch.setattr("headrace.lifecycle.production.promote.tallies", seen)
    assert FLOWS["promote"](Undurable({}), rooms, request).state is State.CANCELLED
    assert serving(rooms) == (1, {1: 1.0}, 1)


def test_a_promotion_that_was_taken_back_meanwhile_does_not_say_that_it_serves(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(rooms, 1, None)

    def taken_back(*_: object) -> None:
        roll_back(rooms, "digits", to=None, actor=ADA, reason="worse", key="digits/rollback/k")

    monkeypatch.setattr("headrace.lifecycle.production.promote.canary", taken_back)
    outcome = promote(rooms, 2, 1)
    assert outcome.state is State.REFUSED
    assert outcome.fact.startswith("v1 of digits is in production by now: somebody took v2 back")
    assert serving(rooms) == (1, {1: 1.0}, 1)


class Idle:
    """An engine in which nothing runs but what it is told; it remembers what it is to start."""

    def __init__(self, *running: str) -> None:
        self.flows = running
        self.started: list[str] = []

    def running(self) -> tuple[str, ...]:
        return self.flows

    def state(self, flow: str) -> str | None:
        return "PENDING" if flow in (*self.flows, *self.started) else None

    def start(self, _kind: str, flow: str, _request: object) -> str:
        self.started.append(flow)
        return flow


FLOW = "digits/promote/person-k2/1"


def in_a_canary(rooms: Rooms, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Rooms], None]) -> Outcome:
    """Promote v1, then v2 with a canary, and do something while v2 has its first share."""
    release = {"strategy": "canary", "steps": [10, 100], "step_s": "0s"}
    config = Component.model_validate({"component": "digits", "release": release}).as_json()
    for number in (1, 2, 3):
        remember(rooms, replace(record(rooms.settings.home.parent, number), config=config))
    promote(rooms, 1, None)
    rooms = replace(rooms, is_under_way=lambda flow: flow == FLOW)
    looks = iter(range(1))

    def seen(*_: object, **__: object) -> dict[int, object]:
        if next(looks, None) == 0:
            meanwhile(rooms)
        return {}

    monkeypatch.setattr("headrace.lifecycle.production.promote.tallies", seen)
    return promote(rooms, 2, 1)


def shares(rooms: Rooms) -> dict[int, float]:
    status = rooms.target.status("digits", Stage.PRODUCTION)
    return dict(status.shares) if status else {}


def test_a_restart_leaves_a_canary_its_share(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def restart(rooms: Rooms) -> None:
        bring_up(rooms, "digits")
        seen.append(shares(rooms))
        rooms.target.remove("digits", Stage.PRODUCTION)  # As a reboot does.
        bring_up(rooms, "digits")
        seen.append(shares(rooms))

    assert in_a_canary(rooms, monkeypatch, restart).state is State.PROMOTED
    assert seen == [{1: 0.9, 2: 0.1}, {1: 0.9, 2: 0.1}]
    assert serving(rooms) == (2, {2: 1.0}, 2)
    rooms.target.remove("digits", Stage.PRODUCTION)
    bring_up(replace(rooms, is_under_way=lambda flow: flow == FLOW), "digits")
    assert shares(rooms) == {2: 1.0}, "its canary is over, also where the flow has yet to end"


def test_a_second_promotion_changes_nothing_of_a_canary(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Outcome] = []

    def second(rooms: Rooms) -> None:
        outcomes.append(promote(rooms, 3, 2))
        assert shares(rooms) == {1: 0.9, 2: 0.1}

    assert in_a_canary(rooms, monkeypatch, second).state is State.PROMOTED
    (refused,) = outcomes
    assert (refused.state, refused.exit_code) == (State.REFUSED, Conflict.exit_code)
    assert refused.fact == f"Another promotion of digits is under way (flow {FLOW})."
    assert f"headrace stop {FLOW}" in refused.remedy
    assert "headrace promote digits --version 3" in refused.remedy
    assert serving(rooms) == (2, {2: 1.0}, 2)
    assert promote(rooms, 3, 2).state is State.PROMOTED


def test_a_rollback_to_what_is_not_warm_loads_it_beside_the_canary(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[int, float]] = []
    apply = MemoryTarget.apply

    def told(target: MemoryTarget, route: Route) -> Status:
        seen.append(dict(route.shares))
        return apply(target, route)

    def back(rooms: Rooms) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(MemoryTarget, "apply", told)
            roll_back(rooms, "digits", to=3, actor=ADA, reason="bad", key="a")

    promote(rooms, 3, None)
    roll_back_to_nothing = Draft("digits", Action.ROLLED_BACK, ADA, "bad", "n", stage=Stage.PRODUCTION, version=None)
    rooms.ledger.move(roll_back_to_nothing, expected=3)
    outcome = in_a_canary(rooms, monkeypatch, back)
    assert outcome.fact.startswith("v3 of digits is in production by now: somebody took v2 back")
    assert seen == [{1: 0.9, 2: 0.1}, {3: 1.0}]
    assert shares(rooms) == {3: 1.0}


def test_a_canary_ends_as_soon_as_somebody_goes_back(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []
    monkeypatch.setattr("headrace.lifecycle.production.promote.judged", lambda *_: judged.append(1) or "")

    def there_and_back(rooms: Rooms) -> None:
        roll_back(rooms, "digits", to=None, actor=ADA, reason="bad", key="a")
        roll_back(rooms, "digits", to=2, actor=ADA, reason="or not", key="b")

    in_a_canary(rooms, monkeypatch, there_and_back)
    assert judged == []
    assert serving(rooms) == (2, {2: 1.0}, 2), "what a person says last is not tried out by an older canary"


@pytest.fixture
def accepted(rooms: Rooms) -> Rooms:
    """Three versions that may serve, of which the first does."""
    for number in (1, 2, 3):
        for action in (Action.REGISTERED, Action.GATED, Action.ACCEPTED):
            rooms.ledger.append(Draft("digits", action, ADA, "good", f"{action}/{number}", version=number))
    promote(rooms, 1, None)
    return rooms


def test_while_a_promotion_is_under_way_no_other_is_started(accepted: Rooms) -> None:
    engine = Idle(FLOW)
    control = Control(accepted, cast("Any", engine))
    before = accepted.ledger.history("digits")
    with pytest.raises(Conflict, match="Another promotion of digits is under way") as refused:
        control.promote("digits", 3, actor="person:ada", reason="", key="k3")
    assert f"headrace stop {FLOW}" in refused.value.remedy
    assert (engine.started, accepted.ledger.history("digits")) == ([], before)
    assert control.promote("digits", 2, actor="person:ada", reason="", key="k2") == FLOW, "a repeat is the same one"
    accepted.journal(FLOW).write("shift", Mark.DONE, "v2 answers all requests")
    assert control.promote("digits", 3, actor="person:ada", reason="", key="k3") in engine.started


def test_while_a_promotion_is_under_way_nothing_is_approved(accepted: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.lifecycle.production.approvals.state_entry", lambda *_: None)
    trigger = Trigger(Cause.COMMIT, "c3", "git:Ada", "commit c3")
    approvals.request(accepted, "digits", 3, trigger, "it is required", champion=1)
    engine = Idle(FLOW)
    control = Control(accepted, cast("Any", engine))
    with pytest.raises(Conflict, match="Another promotion of digits is under way") as refused:
        control.decide("digits", None, actor="person:ada", comment="", action=Action.APPROVED)
    assert refused.value.remedy.endswith("Then: headrace approve digits --version 3")
    assert len(approvals.waiting(accepted, "digits")) == 1, "it waits on"
    engine.flows = ()
    decided = control.decide("digits", None, actor="person:ada", comment="", action=Action.APPROVED)
    assert engine.started == [decided.flow]
    engine.started.clear()
    engine.flows = (FLOW,)
    control.tidy_approvals()
    assert engine.started == [], "what a crash kept from starting waits, too"
    engine.flows = ()
    control.tidy_approvals()
    assert engine.started == [decided.flow]


def test_production_that_is_not_what_the_ledger_says_is_made_so_after_a_while(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    settling = Settling(Control(rooms, cast("Any", Idle())))
    assert isinstance(rooms.clock, ManualClock)
    rooms.target.remove("digits", Stage.PRODUCTION)
    settling.look()
    assert rooms.target.status("digits", Stage.PRODUCTION) is None, "it may be on its way"
    rooms.clock.advance(GRACE_S)
    settling.look()
    assert serving(rooms) == (1, {1: 1.0}, 1)


def test_shares_that_a_canary_left_are_put_right_after_a_while(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    rooms.target.apply(production_route(rooms, "digits", {1: 0.9, 2: 0.1}))
    settling = Settling(Control(rooms, cast("Any", Idle())))
    assert isinstance(rooms.clock, ManualClock)
    settling.look()
    rooms.clock.advance(GRACE_S)
    settling.look()
    assert serving(rooms) == (2, {2: 1.0}, 2)


def warm(rooms: Rooms) -> set[int]:
    status = rooms.target.status("digits", Stage.PRODUCTION)
    return set(status.warm) if status else set()


def test_the_version_before_is_kept_warm_for_as_long_as_it_says_and_no_longer(rooms: Rooms) -> None:
    config = Component.model_validate({"component": "digits", "release": {"keep_warm_s": "10m"}}).as_json()
    for number in (1, 2, 3):
        remember(rooms, replace(record(rooms.settings.home.parent, number), config=config))
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    engine = Idle()
    settling = Settling(Control(rooms, cast("Any", engine)))
    assert isinstance(rooms.clock, ManualClock)
    settling.look()
    rooms.clock.advance(599)
    settling.look()
    assert warm(rooms) == {1, 2}
    engine.flows = ("digits/promote/person-k3/1",)
    rooms.clock.advance(1)
    settling.look()
    assert warm(rooms) == {1, 2}, "a promotion is under way"
    engine.flows = ()
    for _ in range(2):
        settling.look()
        rooms.clock.advance(600)
    settling.look()
    assert (warm(rooms), serving(rooms)) == ({2}, (2, {2: 1.0}, 2))
    bring_up(rooms, "digits")
    assert warm(rooms) == {2}, "what was let go is not loaded again"
    roll_back(rooms, "digits", to=None, actor=ADA, reason="worse", key="a")
    assert serving(rooms) == (1, {1: 1.0}, 1)


def test_a_champion_before_that_was_let_go_does_not_hold_up_a_promotion(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    promote(rooms, 2, 1)
    rooms.target.apply(production_route(rooms, "digits", {2: 1.0}))
    assert isinstance(rooms.clock, ManualClock)
    assert isinstance(rooms.target, MemoryTarget)
    rooms.clock.advance(3600)
    rooms.target.broken.add(1)
    assert promote(rooms, 3, 2).state is State.PROMOTED
    assert warm(rooms) == {2, 3}


def test_a_promotion_that_moves_the_route_is_left_alone(rooms: Rooms) -> None:
    promote(rooms, 1, None)
    settling = Settling(Control(rooms, cast("Any", Idle("digits/promote/person-k/1"))))
    rooms.target.remove("digits", Stage.PRODUCTION)
    assert isinstance(rooms.clock, ManualClock)
    for _ in range(3):
        rooms.clock.advance(GRACE_S)
        settling.look()
    assert rooms.target.status("digits", Stage.PRODUCTION) is None


def test_what_cannot_be_served_is_told_and_tried_less_and_less_often(rooms: Rooms, tmp_path: Path) -> None:
    promote(rooms, 1, None)
    (tmp_path / "model").rmdir()
    rooms.target.remove("digits", Stage.PRODUCTION)
    control = Control(rooms, cast("Any", Idle()))
    settling, told = Settling(control), []
    assert isinstance(rooms.clock, ManualClock)
    for second in range(200):
        control.problems.clear()
        settling.look()
        if control.problems:
            told.append(second)
        rooms.clock.advance(1)
    assert told == [30, 90]
    control.bring_one_up("digits")
    assert "headrace restore digits/1" in str(control.status()["components"])


def test_a_version_that_was_never_judged_says_how_to_judge_it(rooms: Rooms) -> None:
    rooms.ledger.append(Draft("digits", Action.REGISTERED, ADA, "adopted", "adopt/1", version=1))
    with pytest.raises(Conflict, match="was never judged") as refused:
        Control(rooms, cast("Any", None)).promote("digits", 1, actor="person:ada", reason="", key="k")
    assert refused.value.remedy.endswith("headrace run . --version 1")


def test_a_configuration_that_another_headrace_wrote_holds_up_no_other(rooms: Rooms, tmp_path: Path) -> None:
    promote(rooms, 1, None)
    remember(rooms, replace(record(tmp_path, 1), config={"component": "digits", "of_tomorrow": 1}))
    control = Control(rooms, cast("Any", None))
    assert "of_tomorrow" in str(control.bring_up()["problems"])
