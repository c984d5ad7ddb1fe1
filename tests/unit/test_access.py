"""Tokens: ranks, ends, digests at rest, and what happens to those who guess."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from headrace.clock import ManualClock
from headrace.config.settings import Settings
from headrace.dashboard.access import MOST_FAILURES, Access, Caller, Failures, told
from headrace.dashboard.server import is_loopback, listen_at, own_url
from headrace.errors import Conflict, InvalidConfig, InvalidInput, NotFound
from headrace.lifecycle.upkeep.tokens import Rank, Tokens, Unauthorized


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tokens(tmp_path: Path, clock: ManualClock) -> Tokens:
    return Tokens(tmp_path / "tokens.json", clock)


async def _who(_request: Request, caller: Caller) -> Response:
    return JSONResponse({"actor": caller.named("person:somebody-else"), "rank": caller.rank})


@pytest.fixture
def client(tokens: Tokens, clock: ManualClock) -> TestClient:
    access = Access("own", tokens, Failures(clock))
    routes = [Route(f"/{rank.value}", access.guard(rank, _who)) for rank in Rank]
    return TestClient(Starlette(routes=routes))


def ask(client: TestClient, path: str, token: str) -> Any:
    return client.get(path, headers={"authorization": f"Bearer {token}"})


def test_only_the_digest_is_kept(tokens: Tokens) -> None:
    token, secret = tokens.create("ada", Rank.OPERATOR, lives_s=60)
    kept = tokens.path.read_text()
    assert secret.split("_", 2)[2] not in kept
    assert token.digest in kept
    assert tokens.path.stat().st_mode & 0o077 == 0
    assert "digest" not in token.as_json()


def test_each_rank_may_what_it_may(client: TestClient, tokens: Tokens) -> None:
    for held in Rank:
        _, secret = tokens.create(held.value, held, lives_s=None)
        for needed in Rank:
            answer = ask(client, f"/{needed.value}", secret)
            assert answer.status_code == (200 if held.covers(needed) else 403)
    answer = ask(client, "/operator", tokens.create("eve", Rank.VIEWER, lives_s=None)[1])
    assert answer.json()["fact"] == "token:eve is viewer, and this needs operator."


def test_a_token_speaks_for_nobody_else(client: TestClient, tokens: Tokens) -> None:
    _, secret = tokens.create("ada", Rank.OPERATOR, lives_s=None)
    assert ask(client, "/viewer", secret).json()["actor"] == "token:ada"
    assert ask(client, "/viewer", "own").json()["actor"] == "person:somebody-else"


def test_an_expired_or_revoked_token_is_told_so(
    client: TestClient, tokens: Tokens, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    _, short = tokens.create("short", Rank.VIEWER, lives_s=60)
    _, long = tokens.create("long", Rank.VIEWER, lives_s=None)
    tokens.revoke("long")
    clock.advance(60)
    for name, secret, word in (("short", short, "expired"), ("long", long, "revoked")):
        answer = ask(client, "/viewer", secret)
        assert answer.status_code == 401
        assert f"`{name}`" in answer.json()["fact"]
        assert word in answer.json()["fact"]
        assert f"was refused /viewer from testclient: {answer.json()['fact']}" in caplog.text


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[2J", "a\0", "\u202eada", "\udce9", "a" * 101])
def test_a_tokens_name_can_be_shown(tokens: Tokens, name: str) -> None:
    with pytest.raises(InvalidInput, match="printable"):
        tokens.create(name, Rank.VIEWER, lives_s=None)


@pytest.mark.parametrize("given", ["", "hr", "hr_1_2", "hr_00000000_x", "own2", "ünïcode"])
def test_what_is_no_token_is_refused(tokens: Tokens, given: str) -> None:
    tokens.create("ada", Rank.VIEWER, lives_s=None)
    with pytest.raises(Unauthorized):
        tokens.check(given)


def test_who_guesses_has_to_wait(client: TestClient, tokens: Tokens, clock: ManualClock) -> None:
    _, secret = tokens.create("ada", Rank.VIEWER, lives_s=None)
    for _ in range(MOST_FAILURES):
        assert ask(client, "/viewer", "guess").status_code == 401
    answer = ask(client, "/viewer", "guess")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert ask(client, "/viewer", secret).status_code == 200, "others at the same address are not locked out"
    assert ask(client, "/viewer", "own").status_code == 200
    clock.advance(61)
    assert ask(client, "/viewer", "guess").status_code == 401


def test_a_name_counts_once(tokens: Tokens) -> None:
    tokens.create("ada", Rank.VIEWER, lives_s=None)
    with pytest.raises(Conflict):
        tokens.create("ada", Rank.ADMIN, lives_s=None)
    tokens.revoke("ada")
    tokens.create("ada", Rank.ADMIN, lives_s=None)
    with pytest.raises(NotFound, match="no token `bob`"):
        tokens.revoke("bob")


def test_no_token_is_made_that_has_ended_or_never_ends_by_mistake(tokens: Tokens) -> None:
    for lives_s in (0.0, -1.0):
        with pytest.raises(InvalidInput):
            tokens.create("ada", Rank.VIEWER, lives_s=lives_s)
    assert tokens.all() == []


def test_who_has_no_token_is_sent_where_one_can_be_made(tokens: Tokens) -> None:
    with pytest.raises(Unauthorized) as refused:
        tokens.check("")
    assert "without HEADRACE_URL: `headrace token create NAME`" in refused.value.remedy


def test_what_nobody_foresaw_is_a_500_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def break_(_request: Request) -> Response:
        raise ValueError("the secret path /x")

    async def refuse(_request: Request) -> Response:
        raise InvalidInput("no")

    client = TestClient(Starlette(routes=[Route("/break", told(break_)), Route("/refuse", told(refuse))]))
    answer = client.get("/break")
    assert (answer.status_code, answer.json()["exit_code"]) == (500, 1)
    assert "secret path" not in answer.text
    assert "ValueError: the secret path /x" in caplog.text
    assert client.get("/refuse").status_code == 400


def at(tmp_path: Path, address: str) -> Settings:
    return Settings(tmp_path, tmp_path / "home", variables={"HEADRACE_CONTROL": address})


def test_others_can_reach_it_only_where_there_is_a_token(tmp_path: Path, tokens: Tokens) -> None:
    assert listen_at(at(tmp_path, ""), tokens) == ("127.0.0.1", 0)
    assert listen_at(at(tmp_path, "[::1]:8010"), tokens) == ("::1", 8010)
    for address in ("0.0.0.0:8010", "10.0.0.7:8010", "[::]:8010", "example.org:8010"):
        with pytest.raises(Conflict, match="no token"):
            listen_at(at(tmp_path, address), tokens)
    tokens.create("ada", Rank.OPERATOR, lives_s=None)
    assert listen_at(at(tmp_path, "0.0.0.0:8010"), tokens) == ("0.0.0.0", 8010)
    with pytest.raises(InvalidConfig):
        listen_at(at(tmp_path, "8010"), tokens)


@pytest.mark.parametrize("port", ["99999", "²", "-1", "9" * 5000, "", "x"])
def test_a_port_that_cannot_be_is_told(tmp_path: Path, tokens: Tokens, port: str) -> None:
    with pytest.raises(InvalidConfig, match="which is no HOST:PORT"):
        listen_at(at(tmp_path, f"127.0.0.1:{port}"), tokens)


def test_the_own_command_line_reaches_it_wherever_it_listens() -> None:
    assert own_url("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert own_url("::", 1) == "http://[::1]:1"
    assert own_url("10.0.0.7", 1) == "http://10.0.0.7:1"
    assert is_loopback("127.0.0.2")
    assert not is_loopback("example.org")
