"""Entry points are found, completed and rendered as MLflow does it."""

from pathlib import Path

import pytest

from headrace.errors import InvalidConfig
from headrace.training.project import Project, read_project

MLPROJECT = """\
name: digits
entry_points:
  main:
    parameters:
      train_data: path
      epochs: {type: float, default: 5}
    command: "python train.py {train_data} --epochs {epochs}"
  evaluate:
    command: "python evaluate.py"
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "MLproject").write_text(MLPROJECT)
    (tmp_path / "extra.py").write_text("")
    return read_project(tmp_path)


def test_defaults_fill_in_what_is_not_given(project: Project) -> None:
    assert project.entry_point("main").complete({"train_data": "x"}) == {"epochs": "5", "train_data": "x"}


def test_a_parameter_without_a_default_must_be_given(project: Project) -> None:
    with pytest.raises(InvalidConfig, match="needs `train_data`"):
        project.entry_point("main").complete({})


def test_values_are_quoted_for_the_shell_and_unknown_ones_passed_on(project: Project) -> None:
    point = project.entry_point("main")
    command = point.render(point.complete({"train_data": "a b; rm -rf /", "seed": "1"}))
    assert command == "python train.py 'a b; rm -rf /' --epochs 5 --seed 1"


def test_an_unknown_entry_point_names_the_nearest(project: Project) -> None:
    with pytest.raises(InvalidConfig, match="no entry point `evalute`") as refused:
        project.entry_point("evalute")
    assert refused.value.remedy == "Did you mean `evaluate`?"


def test_a_script_is_an_entry_point_too(project: Project) -> None:
    assert project.entry_point("extra.py").command == "python extra.py"


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("entry_points: [main]\n", "`entry_points` is a list"),
        ("entry_points: {main: {}}\n", "`main` has no `command`"),
        ("entry_points: {main: {command: x, parameters: [a]}}\n", "`parameters` of `main` is a list"),
    ],
)
def test_a_wrong_mlproject_is_refused(tmp_path: Path, text: str, fact: str) -> None:
    (tmp_path / "MLproject").write_text(text)
    with pytest.raises(InvalidConfig, match=fact):
        read_project(tmp_path)


def test_a_command_that_names_no_parameter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text('entry_points: {main: {command: "python x.py {epoch}"}}\n')
    with pytest.raises(InvalidConfig, match="names 'epoch'"):
        read_project(tmp_path).entry_point("main").render({})


@pytest.mark.parametrize("command", ["python x.py {a.b}", "python x.py {a[b]}", "python x.py {0}", "python x.py {"])
def test_a_command_with_other_braces_is_refused(tmp_path: Path, command: str) -> None:
    (tmp_path / "MLproject").write_text(
        f'entry_points: {{main: {{command: "{command}", parameters: {{a: string}}}}}}\n'
    )
    with pytest.raises(InvalidConfig, match="entry point `main` names"):
        read_project(tmp_path).entry_point("main").render({"a": "1"})


def test_names_that_yaml_takes_for_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text('entry_points: {1: {command: "python x.py {2}", parameters: {2: string}}}\n')
    point = read_project(tmp_path).entry_point("1")
    assert list(point.parameters) == ["2"]
    with pytest.raises(InvalidConfig, match=r"has no entry point `mein` \(it has: `1`\)"):
        read_project(tmp_path).entry_point("mein")
