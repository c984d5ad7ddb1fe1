"""The news example's headrace.yaml fits its MLproject, and its project pins what headrace tests with."""

import csv
from collections import Counter
from pathlib import Path

from headrace.config.parse import read_component
from headrace.evaluation.metrics import metric
from headrace.training.project import read_project
from headrace.types import Task

FOLDER = Path(__file__).parents[2] / "examples" / "news_classifier"


def test_the_configuration_names_what_the_project_has() -> None:
    component, project = read_component(FOLDER), read_project(FOLDER)
    entry = project.entry_point(component.entry_point)
    assert component.data.train is not None
    assert component.data.train.parameter in entry.parameters
    assert component.data.prepare in project.entry_points
    assert set(component.parameters) <= set(entry.parameters)
    assert "transformer" in project.entry_points
    for name in component.gate.metrics:
        assert metric(name, Task.CLASSIFICATION).name == name


def test_every_option_of_a_script_is_a_parameter_of_its_entry_point() -> None:
    project = read_project(FOLDER)
    for name, script in {"main": "train.py", "transformer": "transformer.py"}.items():
        found = options("training.py") | options(script)
        assert found == set(project.entry_point(name).parameters), script


def options(script: str) -> set[str]:
    return {
        line.split('"')[1].removeprefix("--").replace("-", "_")
        for line in (FOLDER / script).read_text().splitlines()
        if "add_argument(" in line
    }


def test_the_headlines_that_come_with_it_are_balanced_and_different() -> None:
    with (FOLDER / "headlines.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(Counter(row["label"] for row in rows).values()) == {25}
    assert len({row["title"] for row in rows}) == len(rows) == 100
