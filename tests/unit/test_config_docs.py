"""Every key of headrace.yaml is explained, with its default, and nothing is explained that is not there."""

import re
from pathlib import Path

import yaml

from headrace.config.component import Component, seconds
from headrace.config.mistakes import sections
from headrace.config.parse import parse_component

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = [
    ([name.strip("` ") for name in cells[0].split(",")], cells[1].strip())
    for line in PAGE.splitlines()
    if line.startswith("| `") and (cells := line.strip("|").split("|"))
]


def test_every_key_is_explained_and_nothing_else_is() -> None:
    # A section's own heading explains it where all that is in it is explained.
    headings = set(re.findall(r"^## (\w+)$", PAGE, re.MULTILINE))
    keys = {".".join(map(str, path)) for path in sections()} - headings
    explained = {name for names, _ in ROWS for name in names}
    assert keys == explained


def test_the_defaults_that_the_page_names_are_the_real_ones() -> None:
    documented = {names[0]: default.strip("`") for names, default in ROWS if default.startswith("`")}
    values = Component(component="a").model_dump(mode="json")
    for name, default in documented.items():
        found = values
        for part in name.split("."):
            found = found[part]
        if name.endswith((".step_s", ".keep_warm_s", ".every_s", ".cooldown", "_at_most", ".decide_within")):
            assert seconds(default) == found, name
        else:
            assert yaml.safe_load(default.removesuffix(" predictions").removesuffix(" per window")) == found, name


def test_the_pages_example_is_a_component() -> None:
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert parse_component(example[1], Path("headrace.yaml")).component == "news-classifier"
