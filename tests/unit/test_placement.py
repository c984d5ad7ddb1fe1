"""Where a component is trained."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import InvalidConfig
from headrace.lifecycle.durable import Role
from headrace.lifecycle.nodes.base import Condition, Node, OneNode
from headrace.lifecycle.placement import check_can_be_placed, label_of
from headrace.lifecycle.request import CandidateRequest, Cause, Trigger

NODE = Node("here", [Role.TRAIN], "s", "1", "0.1", "host", 1, labels=("cpu",))
TRIGGER = Trigger(Cause.PERSON, "k", "person:ada", "because")


def configured(folder: Path, *lines: str) -> CandidateRequest:
    (folder / "headrace.yaml").write_text("\n".join(["component: digits", *lines, ""]))
    return CandidateRequest("digits", str(folder), TRIGGER)


def test_the_label_is_what_headrace_yaml_says(tmp_path: Path) -> None:
    (tmp_path / "MLproject").touch()
    assert label_of(configured(tmp_path)) == ""
    assert label_of(configured(tmp_path, "runs_on: gpu")) == "gpu"


def test_the_label_is_that_of_the_commit(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "MLproject").touch()
    git("init", "-q")
    asked = configured(tmp_path, "runs_on: gpu")
    git("add", "-A")
    git("commit", "-qm", "one")
    asked = replace(asked, commit=git("rev-parse", "HEAD"))
    configured(tmp_path)
    assert label_of(asked) == "gpu"


def test_a_file_that_cannot_be_read_asks_for_none(tmp_path: Path) -> None:
    assert label_of(configured(tmp_path, "runs_on: [")) == ""
    assert label_of(CandidateRequest("digits", str(tmp_path / "absent"), TRIGGER)) == ""


def test_where_nobody_carries_the_label_it_waits_or_is_refused() -> None:
    nodes = OneNode(NODE)
    assert check_can_be_placed(nodes, "digits", "", are_several=False) == ""
    assert check_can_be_placed(nodes, "digits", "cpu", are_several=False) == ""
    waits = check_can_be_placed(nodes, "digits", "gpu", are_several=True)
    assert waits.startswith("digits runs on workers with the label `gpu`, and none is at work (labels there: cpu).")
    with pytest.raises(InvalidConfig, match="none is at work") as refused:
        check_can_be_placed(nodes, "digits", "gpu", are_several=False)
    assert "HEADRACE_LABELS=gpu headrace up" in refused.value.remedy


def test_the_dead_and_those_who_only_serve_do_not_count() -> None:
    for node in (replace(NODE, condition=Condition.DEAD), replace(NODE, roles=[Role.SERVE])):
        assert check_can_be_placed(OneNode(node), "digits", "cpu", are_several=True)
