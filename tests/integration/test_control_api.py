"""The control API and its OpenAPI document: every route is described, and nothing that is sent gets a 5xx."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from headrace.clock import ManualClock, SystemClock
from headrace.config.component import Component
from headrace.config.settings import Settings
from headrace.dashboard.access import Access, Failures
from headrace.dashboard.api import Api, application
from headrace.deploy.memory import MemoryTarget
from headrace.environment.base import Environments
from headrace.ledger.base import Action, Draft
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.control import Control
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.upkeep.tokens import Rank, Tokens
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.predictions.ids import Ids
from headrace.predictions.memory import MemoryLog
from headrace.registry.memory import MemoryRegistry
from headrace.types import Actor, Prediction, Stage

OWN = "own"
ADA = Actor("person:ada")


@dataclass
class MemoryEngine:
    """Remembers what was started, and runs nothing."""

    started: dict[str, str] = field(default_factory=dict)

    def start(self, kind: str, flow_id: str, request: object) -> str:
        self.started.setdefault(flow_id, kind)
        return flow_id

    def state(self, flow_id: str) -> str | None:
        return "PENDING" if flow_id in self.started else None

    def has_ended(self, flow_id: str) -> bool:
        return False

    def running(self) -> Sequence[str]:
        return []


class Patience(Failures):
    """Lets everybody try on; that guessing is slowed down has tests of its own."""

    def wait_s(self, address: str) -> float:
        return 0.0


@dataclass(frozen=True)
class Made:
    """A control side with one component, of which version 2 serves."""

    app: Starlette
    rooms: Rooms
    tokens: dict[Rank, str]


def no_environments(_kind: object) -> Environments:
    raise AssertionError("the API builds no environment")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    home = tmp_path_factory.mktemp("control")
    installation = Settings(home / "state", home / "home").prepare()
    clock, ledger = SystemClock(), SqlLedger(installation.ledger_url)
    rooms = Rooms(installation, clock, MemoryRegistry(), ledger, MemoryTarget(), no_environments, MemoryLog())
    _fill(rooms, home)
    engine: Any = MemoryEngine()
    control = Control(rooms, engine)
    tokens = Tokens(installation.home / "tokens.json", clock)
    secrets = {rank: tokens.create(rank.value, rank, lives_s=None)[1] for rank in Rank}
    access = Access(OWN, tokens, Patience(clock))
    yield Made(application(Api(control, access, lambda: "http://127.0.0.1:1")), rooms, secrets)
    ledger.close()


def _fill(rooms: Rooms, folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "python").touch()
    for number in (1, 2, 3):
        run = rooms.registry.start_run("digits", key=f"run-{number}", tags={})
        rooms.registry.register("digits", run_id=run.id, model="models:/m", key=f"v{number}", tags={})
        record = VersionRecord(
            "digits", number, run.id, "models:/m", str(folder / "model"), "seal", str(folder / "python"), "b",
            str(folder), Component(component="digits").as_json(),
        )  # fmt: skip
        remember(rooms, record)
        rooms.ledger.append(Draft("digits", Action.REGISTERED, ADA, "made", f"r{number}", version=number))
        rooms.ledger.append(Draft("digits", Action.GATED, ADA, "good", f"g{number}", version=number))
        rooms.ledger.append(Draft("digits", Action.ACCEPTED, ADA, "fine", f"a{number}", version=number))
    for number in (1, 2):
        draft = Draft("digits", Action.PROMOTED, ADA, "better", f"p{number}", Stage.PRODUCTION, number)
        rooms.ledger.move(draft, expected=number - 1 or None)


@pytest.fixture(scope="module")
def client(made: Made) -> TestClient:
    return TestClient(made.app)


def ask(client: TestClient, method: str, path: str, token: str, **words: Any) -> Any:
    return client.request(method, path, headers={"authorization": f"Bearer {token}"}, **words)


def test_every_route_is_in_the_document_and_nothing_else_is(made: Made, client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    described = {(method, path) for path, found in document["paths"].items() for method in found}
    routes = [route for route in made.app.routes if isinstance(route, Route)]
    there = {(method.lower(), route.path) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    assert described == there
    assert len(routes) == len(made.app.routes), "a mount would not be walked"


def test_bodies_are_described_by_what_validates_them(client: TestClient) -> None:
    schemas = client.get("/api/openapi.json").json()["components"]["schemas"]
    assert schemas["Promote"]["required"] == ["component", "version", "reason", "key"]
    assert schemas["Promote"]["properties"]["version"]["minimum"] == 1
    refused = ask(
        client, "POST", "/api/promote", OWN, json={"component": "digits", "version": 0, "reason": "", "key": "k"}
    )
    assert refused.status_code == 400
    assert refused.json()["fact"] == "`version` must be a whole number, at least 1."
    assert refused.json()["remedy"]


def test_every_operation_says_who_may(made: Made, client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    for path, found in document["paths"].items():
        for method, operation in found.items():
            if operation.get("security") == []:
                continue
            needed = next(rank for rank in Rank if f"role {rank.value} " in operation["description"])
            for rank in Rank:
                if not rank.covers(needed):
                    assert ask(client, method, path, made.tokens[rank]).status_code == 403, (path, rank)


def test_without_a_token_nothing_is_told(client: TestClient) -> None:
    assert client.get("/api/status").status_code == 401
    assert client.post("/api/run").status_code == 401


def test_the_ledger_can_be_read_and_checked(made: Made, client: TestClient) -> None:
    token = made.tokens[Rank.VIEWER]
    found = ask(client, "GET", "/api/history?component=digits&limit=1", token).json()
    assert [entry["version"] for entry in found["entries"]] == [2]
    assert ask(client, "GET", "/api/history?component=flowers", token).status_code == 404
    assert ask(client, "GET", "/api/ledger/verify", token).json()["chains"][0]["problem"] == ""


@pytest.mark.parametrize(
    "query", ["component=../elsewhere", "component=", "", "component=digits&more=1", "component=digits%0A"]
)
def test_a_name_that_is_none_makes_no_folder(made: Made, client: TestClient, query: str) -> None:
    assert ask(client, "GET", f"/api/windows?{query}", made.tokens[Rank.VIEWER]).status_code == 400
    assert not (made.rooms.settings.home / "elsewhere").exists()


def test_what_nobody_knows_is_not_found_and_leaves_nothing(made: Made, client: TestClient) -> None:
    assert ask(client, "GET", "/api/windows?component=typed", made.tokens[Rank.VIEWER]).status_code == 404
    assert not (made.rooms.settings.home / "watch" / "typed").exists()


def test_all_triggers_are_told_where_no_component_is_named(made: Made, client: TestClient) -> None:
    found = ask(client, "GET", "/api/triggers", made.tokens[Rank.VIEWER]).json()
    assert isinstance(found["components"], list)


def test_a_version_is_retired_by_who_may(made: Made, client: TestClient) -> None:
    body = {"component": "digits", "version": 2, "reason": "worse"}
    refused = ask(client, "POST", "/api/retire", made.tokens[Rank.OPERATOR], json=body)
    assert refused.status_code == 409
    assert refused.json()["fact"] == "Version 2 of digits is in production."
    body["version"] = 3
    assert ask(client, "POST", "/api/retire", made.tokens[Rank.OPERATOR], json=body).json()["actor"] == "token:operator"
    promotion = {"component": "digits", "version": 3, "reason": "", "key": "k3"}
    refused = ask(client, "POST", "/api/promote", made.tokens[Rank.OPERATOR], json=promotion)
    assert (refused.status_code, "was retired by token:operator" in refused.json()["fact"]) == (409, True)


def test_what_nobody_needs_is_told_before_it_goes(made: Made, client: TestClient) -> None:
    found = ask(client, "POST", "/api/gc", made.tokens[Rank.OPERATOR], json={"dry_run": True}).json()
    assert (found["removed"], found["items"]) == (False, [])


def test_nothing_that_is_sent_gets_a_5xx(made: Made) -> None:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", made.app)
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    answers: Counter[int] = Counter()
    # What streams for ever is asked elsewhere.
    operations = [one for one in (found.ok() for found in schema.get_all_operations()) if one.path != "/api/stream"]
    for operation, mode in itertools.product(operations, GenerationMode):

        @given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis_settings(
            max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
        )
        def send(case: Any) -> None:
            for rank in (Rank.VIEWER, Rank.OPERATOR):
                headers = {"authorization": f"Bearer {made.tokens[rank]}"}
                answers[case.call_and_validate(headers=headers, checks=checks).status_code] += 1

        with suppress(Unsatisfiable):  # Nothing can be wrong where nothing is sent.
            send()
    assert answers[200] > 20
    assert answers[400] > 100
    assert answers[403] > 100, "the viewer's"
    assert answers[404] > 20
    assert answers[429] == 0


def test_a_viewer_approves_nothing_and_that_is_written_down(
    made: Made, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    refused = ask(client, "POST", "/api/approve", made.tokens[Rank.VIEWER], json={"component": "digits"})
    assert (refused.status_code, refused.json()["fact"]) == (403, "token:viewer is viewer, and this needs operator.")
    assert "token:viewer, who is viewer, was refused /api/approve" in caplog.text
    assert made.rooms.ledger.select("digits", {Action.APPROVED}) == []


#: What the command line can do, and where the API does it.
TWINS = {
    "run": "/api/run", "promote": "/api/promote", "approve": "/api/approve", "reject": "/api/reject",
    "rollback": "/api/rollback", "retire": "/api/retire", "gc": "/api/gc", "stop": "/api/stop", "up": "/api/up",
    "status": "/api/status", "history": "/api/history", "follow": "/api/events", "ledger verify": "/api/ledger/verify",
    "triggers watch": "/api/triggers/watch", "triggers forget": "/api/triggers/forget",
    "triggers show": "/api/triggers",
    "token create": "/api/tokens", "token revoke": "/api/tokens/revoke", "token list": "/api/tokens",
}  # fmt: skip
#: What works on this machine's own files or processes.
LOCAL = {
    "init", "down", "demo", "serve", "upgrade", "predict", "feedback", "check", "restore", "reproduce", "adopt",
    "baseline", "environment", "signers", "monitor", "predictions", "worker", "nodes", "drain", "restart", "logs",
    "image", "migrate", "mlflow", "database-roles",
}  # fmt: skip


def test_the_window_that_is_due_is_judged_on_asking(made: Made, client: TestClient) -> None:
    def ask(component: str) -> Any:
        headers = {"authorization": f"Bearer {made.tokens[Rank.OPERATOR]}"}
        return client.post("/api/watch", json={"component": component}, headers=headers)

    waiting = ask("digits").json()
    assert waiting == {"flow": "", "sentence": "0 of the next window's 500 predictions of v2 are in."}
    now = made.rooms.clock.now() - timedelta(days=1)
    ids = Ids(ManualClock(now)).batch(500)
    made.rooms.predictions.append([Prediction(one, "digits", 2, now, {"n": 1}, "yes", 1.0) for one in ids])
    due = ask("digits").json()
    assert due == {"flow": f"digits/watch/v2-{ids[0]}", "sentence": "500 predictions of v2 are due."}
    unknown = ask("letters")
    assert (unknown.status_code, "no component `letters`" in unknown.json()["fact"]) == (404, True)


def test_every_command_has_a_twin_or_is_about_this_machine(client: TestClient) -> None:
    from headrace.cli.main import app

    def names(of: Any, before: str = "") -> set[str]:
        own = {f"{before}{command.name or command.callback.__name__}" for command in of.registered_commands}
        return own.union(*(names(group.typer_instance, f"{before}{group.name} ") for group in of.registered_groups))

    left = {name for name in names(app) if name not in TWINS and name.split()[0] not in LOCAL}
    assert left == set()
    assert TWINS.keys() <= names(app)
    paths = client.get("/api/openapi.json").json()["paths"]
    assert {path for path in TWINS.values() if path not in paths} == set()
