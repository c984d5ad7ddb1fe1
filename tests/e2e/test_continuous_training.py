"""Continuous training with real servers: what production teaches is tried, and refused where it is worse.

That drift leads to a better version in production is told by the demo.
"""

import time
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_iris
from tests.houses import House

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
WATCH = """{approval: automatic}
monitor: {window: 60 predictions, every_s: 1, label_delay: 2s}
retrain: {on: [drift, quality], cooldown: 1h}"""


@pytest.mark.timeout(900)
def test_a_candidate_that_learned_from_wrong_feedback_is_refused_and_production_stays(house: House) -> None:
    first = house.headrace("run", house.component("garden", release=WATCH), "--json")
    assert first.code == 0, first.out + first.err
    send(served(house)["url"], rows=240)
    refused = wait_for(house, "refused")
    entries = history(house)
    alarm = next(entry for entry in entries if entry["action"] == "alarm")
    assert alarm["evidence"]["consequence"] == "retrain"
    assert "Accuracy fell" in alarm["reason"]
    gated = next(entry for entry in entries if entry["action"] == "gated" and entry["version"] == 2)
    assert gated["reason"].startswith("fail")
    assert "accuracy" in gated["reason"]
    assert (refused["version"], refused["from_version"]) == (2, None)
    assert "accuracy" in refused["reason"]
    assert [entry["version"] for entry in entries if entry["action"] == "promoted"] == [1]
    assert served(house)["production"] == 1
    answer = post(f"{served(house)['url']}/invocations", {"dataframe_records": [flower(0)[0]]})
    assert answer.headers["x-headrace-version"] == "1"


def served(house: House) -> dict[str, Any]:
    status = house.headrace("status", "--json").document
    (row,) = [one for one in status["components"] if one["component"] == "garden"]
    return dict(row)


def history(house: House) -> list[dict[str, Any]]:
    """Return what the ledger says, oldest first."""
    return list(reversed(house.headrace("history", "garden", "--json").document["entries"]))


def flower(number: int) -> tuple[dict[str, float], int]:
    iris = load_iris()
    return dict(zip(COLUMNS, map(float, iris.data[number]), strict=True)), int(iris.target[number])


def send(url: str, *, rows: int) -> None:
    """Send flowers that have grown, and tell of each that it was the next species."""
    for chosen in np.array_split(np.random.default_rng(0).integers(0, 150, rows), rows // 20):
        flowers = [flower(int(number)) for number in chosen]
        grown = [{name: value + 0.4 for name, value in given.items()} for given, _ in flowers]
        ids = post(f"{url}/invocations", {"dataframe_records": grown}).json()["prediction_ids"]
        wrong = [(species + 1) % 3 for _, species in flowers]
        told = [{"prediction_id": one, "actual": label} for one, label in zip(ids, wrong, strict=True)]
        post(f"{url}/feedback", {"actuals": told})


def post(url: str, document: dict[str, Any]) -> httpx.Response:
    answer = httpx.post(url, json=document, timeout=60, trust_env=False)
    assert answer.status_code in {200, 202}, answer.text
    return answer


def wait_for(house: House, action: str) -> dict[str, Any]:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        found = [entry for entry in history(house) if entry["action"] == action]
        if found:
            return found[0]
        time.sleep(1)
    pytest.fail(f"nothing was {action}: {[(one['action'], one['reason']) for one in history(house)]}")
