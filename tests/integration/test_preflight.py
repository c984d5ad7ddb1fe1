"""A corpus of models that are really broken: preflight names the right cause and the remedy in its first finding."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.config.settings import read_settings
from headrace.lifecycle.evidence.preflight import Limits, Preflight, preflight
from headrace.provenance import golden
from headrace.types import UNNAMED, Golden, ServedVersion

pytestmark = pytest.mark.slow

BROKEN = Path(__file__).parent.parent / "models" / "broken.py"
ROWS = np.arange(8, dtype="float64").reshape(4, 2)
PATIENT = Limits(timeout_s=90)
#: model, what its first finding must say, what its remedy must say
CASES = [
    ("missing_module", "imports `a_module_that_is_nowhere`", "python_env.yaml or requirements.txt"),
    ("other_version", "`numpy` in its environment has no `a_function_of_another_numpy`", "Pin the version of `numpy`"),
    ("missing_variable", "reads the environment variable `SCORING_KEY`", r"secrets: \[SCORING_KEY\]"),
    ("missing_library", "`libnowhere.so.7` is not installed", "Install the system package"),
    ("missing_own_file", "opens `/nowhere/vocabulary.txt`, which does not exist", "artifacts="),
    ("needs_network", "needs the network while it loads", "artifacts="),
    (
        "segfault",
        r"crashed in native code \(SIGSEGV\).*at good_model.py, line 6, in `load_context`",
        "pin the versions",
    ),
    ("exits", "ended with exit code 3", "log"),
    ("one_answer", "does not answer row by row", "one answer for each input row"),
    ("random_answers", "not give the answers of its training: with 4 rows, the output differs in 4 of 4", "seed"),
    ("wrong_shape", "takes other inputs than its signature says", "infer_signature"),
    ("raises", "the tokenizer was never fitted", "log"),
    ("syntax_error", "cannot be read by this Python", "Correct the code"),
    ("wrong_pin", "numpy 1.0.1 at training, .* here; not-installed-anywhere 3.2 only at training", "environment: uv"),
    ("other_python", "Python 3.8.20 at training, 3.", "environment: uv"),
    ("no_signature", "has no signature", "infer_signature"),
    ("no_mlmodel", "has no file `MLmodel`", "log_model"),
    ("missing_artifact", "the MLmodel names `artifacts/weights.txt`, which is missing", "Log the model again"),
    ("one_row_export", "exported for a batch of 1 only", r"input_example=X\[:2\]"),
    ("pickled", "would unpickle `data/model.pth`", 'serialization_format="pt2"'),
    ("wrong_signature", "takes other inputs than its signature says", "infer_signature"),
    ("gpu_export", "exported on a GPU and there is none here", r"model\.to\('cpu'\)"),
]


@pytest.fixture(scope="module")
def corpus(component_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    command = [component_python, BROKEN, folder]
    done = subprocess.run(
        command, env=read_settings().child_environment(), cwd=folder, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    golden.save(Golden({UNNAMED: ROWS}, {UNNAMED: ROWS.sum(axis=1)}), folder / "golden")
    return folder


def check(corpus: Path, name: str, python: Path, *, limits: Limits = PATIENT, allow_pickle: bool = False) -> Preflight:
    version = ServedVersion("broken", 1, corpus / name, python, allow_pickle=allow_pickle)
    if (corpus / name / "good_model.py").exists():
        version = replace(version, golden=corpus / "golden")
    return preflight(version, variables=read_settings().child_environment(), limits=limits)


def test_good_models_are_ready_and_measured(corpus: Path, component_python: Path) -> None:
    for name in ("good", "pt2"):
        result = check(corpus, name, component_python)
        assert [str(finding) for finding in result.findings] == []
        assert result.is_ready
        assert result.numbers["peak_mb"] > 0  # type: ignore[operator]
        assert set(result.numbers["forward_ms"]) >= {"1", "4"}  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "fact", "remedy"), CASES, ids=[case[0] for case in CASES])
def test_a_broken_model_is_refused_with_its_cause_and_remedy(
    corpus: Path, component_python: Path, name: str, fact: str, remedy: str
) -> None:
    result = check(corpus, name, component_python)
    assert not result.is_ready
    assert re.search(fact, result.findings[0].fact), result.findings
    assert re.search(remedy, result.findings[0].remedy), result.findings


@pytest.mark.parametrize("name", ["hangs_while_loading", "hangs_while_predicting"])
def test_a_model_that_hangs_is_stopped_and_its_place_named(corpus: Path, component_python: Path, name: str) -> None:
    what = "load" if name.endswith("loading") else "predict"
    found = ""
    # The model's libraries have to be there before the place that matters is reached: a busy machine gets more time.
    for seconds in (10, 40, 160):
        found = check(corpus, name, component_python, limits=Limits(timeout_s=seconds)).findings[0].fact
        if f"it did not {what} within {seconds} s; it was at good_model.py, line" in found:
            return
    raise AssertionError(found)


def test_a_huge_model_is_stopped_at_its_limit(corpus: Path, component_python: Path) -> None:
    result = check(corpus, "huge", component_python, limits=Limits(timeout_s=60, memory_mb=1200))
    assert "the limit is 1200 MB" in result.findings[0].fact


def test_an_allowed_pickle_whose_class_is_gone_is_named(corpus: Path, component_python: Path) -> None:
    result = check(corpus, "class_is_gone", component_python, allow_pickle=True)
    assert "`gone_module`" in result.findings[0].fact


def test_a_damaged_archive_is_not_loaded(corpus: Path, component_python: Path) -> None:
    result = check(corpus, "damaged", component_python)
    assert not result.is_ready
