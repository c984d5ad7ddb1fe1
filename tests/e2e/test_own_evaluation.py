"""A component whose own entry point writes the rows that candidate and champion are judged by."""

import pytest
from tests.houses import House

pytestmark = pytest.mark.timeout(900)


def judged_by_itself(house: House, name: str) -> str:
    """Make a component without a holdout; return its folder."""
    folder = house.component(name)
    text = (folder / "headrace.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("  holdout:")]
    (folder / "headrace.yaml").write_text("\n".join([*lines, "evaluate: judge", ""]))
    return str(folder)


def test_its_rows_pass_the_gate_and_compare_with_the_champion(house: House) -> None:
    folder = judged_by_itself(house, "own")
    first = house.headrace("run", folder, "--json")
    assert first.code == 0, first.out + first.err
    second = house.headrace("run", folder, "--json")
    assert second.code == 0, second.out + second.err

    entries = house.headrace("history", "own", "--json").document["entries"]
    gated = [entry["evidence"] for entry in entries if entry["action"] == "gated"]
    assert [evidence["champion"] for evidence in gated] == [1, None]
    assert all("60 holdout rows" in evidence["findings"][0] for evidence in gated)
    assert gated[0]["metrics"]["accuracy"] == gated[1]["metrics"]["accuracy"] > 0.85


def test_rows_without_the_truth_are_refused(house: House) -> None:
    folder = judged_by_itself(house, "blind")
    project = house.home.parent / "blind" / "MLproject"
    project.write_text(project.read_text().replace("default: nothing", "default: truth"))
    told = house.headrace("run", folder, "--json")
    assert told.code == 6, told.out
    error = told.document.get("error") or told.document
    assert "no column `truth`" in error["fact"]
    assert house.headrace("history", "blind", "--json").code == 3
