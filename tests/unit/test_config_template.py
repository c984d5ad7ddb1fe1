"""What `headrace init` writes can be read back and says what was known."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.component import Approval
from headrace.config.parse import parse_component
from headrace.config.template import Answers, component_name, likely_data_parameter, render
from headrace.types import Task

HERE = Path("headrace.yaml")


def test_what_is_known_stands_in_the_file() -> None:
    text = render(
        Answers(
            component="wine",
            entry_point="train",
            parameters={"alpha": 0.5, "data": "wine.csv", "run": None},
            data_parameter="data",
            train="wine.csv",
            holdout="data/hold out.parquet",
            label="quality: 1",
            task=Task.REGRESSION,
            tests="pytest -q",
        )
    )
    component = parse_component(text, HERE)
    assert component.entry_point == "train"
    assert component.parameters == {}
    assert component.data.train is not None
    assert component.data.train.parameter == "data"
    assert component.data.holdout is not None
    assert (component.data.holdout.uri, component.data.holdout.label) == ("data/hold out.parquet", "quality: 1")
    assert component.task is Task.REGRESSION
    assert component.gate.against_champion is not None
    assert component.gate.against_champion.metric == "r2"
    assert component.release.approval is Approval.AUTOMATIC
    assert "#   alpha: 0.5" in text


@pytest.mark.parametrize(
    "answers", [Answers(component="a"), Answers(component="a", parameters={"x": None}, holdout="h.csv")]
)
def test_every_commented_line_can_be_switched_on(answers: Answers) -> None:
    lines = []
    for line in render(answers).splitlines():
        bare = line.lstrip()
        indent = line[: len(line) - len(bare)]
        # Prose begins with a capital; what can be switched on begins with a key.
        lines.append(indent + bare[2:] if bare.startswith("# ") and not bare[2:3].isupper() else line)
    text = "\n".join(lines).replace("<name>", "path")
    component = parse_component(text, HERE)
    assert component.stages
    assert component.retrain.on == ("data", "quality", "cron: 0 3 * * 1")
    assert component.gate.metrics


def test_a_metric_is_compared_only_where_the_task_is_known() -> None:
    against = parse_component(render(Answers(component="a")), HERE).gate.against_champion
    assert against is not None
    assert "metric" not in against.model_fields_set


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"),
    max_size=12,
)
SIMPLE = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)


@given(
    TEXT,
    st.dictionaries(TEXT, SIMPLE, max_size=3),
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | st.sampled_from(Task),
)
def test_whatever_is_rendered_parses_to_the_same(
    name: str, parameters: dict[str, str], holdout: str | None, label: str | None, task: Task | None
) -> None:
    answers = Answers(
        component=component_name(name), parameters=parameters, holdout=holdout, label=label, task=task, tests=label
    )
    component = parse_component(render(answers), HERE)
    assert component.component == component_name(name)
    assert component.task is task
    assert component.tests == (label or None)
    if holdout:
        assert component.data.holdout is not None
        assert component.data.holdout.uri == holdout


@pytest.mark.parametrize(
    ("project", "expected"),
    [("My Project_2", "my-project_2"), ("sklearn_elasticnet_wine", "sklearn_elasticnet_wine"), ("…", "component")],
)
def test_a_projects_name_becomes_a_components(project: str, expected: str) -> None:
    assert component_name(project) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"alpha": "float", "data": "path"}, "data"),
        ({"train_data": "string", "test_data": "string"}, "train_data"),
        ({"model_path": "path", "training_data": "path"}, "training_data"),
        ({"database": "string", "alpha": "float"}, None),
        ({"corpus": "uri"}, "corpus"),
        ({}, None),
    ],
)
def test_the_parameter_that_takes_the_data_is_guessed_from_name_and_type(
    parameters: dict[str, str], expected: str | None
) -> None:
    assert likely_data_parameter(parameters) == expected


def test_the_reader_is_told_where_every_key_is_explained() -> None:
    assert "docs/configuration.md" in render(Answers(component="a")).splitlines()[0]
