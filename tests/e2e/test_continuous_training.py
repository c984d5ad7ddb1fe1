"""Continuous training with real servers: what production teaches is tried, and refused where it is worse.

That drift leads to a better version in production is told by the demo.
"""

import time
from typing import Any

import httpx
import numpy as np
import pytest
from mlflow import MlflowClient
from pyarrow import csv
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tests.houses import House

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
WATCH = """{approval: automatic}
monitor: {window: 60 predictions, every_s: 1, label_delay: 2s, label: {rate: 0.2}}
retrain: {on: [drift, quality], cooldown: 1h, weight: 2, half_life: 10m}"""


@pytest.mark.timeout(900)
def test_a_candidate_that_learned_from_wrong_feedback_is_refused_and_production_stays(house: House) -> None:
    first = house.headrace("run", house.component("garden", release=WATCH), "--json")
    assert first.code == 0, first.out + first.err
    send(served(house)["url"], rows=240)
    refused = wait_for(house, "refused")
    entries = history(house)
    alarm = next(entry for entry in entries if entry["action"] == "alarm")
    assert (alarm["evidence"]["consequence"], alarm["evidence"]["retrains"]) == ("retrain", True)
    assert "Accuracy fell" in alarm["reason"]
    gated = next(entry for entry in entries if entry["action"] == "gated" and entry["version"] == 2)
    assert gated["reason"].startswith("fail")
    assert "accuracy" in gated["reason"]
    assert (refused["version"], refused["from_version"]) == (2, None)
    assert "accuracy" in refused["reason"]
    assert [entry["version"] for entry in entries if entry["action"] == "promoted"] == [1]
    check_weights(house)
    assert served(house)["production"] == 1
    answer = post(f"{served(house)['url']}/invocations", {"dataframe_records": [flower(0)[0]]})
    assert answer.headers["x-headrace-version"] == "1"
    check_commands(house)


def check_weights(house: House) -> None:
    """The candidate's data version has weights that fade, and its training took them into its loss."""
    (path,) = (house.home / "data" / "garden").glob("train-*.csv")
    table = csv.read_csv(path)
    weights = table["weight"].to_numpy()
    assert set(weights[:90]) == {1.0}
    assert len(weights) > 120
    assert all(0 < weight < 2 for weight in weights[90:])  # Seconds to minutes old, by half every ten minutes.
    assert list(weights[90:]) == sorted(weights[90:])
    client = MlflowClient(f"sqlite:///{house.home / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    first, second = sorted((one for one in runs if "weight" in one.data.metrics), key=lambda one: one.info.start_time)
    assert first.data.metrics["weight"] == 90
    assert second.data.metrics["weight"] == pytest.approx(weights.sum())
    features, labels = table.select(COLUMNS).to_pandas(), table["species"].to_numpy()
    expected = LogisticRegression(max_iter=500).fit(features, labels, sample_weight=weights)
    loss = log_loss(labels, expected.predict_proba(features), sample_weight=weights)
    assert second.data.metrics["weighted_loss"] == pytest.approx(loss, rel=1e-3)
    assert second.data.metrics["weighted_loss"] != pytest.approx(
        log_loss(labels, expected.predict_proba(features)), rel=1e-3
    )


def check_commands(house: House) -> None:
    """What is due is judged by asking, and the sample for labelling goes out and comes back."""
    send(served(house)["url"], rows=80, labelled=40)
    judged = house.headrace("monitor", "run", "garden", "--json")
    assert judged.code == 0, judged.out + judged.err
    assert "of the next window's 60 predictions" in judged.document["waits_for"] or "actuals are in" in judged.out
    marked = house.headrace(
        "predictions", "query", "garden", "SELECT id FROM joined WHERE to_label AND NOT labelled ORDER BY id", "--json"
    )
    sheet = house.home / "sheet.csv"
    sample = house.headrace("monitor", "sample", "garden", "--to", sheet, "--json").document["prediction_ids"]
    assert sample
    assert sample == [row[0] for row in marked.document["rows"]]
    lines = sheet.read_text().splitlines()
    sheet.write_text("\n".join([lines[0], *(f"{line}1" for line in lines[1:])]) + "\n")
    assert house.headrace("feedback", "garden", "--file", sheet).code == 0
    assert house.headrace("monitor", "sample", "garden", "--json").document["prediction_ids"] == []
    hard = house.headrace("monitor", "hard", "garden", "--to", house.home / "hard.jsonl", "--most", "5", "--json")
    assert len(hard.document["rows"]) == len((house.home / "hard.jsonl").read_text().splitlines()) == 5
    replay_file(house)


def replay_file(house: House) -> None:
    """The version in production answers a file's rows, and the watch looks at them; nothing else comes of it."""
    rows = house.home / "later.csv"
    flowers = [flower(int(number)) for number in np.random.default_rng(1).integers(0, 150, 130)]
    lines = [",".join(map(str, [*given.values(), species])) for given, species in flowers]
    rows.write_text("\n".join([",".join([*COLUMNS, "species"]), *lines]) + "\n")
    before = len(history(house))
    found = house.headrace("monitor", "replay", "garden", "--file", rows, "--json")
    assert found.code == 0, found.out + found.err
    windows = found.document["windows"]
    assert [(one["version"], one["first"], one["rows"], one["labelled"]) for one in windows] == [
        (1, "row 1", 60, 60), (1, "row 61", 60, 60),
    ]  # fmt: skip
    short = house.headrace("monitor", "replay", "garden", "--file", rows, "--window", "500")
    assert short.code != 0
    assert "has 130 rows, and a window has 500" in short.out + short.err
    assert len(history(house)) == before


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


def send(url: str, *, rows: int, labelled: int | None = None) -> None:
    """Send flowers that have grown, and tell of each (or of the first ones) that it was the next species."""
    left = rows if labelled is None else labelled
    for chosen in np.array_split(np.random.default_rng(0).integers(0, 150, rows), rows // 20):
        flowers = [flower(int(number)) for number in chosen]
        grown = [{name: value + 0.4 for name, value in given.items()} for given, _ in flowers]
        ids = post(f"{url}/invocations", {"dataframe_records": grown}).json()["prediction_ids"]
        wrong = [(species + 1) % 3 for _, species in flowers]
        told = [{"prediction_id": one, "actual": label} for one, label in zip(ids, wrong, strict=True)]
        if left > 0:
            post(f"{url}/feedback", {"actuals": told})
        left -= len(chosen)


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
