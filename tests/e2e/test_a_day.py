"""A data scientist's day: nothing is typed, everything happens once, though every event is delivered three times."""

import hashlib
import hmac
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.houses import House

from headrace.ledger.sql import SqlLedger

pytestmark = pytest.mark.timeout(1500)
SECRET = "of this day"
NAME = "day"


class Day:
    """One component under git in a house, and what can be seen of it from outside."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.folder = house.component(NAME, retrain="{}")
        self.configure('release: {approval: automatic}', 'triggers: {commit: {branch: main}, tags: request, '
                       'registry: true, webhook_secret: DAY_SECRET, every_s: 1s}')  # fmt: skip
        for name in ("train.csv", "holdout.csv"):
            (self.folder / ".gitignore").open("a").write(f"{name}\n")
        subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", self.folder], check=True)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "first")

    def configure(self, *lines: str) -> None:
        path = self.folder / "headrace.yaml"
        keys = tuple(line.partition(":")[0] + ":" for line in lines)
        kept = [line for line in path.read_text().splitlines() if not line.startswith(keys)]
        path.write_text("\n".join([*kept, *lines]) + "\n")

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(self.folder), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text: str) -> str:
        with (self.folder / "train.py").open("a") as file:
            file.write(f"# {text}\n")
        self.git("commit", "--quiet", "--all", "--message", text)
        return self.git("rev-parse", "HEAD")

    def entries(self) -> list[dict[str, Any]]:
        """Return the ledger, newest first; read here, as a command for each look would slow down what it waits for."""
        ledger = SqlLedger(f"sqlite:///{self.house.home / 'ledger.db'}")
        try:
            return [entry.as_json() for entry in ledger.history(NAME, limit=1000)]
        finally:
            ledger.close()

    def production(self) -> int | None:
        moves = [entry for entry in self.entries() if entry["stage"] == "production"]
        version: int | None = moves[0]["version"] if moves else None
        return version

    def count(self, action: str, **wanted: object) -> int:
        return sum(
            entry["action"] == action and all(entry[key] == value for key, value in wanted.items())
            for entry in self.entries()
        )

    def log(self) -> list[dict[str, Any]]:
        """Return what became of each event, newest first."""
        path = self.house.home / "triggers" / NAME / "log.jsonl"
        return [json.loads(line) for line in reversed(path.read_text().splitlines())] if path.exists() else []

    def hook(self, sha: str) -> list[int]:
        """Deliver the same webhook three times, and return what was answered."""
        place = json.loads((self.house.home / "run" / "control.json").read_text())["url"]
        body = json.dumps({"ref": "refs/heads/main", "after": sha}).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": f"sha256={signature}", "x-github-event": "push"}
        url = f"{place}/hooks/{NAME}"
        return [
            httpx.post(url, content=body, headers=headers, trust_env=False, timeout=60).status_code for _ in range(3)
        ]

    def until(self, what: str, is_so: Callable[[], bool], limit_s: float = 300) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if is_so():
                return
            time.sleep(0.5)
        raise AssertionError(f"{what} did not come about: {json.dumps([self.log()[:8], self.entries()[:8]], indent=1)}")

    def mark(self, source: str) -> Any:
        """Return up to where the patrol has seen a source; None before its first look, which causes nothing."""
        path = self.house.home / "triggers" / NAME / "marks.json"
        return json.loads(path.read_text()).get(source) if path.exists() else None

    def quiet(self) -> None:
        """Wait until nothing runs and nothing waits."""
        self.until("an end", lambda: not self.house.headrace("status", "--json").document["flows"])


@pytest.fixture(scope="module")
def day(house: House) -> Day:
    house.variables["DAY_SECRET"] = SECRET
    return Day(house)


def test_a_commit_goes_to_production_without_a_command(day: Day) -> None:
    told = day.house.headrace("triggers", "watch", day.folder, "--json")
    assert told.code == 0, told.out + told.err
    day.until("a first look", lambda: all(day.mark(source) is not None for source in ("commit", "tag", "registry")))
    sha = day.commit("a better idea")
    assert day.hook(sha) == [202, 202, 202]
    day.until("version 1", lambda: day.production() == 1)
    day.quiet()
    assert day.count("rolled back") == 0, day.entries()[0]
    (registered,) = [entry for entry in day.entries() if entry["action"] == "registered"]
    assert registered["actor"] == "git:Ada"
    assert registered["evidence"]["commit"] == sha
    assert day.count("promoted") == 1


def test_a_broken_commit_is_told_and_changes_nothing(day: Day) -> None:
    good = (day.folder / "headrace.yaml").read_text()
    (day.folder / "headrace.yaml").write_text(good + "gaet: {}\n")
    sha = day.commit("broken")
    (day.folder / "headrace.yaml").write_text(good)
    flow = f"{NAME}/commit-{sha}/1"
    day.until("the flow", lambda: any(line["flow"] == flow for line in day.log()))
    told = day.house.headrace("follow", flow, "--json")
    assert told.code == 2
    assert "gaet" in told.document["fact"]
    day.git("reset", "--quiet", "--hard", "HEAD~1")
    assert (day.production(), day.count("registered")) == (1, 1)


def test_new_data_and_the_clock_become_one_candidate_each(day: Day) -> None:
    day.configure("retrain: {on: [data], cooldown: 0s}")
    day.until("a first look at the data", lambda: day.mark("data") is not None)
    rows = (day.folder / "train.csv").read_text().splitlines(keepends=True)
    for _ in range(3):
        (day.folder / "train.csv").write_text("".join(rows[:-3]))
        time.sleep(0.3)
    day.until("version 2", lambda: day.production() == 2)
    day.quiet()
    assert day.count("registered") == 2
    assert day.count("registered", actor="data") == 1

    yesterday = time.gmtime(time.time() - 86_400)
    day.configure(f'retrain: {{on: ["cron: 0 0 {yesterday.tm_mday} {yesterday.tm_mon} *"], cooldown: 0s}}')
    day.until("a first look at the clock", lambda: day.mark("cron") is not None)
    minute = time.gmtime(time.time() + 65)
    day.configure(f'retrain: {{on: ["cron: {minute.tm_min} {minute.tm_hour} * * *"], cooldown: 0s}}')
    day.until("version 3", lambda: day.production() == 3)
    day.quiet()
    assert day.count("registered", actor="schedule") == 1
    assert day.count("registered") == 3


def registry(day: Day) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{day.house.home / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_an_alias_that_somebody_moves_is_put_back_and_goes_through_the_gate(day: Day) -> None:
    client = registry(day)
    # Version 1 was judged and accepted, so that the wish of somebody unknown may be granted by the rule.
    for _ in range(3):
        client.set_registered_model_alias(NAME, "champion", "1")
        time.sleep(0.2)
    day.until("version 1", lambda: day.production() == 1)
    day.quiet()
    (asked,) = [entry for entry in day.entries() if entry["action"] == "promoted" and entry["version"] == 1][:-1]
    assert asked["actor"] == "unknown"
    assert any(line["became"] == "put back" for line in day.log())
    day.until("the alias", lambda: int(client.get_model_version_by_alias(NAME, "champion").version) == 1)


def test_a_version_made_in_mlflow_is_judged_like_any_other(day: Day) -> None:
    client = registry(day)
    theirs = client.get_model_version(NAME, "2")
    made = client.create_model_version(NAME, theirs.source, run_id=theirs.run_id)
    assert int(made.version) == 4
    day.until("version 4", lambda: day.production() == 4)
    day.quiet()
    assert day.count("registered", version=4, actor="unknown") == 1
    assert day.count("gated", version=4) == 1
    assert day.count("accepted", version=4) == 1


def test_a_pushed_tag_asks_and_a_person_approves(day: Day) -> None:
    day.configure("release: {approval: required}")
    day.git("commit", "--quiet", "--all", "--message", "people decide from now on")
    day.until("version 5", lambda: day.count("requested", version=5) + day.count("promoted", version=5) > 0)
    day.quiet()
    assert day.count("promoted", version=5) == 0, "its own rule asks for approval"
    shown = day.house.headrace("triggers", "show", NAME, "--json")
    assert shown.document["components"][0]["sources"] == ["commit", "cron", "tag", "registry"]
    told = day.house.headrace("approve", NAME, "-m", "fine", "--json")
    assert told.code == 0, told.out + told.err
    assert day.production() == 5
    # Its own tag of version 3 is there already; a person's takes its place.
    for _ in range(3):
        day.git("tag", f"{NAME}/v3", "HEAD~1", "--force")
        time.sleep(1.2)
    day.until("the request", lambda: day.count("requested", version=3) == 1)
    assert day.production() == 5
    rejected = day.house.headrace("reject", NAME, "-m", "not today", "--json")
    assert rejected.code == 0
    assert day.house.headrace("approve", NAME, "--json").code == 3
    verified = day.house.headrace("ledger", "verify", "--json")
    assert verified.code == 0, verified.out


def test_a_retired_version_is_out_of_the_way_and_what_it_leaves_can_go(day: Day) -> None:
    refused = day.house.headrace("retire", NAME, "--version", "5", "--json")
    assert (refused.code, "is in production" in refused.document["error"]["fact"]) == (4, True)
    told = day.house.headrace("retire", NAME, "--version", "3", "-m", "old data", "--json")
    assert told.code == 0, told.out + told.err
    assert "headrace.retired" in registry(day).get_model_version(NAME, "3").tags
    assert "old data" in day.house.headrace("history", NAME).out
    promoted = day.house.headrace("promote", NAME, "--version", "3", "--json")
    assert (promoted.code, "was retired by" in promoted.document["error"]["fact"]) == (4, True)
    record = json.loads((day.house.home / "versions" / NAME / "v3" / "record.json").read_text())
    found = day.house.headrace("gc", NAME, "--dry-run", "--json").document
    assert [item["name"] for item in found["items"] if item["kind"] == "model copy"] == [Path(record["model"]).name]
    assert Path(record["model"]).exists()
    assert "v3: retired or refused" in day.house.headrace("gc", NAME, "--dry-run").out
    assert day.house.headrace("gc", NAME, "--json").document["bytes"] == found["bytes"] > 0
    assert not Path(record["model"]).exists()
    brought_back = day.house.headrace("restore", f"{NAME}/3")
    assert brought_back.code == 0, brought_back.out + brought_back.err
    upgrade = day.house.headrace("upgrade", "--json")
    assert (upgrade.code, "control process runs" in upgrade.document["error"]["fact"]) == (4, True)


def test_a_viewer_may_look_and_not_approve(day: Day) -> None:
    place = json.loads((day.house.home / "run" / "control.json").read_text())["url"]
    viewer = day.house.headrace("token", "create", "eve", "--role", "viewer", "--json").document["token"]
    elsewhere = {"HEADRACE_URL": place, "HEADRACE_TOKEN": viewer}
    assert day.house.headrace("status", "--json", **elsewhere).code == 0
    told = day.house.headrace("approve", NAME, "--json", **elsewhere)
    assert told.code == 11
    assert "token:eve is viewer" in told.document["error"]["fact"]
    day.house.headrace("token", "revoke", "eve")
    assert "revoked" in day.house.headrace("status", "--json", **elsewhere).document["error"]["fact"]


def test_a_folder_that_is_gone_is_told(day: Day, tmp_path: Path) -> None:
    shutil.move(day.folder, tmp_path / "gone")
    day.until("the problem", lambda: any("no folder" in line["fact"] for line in day.log()))
