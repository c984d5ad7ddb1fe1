"""What a script's last lines tell about mistakes that everybody makes once."""

from pathlib import Path

import pytest

from headrace.training.supervise import Outcome
from headrace.training.train import _failed

SKOPS = "Root error: Untrusted types found in the file: ['sklearn.tree._tree.Tree']."


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (f"mlflow.exceptions.MlflowException: {SKOPS}", "skops_trusted_types=['sklearn.tree._tree.Tree']"),
        ("ModuleNotFoundError: No module named 'lightgbm'", "Add `lightgbm` to"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'", "uri: data/train.csv, parameter"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/mnt/train.csv'", "The whole output"),
        ("ValueError: 3", "The whole output"),
    ],
)
def test_the_remedy_is_told_beside_the_log(tmp_path: Path, line: str, remedy: str) -> None:
    error = _failed("It failed.", Outcome(1, 1.0, tmp_path / "log", ["Traceback (most recent call last):", line]))
    assert line in error.fact
    assert error.remedy.startswith(remedy) or remedy in error.remedy
    assert str(tmp_path / "log") in error.remedy
