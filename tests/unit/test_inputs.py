"""What training reads is what the baseline names."""

from pathlib import Path

import pytest

from headrace.config.component import DataInput, KeepData
from headrace.config.settings import Settings
from headrace.errors import TrainingFailed
from headrace.lifecycle.candidates import inputs


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    return path


def held(table: Path) -> inputs.Held:
    settings = Settings(table.parent / "state", table.parent / "home").prepare()
    return inputs._hold(settings, table, DataInput(uri=str(table)), KeepData.COPY)


def test_a_copy_that_was_changed_is_made_again(table: Path) -> None:
    copy = Path(held(table).path)
    copy.chmod(0o644)
    copy.write_text("x,y\n9,9\n")
    assert Path(held(table).path).read_text() == table.read_text()


def test_what_changes_while_it_is_copied_is_never_kept(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copyfile = inputs.shutil.copyfile

    def late(source: Path, target: Path) -> None:
        source.write_text("x,y\n5,6\n")
        copyfile(source, target)

    monkeypatch.setattr(inputs.shutil, "copyfile", late)
    with pytest.raises(TrainingFailed, match="was written to while it was copied"):
        held(table)
    assert not list((table.parent / "home" / "data" / "kept").rglob("*.csv"))
