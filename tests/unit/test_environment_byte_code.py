"""A new environment starts with the byte code of the files that it has in common with another, and of no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config.settings import Settings
from headrace.environment.byte_code import byte_code_folder, inherit_byte_code


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "state", tmp_path / "home").prepare()


def packages(settings: Settings, name: str) -> Path:
    folder = settings.environments / name / "lib"
    folder.mkdir(parents=True)
    return folder


def imported(settings: Settings, folder: Path, module: str) -> str:
    """Return what a fresh interpreter finds in `module`; its byte code is kept."""
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(folder)!r}); import {module}; print({module}.WHO)",
    ]
    env = {**os.environ, **settings.child_environment()}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_shared_files_are_compiled_once(settings: Settings) -> None:
    old, new = packages(settings, "old"), packages(settings, "new")
    (old / "shared.py").write_text("WHO = 'both'\n")
    os.link(old / "shared.py", new / "shared.py")
    assert imported(settings, old, "shared") == "both"
    assert inherit_byte_code(settings, new.parent, [old.parent]) == 1
    [inherited] = byte_code_folder(settings, new.parent).rglob("*.pyc")
    before = inherited.stat()
    assert imported(settings, new, "shared") == "both"
    assert inherited.stat().st_ino == before.st_ino, "Python took it and wrote nothing"
    assert before.st_nlink == 2


def test_another_release_with_the_same_time_and_size_is_not_taken_for_it(settings: Settings) -> None:
    old, new = packages(settings, "old"), packages(settings, "new")
    for folder, who in ((old, "1.0"), (new, "1.1")):
        (folder / "release.py").write_text(f"WHO = '{who}'\n")
        os.utime(folder / "release.py", (1_600_000_000, 1_600_000_000))
    assert imported(settings, old, "release") == "1.0"
    assert inherit_byte_code(settings, new.parent, [old.parent]) == 0
    assert imported(settings, new, "release") == "1.1"


def test_equal_copies_on_a_disk_that_links_nothing_are_shared_too(settings: Settings) -> None:
    old, new = packages(settings, "old"), packages(settings, "new")
    for folder in (old, new):
        (folder / "copied.py").write_text("WHO = 'copy'\n")
        os.utime(folder / "copied.py", (1_600_000_000, 1_600_000_000))
    imported(settings, old, "copied")
    assert inherit_byte_code(settings, new.parent, [old.parent]) == 1


def test_elders_without_byte_code_and_without_the_file_are_passed_over(settings: Settings) -> None:
    empty, old, new = (packages(settings, name) for name in ("empty", "old", "new"))
    (old / "gone.py").write_text("WHO = 'old'\n")
    imported(settings, old, "gone")
    assert inherit_byte_code(settings, new.parent, [empty.parent, old.parent]) == 0
