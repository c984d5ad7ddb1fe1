"""One component's way through its baselines: attested, policies held, reproduced though its data was replaced."""

import json
import subprocess
from pathlib import Path

import pytest
from tests.houses import House, Told

pytestmark = pytest.mark.timeout(900)


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True)


def good(told: Told) -> Told:
    assert told.code == 0, told.out + told.err
    return told


def test_a_version_is_attested_reproduced_from_its_copies_and_its_policy_is_held(house: House) -> None:
    folder = house.component("iris", code="refuse")
    yaml = folder / "headrace.yaml"
    yaml.write_text(f"{yaml.read_text()}code: refuse\n")
    (folder / ".gitignore").write_text("*.csv\n")
    told = house.headrace("run", folder, "--json")
    assert told.code == 4, told.out
    assert "is not under git" in told.document["fact"]

    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    first = good(house.headrace("run", folder, "--json")).document
    assert first["version"] == 1

    shown = good(house.headrace("baseline", "show", "iris/1", "--json")).document
    assert [one["kind"] for one in shown["attestations"]] == ["version", "gate", "acceptance", "promotion"]
    assert shown["attestations"][1]["facts"]["verdict"] == "pass"
    assert shown["problems"] == []
    assert {use: facts["kept"] for use, facts in shown["baseline"]["data"].items()} == {
        "train": "copy",
        "holdout": "copy",
    }
    assert "4 attestations" in good(house.headrace("baseline", "verify", "iris")).out
    kept = Path(shown["baseline"]["parameters"]["train_data"])
    assert (kept.name, kept.parent.name) == ("train.csv", shown["baseline"]["data"]["train"]["sha256"])

    # One row of the training data is changed.
    rows = (folder / "train.csv").read_text().splitlines(keepends=True)
    (folder / "train.csv").write_text("".join([rows[0], rows[1].replace(".", "9.", 1), *rows[2:]]))
    again = good(house.headrace("reproduce", "iris/1", "--json")).document
    assert again["likeness"] == "identical", again
    assert any("train.csv) was replaced since; the copy that was kept was taken" in one for one in again["sentences"])
    lying = house.headrace("reproduce", "iris/1", "--here", "--json")
    assert lying.code == 1
    assert "train.csv) is another file than at training" in json.dumps(lying.document["sentences"])
    kinds = [one["kind"] for one in house.headrace("baseline", "show", "iris/1", "--json").document["attestations"]]
    assert kinds[-2:] == ["reproduced", "reproduced"]

    # What is not committed is tried out in dev, and no more.
    yaml.write_text(yaml.read_text().replace("code: refuse", "code: allow-dev"))
    second = good(house.headrace("run", folder, "--json")).document
    assert "headrace.yaml" in second["fact"]
    assert "tried out in dev" in second["fact"]
    refused = house.headrace("promote", "iris", "--version", "2", "--json")
    assert refused.code == 4, refused.out
    assert "no commit holds" in refused.out
    entries = house.headrace("history", "iris", "--json").document["entries"]
    assert (entries[0]["action"], entries[0]["version"]) == ("refused", 2)
