"""A headrace.yaml becomes a component, or one message that names every mistake with its place."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config.component import Component, EnvironmentKind
from headrace.config.mistakes import keys_at, sections
from headrace.config.parse import parse_component, read_component
from headrace.errors import InvalidConfig
from headrace.types import Stage

FULL = """\
component: news-classifier
project: .
entry_point: main
parameters: {epochs: 3, lr: 1e-3, name: "3", since: 2026-01-02, fast: true}
data:
  train: {uri: data/train.parquet, label: label, id: row, parameter: data}
  holdout: {uri: data/holdout.parquet, label: label}
environment: uv
tests: pytest -q
evaluate: entry_point
gate:
  metrics:
    accuracy: {min: 0.85}
  against_champion: {metric: accuracy, no_worse_than: 0.02, confidence: 0.95}
  slices: [category]
serve: {workers: 1, isolation: process, max_batch: 64, deadline_ms: 1000}
acceptance: {p99_ms: 50, requests: 500}
release: {approval: required, strategy: canary, steps: [5, 25, 100]}
monitor: {window: 500 predictions, false_alarms: 0.001 per window}
stages: {production: {environment_variables: {LOG_LEVEL: warning}, secrets: [API_KEY]}}
retrain: {on: [data, quality, "cron: 0 3 * * 1"], cooldown: 6h}
"""


def parsed(tmp_path: Path, text: str) -> Component:
    (tmp_path / "headrace.yaml").write_text(text)
    return read_component(tmp_path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        parsed(tmp_path, text)
    assert caught.value.remedy
    assert "pydantic" not in caught.value.fact
    assert "Input should" not in caught.value.fact
    return caught.value.fact


def test_a_full_file_gives_its_values(tmp_path: Path) -> None:
    component = parsed(tmp_path, FULL)
    assert component.component == "news-classifier"
    assert component.environment is EnvironmentKind.UV
    assert component.gate.metrics["accuracy"].min == 0.85
    assert component.monitor.window == 500
    assert component.retrain.cooldown == 6 * 3600
    assert component.stages[Stage.PRODUCTION].secrets == ("API_KEY",)
    assert component.project_folder == tmp_path


def test_words_stay_words_and_numbers_numbers(tmp_path: Path) -> None:
    component = parsed(tmp_path, FULL)
    assert component.parameters == {"epochs": 3, "lr": 0.001, "name": "3", "since": "2026-01-02", "fast": True}
    assert type(component.parameters["fast"]) is bool
    assert component.retrain.on == ("data", "quality", "cron: 0 3 * * 1")


def test_tags_that_fit_change_nothing(tmp_path: Path) -> None:
    text = "component: !!str a\nserve: !!map {port: !!int 80, deadline_ms: !!float 5}\nallow_pickle: !!bool true\n"
    component = parsed(tmp_path, text)
    assert (component.serve.port, component.serve.deadline_ms, component.allow_pickle) == (80, 5.0, True)


def test_a_hundred_years_are_a_duration(tmp_path: Path) -> None:
    component = parsed(tmp_path, "component: a\nrelease: {decide_within: 36525d}\n")
    assert component.release.decide_within == 36525 * 86400


def test_a_section_with_all_its_lines_commented_out_is_left_at_its_defaults(tmp_path: Path) -> None:
    component = parsed(tmp_path, "component: a\ngate:\n  # min_rows: 5\ndata:\nretrain:\n  on:\n")
    assert component == Component(component="a").model_copy(update={"folder": tmp_path})


def test_a_null_that_means_something_is_kept(tmp_path: Path) -> None:
    assert parsed(tmp_path, "component: a\ngate: {against_champion: null}\n").gate.against_champion is None


def test_a_missing_file_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"There is no .*headrace\.yaml\.") as caught:
        read_component(tmp_path)
    assert caught.value.remedy == f"Write one with `headrace init {tmp_path}`."


def test_a_misnamed_file_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "headrace.yml").write_text("component: a\n")
    with pytest.raises(InvalidConfig, match=r"but a headrace\.yml"):
        read_component(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"There is no folder .*nowhere"):
        read_component(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text("name: a\n")
    with pytest.raises(InvalidConfig, match="is a file, not a folder"):
        read_component(tmp_path / "MLproject")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").mkdir()
    with pytest.raises(InvalidConfig, match="cannot be read: Is a directory"):
        read_component(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("component: a\nservee: {}\n", "servee, line 2: there is no such key; did you mean `serve`?"),
        ("component: a\nserve:\n  worker: 2\n", "serve.worker, line 3: there is no such key; did you mean `workers`?"),
        ("component: a\nslices: [x]\n", "slices, line 2: there is no such key here; it belongs to `gate.slices`"),
        (
            "component: a\nserve: {zebra: 1}\n",
            "serve.zebra, line 2: there is no such key; known here: workers, threads",
        ),
        ("component: a\nfolder: /etc\n", "folder, line 2: there is no such key"),
        (
            "component: a\ngate:\n  metrics:\n    accuracy: {min: high}\n",
            "gate.metrics.accuracy.min, line 4: must be a number, not `high`",
        ),
        (
            "component: a\nserve:\n  workers: many\n",
            "serve.workers, line 3: must be a whole number or `auto`, not `many`",
        ),
        ("component: a\nserve: {workers: 0}\n", "serve.workers, line 2: must be at least 1, not `0`"),
        ("component: a\nserve: {port: 70000}\n", "serve.port, line 2: must be at most 65535, not `70000`"),
        ("component: a\ntests: 5\n", "tests, line 2: must be text, not `5`; put it in quotes"),
        ("component: a\nentry_point:\n", "entry_point, line 2: has no value; it must be text (or leave the key out)"),
        ("component: a\nallow_pickle: perhaps\n", "allow_pickle, line 2: must be true or false, not `perhaps`"),
        ("component: a\nenvironment: conda\n", "environment, line 2: must be `uv`, `inherit` or `docker`, not `conda`"),
        ("component: a\ntraining: podman\n", "training, line 2: must be `process` or `docker`, not `podman`"),
        (
            "component: a\ntraining: {target: docker, memory: 4}\n",
            "training.memory, line 2: `4` is no amount of memory",
        ),
        ("component: a\ntraining: {memory: 4g}\n", "line 1: `training.memory` can be held in a container only"),
        (
            "component: a\nenvironment: inherit\ntraining: docker\n",
            "line 1: `training: docker` needs a locked environment",
        ),
        ("component: a\ngate: strict\n", "gate, line 2: must be a section of `key: value` lines, not `strict`"),
        ("component: a\ngate: {slices: city}\n", "gate.slices, line 2: must be a list, such as [a, b], not `city`"),
        ("component: a\nrelease: {steps: [5, x]}\n", "release.steps.1, line 2: must be a whole number, not `x`"),
        ("component: a\nrelease: {steps: [50]}\n", "release, line 2: `steps` are [50]; they must rise and end at 100"),
        ("component: a\nrelease: {steps: []}\n", "release, line 2: `steps` are []; they must rise and end at 100"),
        ("component: a\ngate: {metrics: {f1: {}}}\n", "gate.metrics.f1, line 2: a bound needs `min`, `max` or both"),
        ("component: a\ngate: {metrics: {f1: {min: nan}}}\n", "gate.metrics.f1.min, line 2: must be a finite number"),
        ("component: a\nretrain: {cooldown: soon}\n", "retrain.cooldown, line 2: `soon` is no duration; write for"),
        ("component: a\nmonitor: {window: 5}\n", "monitor.window, line 2: must be at least 20, not `5`"),
        ("component: a\nstages: {prod: {}}\n", "stages.prod, line 2: must be named `dev` or `production`"),
        ("component: a\ndata:\n  train: {label: y}\n", "data.train.uri, line 3: is missing"),
        (
            "component: News Classifier\n",
            "component, line 1: `News Classifier` cannot be a name: a component's name has",
        ),
        ("entry_point: main\n", "component, line 1: is missing; a component's name has small letters"),
        ("", "component, line 1: is missing"),
        ("component: a\nproject: elsewhere\n", "project, line 2: there is no folder"),
        ("component: a\ntests: x\ntests: y\n", "tests, line 3: is written twice (first on line 2)"),
        ("component: a\n\ttests: x\n", "line 2: is indented with a tab; YAML wants spaces"),
        ("component: a\ngate: {slices: [x\n", "line 3: is no valid YAML: expected"),
        ("component: a\ntests: bash: x\n", "line 2: has a `:` inside a value"),
        ("component: a\n---\ncomponent: b\n", "line 2: begins a second document"),
        ("- component: a\n", "line 1: must hold `key: value` lines"),
        ("component: a\ntests: \x01\n", "line 2: holds a character that YAML forbids (U+0001)"),
        ("component: &n a\ngate: &g {}\nserve: *g\n", "serve, line 2: is an alias"),
        ("component: a\ngate: &g {metrics: *g}\n", "gate.metrics, line 2: is an alias"),
        ("component: a\n? [x]\n: y\n", "line 2: has a key that is no word"),
        ("component: a\nserve: {port: !!int abc}\n", "serve.port, line 2: has the tag `!!int`, which does not fit"),
        ("component: a\nserve: {port: !!int 0x10}\n", "serve.port, line 2: has the tag `!!int`"),
        ("component: a\nserve: {port: !!float x}\n", "serve.port, line 2: has the tag `!!float`"),
        ("component: a\nallow_pickle: !!bool yes\n", "allow_pickle, line 2: has the tag `!!bool`"),
        ("component: a\nserve: !!null {}\n", "serve, line 2: has the tag `!!null`"),
        ("component: a\ntests: !env TESTS\n", "tests, line 2: has the tag `!env`"),
        ('component: a\nproject: "a\\0b"\n', "project, line 2: 'a\\x00b' cannot be a folder: "),
        (f"component: a\nproject: {'a' * 5000}\n", f"project, line 2: '{'a' * 40}' cannot be a folder: File name"),
        (
            "component: a\nrelease: {decide_within: 99999999999999999999d}\n",
            "release.decide_within, line 2: `99999999999999999999d` is too long; at most 36525d",
        ),
        ("component: a\nrelease: {step_s: 1e12}\n", "release.step_s, line 2: `1000000000000.0` is too long"),
        ("component: a\nmonitor: {label_delay: 40000d}\n", "monitor.label_delay, line 2: `40000d` is too long"),
        ("component: " + "[" * 600, "line 1: is nested too deeply"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    found = refusal(tmp_path, text)
    assert f"headrace.yaml: {expected}" in found
    assert "\n" not in found


def test_all_mistakes_are_listed_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    found = refusal(
        tmp_path,
        "component: A\nserve:\n  workers: x\n  qeue: 3\ngate:\n  metrics: {accuracy: {min: a}}\n"
        "tests: a\ntests: b\nfolder: x\n",
    )
    first, *lines = found.splitlines()
    assert first.endswith("has 6 mistakes:")
    assert [line.split(":")[0].strip() for line in lines] == [
        "component, line 1",
        "serve.workers, line 3",
        "serve.qeue, line 4",
        "gate.metrics.accuracy.min, line 6",
        "tests, line 8",
        "folder, line 9",
    ]


def test_what_goes_to_an_environment_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    found = refusal(tmp_path, "component: a\nstages: {production: {environment_variables: {PIN: 8841}}}\n")
    assert "stages.production.environment_variables.PIN, line 2: must be text" in found
    assert "8841" not in found


def test_a_file_that_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_bytes(b"component: a\ntests: \xff\n")
    with pytest.raises(InvalidConfig, match="line 2: is not UTF-8"):
        read_component(tmp_path)


def outcome(text: str) -> str:
    """Return the refusal of a text, empty where it is a component; anything else than a refusal passes through."""
    try:
        parse_component(text, Path("headrace.yaml"))
    except InvalidConfig as refused:
        return refused.fact
    return ""


ODD = st.text("component: a{}[]-\n&*!|>'\"#%@,?<\t0.e+", max_size=40)


@given(st.text(st.characters(codec="utf-8"), max_size=60) | ODD)
def test_any_text_is_a_component_or_a_refusal_with_a_line(text: str) -> None:
    found = outcome(text)
    assert found == "" or "line " in found


@pytest.mark.parametrize(("escaped", "read"), [(r"\ud83d\ude80", "\U0001f680"), (r"\ud83d", "\ufffd")])
def test_halves_of_characters_are_put_together(escaped: str, read: str) -> None:
    found = parse_component(f'component: a\ntests: "{escaped}"', Path("headrace.yaml"))
    assert found.tests == read


KEYS = st.sampled_from(sorted({str(path[-1]) for path in sections()} | {"accuracy", "production", "zebra"}))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_values_under_known_keys_are_a_component_or_a_refusal_in_our_words(values: dict[str, object]) -> None:
    found = outcome(json.dumps({"component": "a", **values}))
    assert found == "" or "line 1: " in found
    assert "Input should" not in found


def test_sections_list_every_key_of_the_model() -> None:
    found = set(sections())
    assert ("gate", "metrics", "*", "min") in found
    assert ("stages", "*", "secrets") in found
    assert ("folder",) not in found
    assert keys_at(("gate", "metrics")) == ()
