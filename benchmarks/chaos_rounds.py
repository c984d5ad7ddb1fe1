"""Twenty promotions of different versions at once, from several processes, round after round: exactly one wins.

The flows, the ledger, its outbox and the locks are the real ones; loading a model is a stand-in.
"""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import postgres
from benchmarks.chaos_house import FORK, begin, settings_of, undurable
from benchmarks.report import Claim
from headrace.ledger.sql import SqlLedger
from headrace.lifecycle.flows import FLOWS
from headrace.lifecycle.production.aliases import CHAMPION
from headrace.lifecycle.request import CandidateRequest, Cause, PromoteRequest, State, Trigger
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.versions import VersionRecord, remember
from headrace.types import Stage

COMPONENT = "digits"
PROCESSES, THREADS = 4, 5
AT_ONCE = PROCESSES * THREADS
WAIT_S = 120.0


@dataclass(frozen=True)
class Ended:
    """How one promotion ended."""

    version: int
    state: State
    fact: str


def compete(root: Path, *, smoke: bool) -> tuple[list[dict[str, Any]], list[Claim]]:
    """Return the rounds of both stores."""
    rounds = 5 if smoke else 20
    rows, claims = list[dict[str, Any]](), list[Claim]()
    for store in ("sqlite", "postgresql"):
        folder = root / store
        (folder / "home").mkdir(parents=True)
        variables = {**os.environ, "HEADRACE_STATE": str(folder / "state"), "HEADRACE_HOME": str(folder / "home")}
        url = f"sqlite:///{folder / 'home' / 'ledger.db'}"
        with ExitStack() as stack:
            if store == "postgresql":
                try:
                    database = stack.enter_context(postgres.running())
                except FileNotFoundError as error:
                    claims.append(Claim("postgresql_one_promotion_wins", None, "each round", None, str(error)))
                    continue
                variables["HEADRACE_DATABASE_URL"] = database.url
                url = database.url.replace("postgresql://", "postgresql+psycopg://")
            found = play(folder, variables, url, rounds)
        rows += [{"store": store, **row} for row in found]
        wrong = [row for row in found if row["problems"]]
        claims.append(
            Claim(f"{store}_one_promotion_wins", f"{len(found) - len(wrong)} of {rounds}", "each round", not wrong,
                  f"{AT_ONCE} at once from {PROCESSES} processes; ledger, route and alias agree after each, chain valid"
                  + "".join(f"; {row['problems']}" for row in wrong[:1]))
        )  # fmt: skip
    return rows, claims


def play(folder: Path, variables: dict[str, str], url: str, rounds: int) -> list[dict[str, Any]]:
    """Play all rounds on one store."""
    barrier = FORK.Barrier(AT_ONCE)
    players = []
    for number in range(PROCESSES):
        mine, theirs = FORK.Pipe()
        words = (f"player{number}", folder, variables, theirs, barrier)
        process = FORK.Process(target=_player, args=words, daemon=True)
        process.start()
        theirs.close()
        players.append((process, mine))
    try:
        for _, orders in players:
            _heard(orders)
        rows = [_round(folder, url, [orders for _, orders in players], turn) for turn in range(rounds)]
    except EOFError as error:
        said = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("player*.log")))
        raise RuntimeError(f"a process that promotes has ended:\n{said}") from error
    finally:
        for process, _ in players:
            process.kill()
            process.join()
    return rows


def _round(folder: Path, url: str, players: list[Connection], turn: int) -> dict[str, Any]:
    ledger = SqlLedger(url)
    serving = ledger.serving(COMPONENT, Stage.PRODUCTION)
    present = serving.version if serving else None
    first = 1 + AT_ONCE * turn
    began = time.monotonic()
    for number, orders in enumerate(players):
        orders.send((turn, present, list(range(first + THREADS * number, first + THREADS * (number + 1)))))
    ended: list[Ended] = [one for orders in players for one in _heard(orders)]
    seconds = time.monotonic() - began
    winners = [one.version for one in ended if one.state is State.PROMOTED]
    refused = [one.fact for one in ended if one.state is State.REFUSED]
    problems = [] if len(winners) == 1 else [f"{len(winners)} won"]
    if len(refused) != AT_ONCE - 1:
        problems.append(f"{len(refused)} were refused: {Counter(one.state.value for one in ended)}")
    problems += [f"more than a sentence: {fact}" for fact in refused if not fact or "\n" in fact][:1]
    serving = ledger.serving(COMPONENT, Stage.PRODUCTION)
    if serving is None or [serving.version] != winners:
        problems.append("the ledger names another")
    agreed = _agreed(folder)
    if winners and agreed != (winners[0], {str(winners[0]): 1.0}):
        problems.append(f"alias and route: {agreed}")
    verified = ledger.verify(COMPONENT)
    problems += [verified.problem] if verified.problem else []
    ledger.close()
    return {"round": turn + 1, "winner": winners[:1], "seconds": round(seconds, 2), "problems": problems}


def _agreed(folder: Path) -> tuple[int | None, dict[str, float]]:
    """Return what the alias and the route say."""
    from benchmarks.chaos_house import FileRegistry, FileTarget

    status = FileTarget(folder / "target").status(COMPONENT, Stage.PRODUCTION)
    shares = {str(version): share for version, share in status.shares.items()} if status else {}
    return FileRegistry(folder / "registry.db").alias(COMPONENT, CHAMPION), shares


def _heard(orders: Connection) -> Any:
    if not orders.poll(WAIT_S):
        raise RuntimeError("a process that promotes does not answer")
    return orders.recv()


def _player(name: str, folder: Path, variables: dict[str, str], orders: Connection, barrier: Any) -> None:
    rooms = begin(name, folder, variables)
    orders.send("ready")
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            turn, expected, versions = orders.recv()
            for version in versions:
                _remember(rooms, folder, version)

            def at_once(version: int, turn: int = turn, expected: int | None = expected) -> Ended:
                trigger = Trigger(Cause.PERSON, f"{turn}-{version}", "person:ada", "it is better")
                request = PromoteRequest(COMPONENT, version, expected, trigger)
                barrier.wait(WAIT_S)
                outcome = FLOWS["promote"](undurable(rooms), rooms, request)
                return Ended(version, outcome.state, outcome.fact)

            orders.send(list(pool.map(at_once, versions)))


def _remember(rooms: Rooms, folder: Path, version: int) -> None:
    (folder / "model").touch()
    config = settings_of(CandidateRequest(COMPONENT, "/nowhere", Trigger(Cause.PERSON, "", "", ""))).as_json()
    remember(
        rooms,
        VersionRecord(
            COMPONENT, version, "", "models:/m", str(folder / "model"), "seal", str(folder / "model"), "b" * 64,
            "/nowhere", config,
        ),
    )  # fmt: skip
