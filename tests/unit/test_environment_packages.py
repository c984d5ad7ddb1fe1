"""pip's settings reach uv, and uv's complaints come back as one sentence."""

import os
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.environment.base import Download, Lock
from headrace.environment.downloads import sizes
from headrace.environment.inherit import InheritedEnvironments
from headrace.environment.packages import configuration_files, read_package_sources
from headrace.environment.uv_command import first_conflict
from headrace.errors import EnvironmentFailed

NO_SUCH_PACKAGE = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of numpy==99 and you require numpy==99, we can conclude that your requirements
         are unsatisfiable.
"""
CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because mlflow==2.9.1 depends on numpy<2 and you require numpy>=2, we can conclude that your requirements and
         mlflow==2.9.1 are incompatible.
         And because you require mlflow==2.9.1, we can conclude that your requirements are unsatisfiable.
"""
OLDER_LOOK = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because foo was not found in the package registry and you
      require foo, we can conclude that your requirements are unsatisfiable.
"""
UNREADABLE = """\
error: Couldn't parse requirement in `u.txt` at position 23
  cause: Expected one of `@`, found `i`
         this is bad
              ^
"""


def test_the_first_conflict_is_one_sentence() -> None:
    assert first_conflict(NO_SUCH_PACKAGE) == "there is no version of numpy==99 and you require numpy==99"
    assert first_conflict(CONFLICT) == (
        "mlflow==2.9.1 depends on numpy<2 and you require numpy>=2, and you require mlflow==2.9.1"
    )
    assert first_conflict(OLDER_LOOK) == "foo was not found in the package registry and you require foo"
    assert first_conflict(UNREADABLE).startswith(
        "Couldn't parse requirement in `u.txt` at position 23: Expected one of"
    )
    assert first_conflict("") == "uv gave no reason"


def test_pip_settings_become_options_and_missing_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    config = tmp_path / "pip.conf"
    config.write_text(
        f"[global]\nindex-url = https://example.org/simple\nfind-links = {tmp_path}/wheels {tmp_path}/gone\n"
        f"[install]\nextra-index-url = file://{tmp_path}/gone https://example.org/extra\n"
    )
    found = read_package_sources({"PIP_CONFIG_FILE": str(config), "HOME": str(tmp_path), "PIP_CERT": "/ca.pem"})
    assert found.uv_options() == [
        "--index-strategy=unsafe-best-match",
        "--index-url=https://example.org/simple",
        "--extra-index-url=https://example.org/extra",
        f"--find-links={tmp_path}/wheels",
    ]
    assert found.certificates == "/ca.pem"


def test_variables_win_over_files(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex_url = https://example.org/file\n")
    variables = {"PIP_CONFIG_FILE": str(config), "HOME": str(tmp_path), "PIP_INDEX_URL": "https://example.org/variable"}
    assert read_package_sources(variables).index_url == "https://example.org/variable"


def test_devnull_switches_all_files_off(tmp_path: Path) -> None:
    assert configuration_files({"PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}) == []


def test_sizes_are_not_asked_for_where_they_are_known_or_cannot_be_had() -> None:
    files = {"known": ("https://example.invalid/a.whl", 12), "local": ("file:///tmp/a.whl", 0)}
    assert sizes(files, {}) == {"known": 12, "local": 0}


def test_inherit_freezes_the_interpreter_and_fetches_nothing(tmp_path: Path) -> None:
    environments = InheritedEnvironments(Settings(tmp_path, tmp_path, variables=dict(os.environ)))
    lock = environments.lock(tmp_path)
    assert "\nnumpy==" in lock.text
    assert environments.lock(tmp_path) == lock
    assert environments.download(lock) == Download(0, 0)
    assert environments.build(lock, progress=lambda _: None).python.exists()


def test_inherit_notices_a_change(tmp_path: Path) -> None:
    environments = InheritedEnvironments(Settings(tmp_path, tmp_path, variables=dict(os.environ)))
    lock = environments.lock(tmp_path)
    older = Lock("0", lock.text.replace("\nnumpy==", "\nnumpy==0."), lock.python)
    with pytest.raises(EnvironmentFailed, match="numpy=="):
        environments.build(older, progress=lambda _: None)
