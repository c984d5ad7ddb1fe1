"""How a training ended is told also where MLflow is out of reach by then."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.errors import Cancelled, HeadraceError, TrainingFailed, Unavailable
from headrace.training import train as training


class OutOfReach:
    """A registry whose server is gone."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise Unavailable("MLflow does not answer.")

        return refuse


@pytest.mark.parametrize("end", [TrainingFailed("The entry point failed."), Cancelled("It was stopped.")])
def test_an_outage_of_mlflow_does_not_hide_how_a_training_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: HeadraceError
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise end

    point = SimpleNamespace(complete=lambda _: {"epochs": "5"})
    monkeypatch.setattr(training, "read_project", lambda _: SimpleNamespace(entry_point=lambda _: point))
    monkeypatch.setattr(training, "run_entry_point", fail)
    place: Any = SimpleNamespace(checkout=tmp_path, container=None)
    gone: Any = OutOfReach()
    run: Any = SimpleNamespace(id="r1")
    with pytest.raises(type(end)) as raised:
        training.train(place, gone, run, entry_point="main", parameters={}, folder=tmp_path)
    assert raised.value is end
