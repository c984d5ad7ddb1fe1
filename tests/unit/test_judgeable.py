"""What would keep a candidate from being judged is told before anything is built or trained."""

from pathlib import Path

import pytest

from headrace.config.component import AgainstChampion, Bound, Component, Data, DataInput, Gate
from headrace.errors import InvalidConfig
from headrace.lifecycle.candidates.judgeable import check_can_be_judged

HOLDOUT = DataInput(uri="holdout.csv", label="quality")
ANY = Gate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "MLproject").write_text("name: wine\nentry_points:\n  main: {command: python train.py}\n")
    (tmp_path / "holdout.csv").write_text("alcohol,country,quality\n1.5,fr,0\n2.5,it,1\n")
    return tmp_path


def component(folder: Path, *, holdout: DataInput | None = HOLDOUT, gate: Gate = ANY, evaluate: str = "") -> Component:
    return Component(component="wine", folder=folder, data=Data(holdout=holdout), gate=gate, evaluate=evaluate or None)


def test_what_is_right_passes(folder: Path) -> None:
    gate = Gate(metrics={"accuracy": Bound(min=0.5)}, slices=("country",))
    check_can_be_judged(component(folder, gate=gate), folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"holdout": None}, "names no holdout"),
        ({"holdout": DataInput(uri="other.csv", label="quality")}, "other.csv"),
        ({"holdout": DataInput(uri="holdout.csv", label="qualty")}, "no column `qualty`"),
        ({"gate": Gate(metrics={"acuracy": Bound(min=0.5)})}, "`acuracy`"),
        ({"gate": Gate(against_champion=AgainstChampion(metric="rmse"))}, "`rmse`"),
        ({"gate": Gate(slices=("contry",))}, "`contry`"),
        ({"evaluate": "jugde", "holdout": None}, "`jugde`"),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(folder: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfig) as told:
        check_can_be_judged(component(folder, **changes), folder)  # type: ignore[arg-type]
    assert words in told.value.fact
    assert told.value.remedy


def test_data_that_an_entry_point_makes_may_be_absent(folder: Path) -> None:
    (folder / "holdout.csv").unlink()
    made = component(folder)
    check_can_be_judged(made.model_copy(update={"data": Data(holdout=HOLDOUT, prepare="main")}), folder)
