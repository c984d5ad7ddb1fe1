"""Every flow has a folder of its own."""

import pytest

from headrace.lifecycle.request import folder_name


def test_a_plain_flow_keeps_its_folder() -> None:
    """Flows that are under way at an upgrade go on where they are."""
    assert folder_name("digits/person-1f.2/1") == "digits--person-1f.2--1"
    assert folder_name("digits/promote/commit-0af3/2") == "digits--promote--commit-0af3--2"


@pytest.mark.parametrize(
    ("one", "other"),
    [("训练一", "训练二"), ("a b", "a/b"), ("a--b", "a/b"), ("a//b", "a/b"), ("a\ud800", "a\ud801"), ("", "/")],
)
def test_flows_whose_keys_only_look_alike_as_names_have_folders_of_their_own(one: str, other: str) -> None:
    names = [folder_name(f"digits/person-{key}/1") for key in (one, other)]
    assert names[0] != names[1]
    assert all(name.startswith("digits--person-") for name in names)


def test_no_key_can_be_chosen_to_be_anothers_folder() -> None:
    taken = folder_name("digits/person-a b/1")
    assert folder_name(taken) != taken
    assert folder_name(taken.replace("--", "/")) != taken


@pytest.mark.parametrize("flow", [".", "..", "", "/"])
def test_no_flow_leaves_the_folder_of_flows(flow: str) -> None:
    assert folder_name(flow) not in {"", ".", ".."}
