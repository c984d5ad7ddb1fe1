"""What is recorded about code is true, and copies hold exactly what was recorded."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import InvalidConfig, NotFound, Unavailable
from headrace.provenance import code
from headrace.provenance.code import checkout, commits_between, describe
from headrace.provenance.tags import ReleaseTag, read_tags, write_tag

Git = Callable[..., str]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository with a project in `ml/digits` and one commit."""
    top = tmp_path / "repository"
    (top / "ml" / "digits").mkdir(parents=True)
    (top / "ml" / "digits" / "MLproject").write_text("name: digits\n")
    (top / "ml" / "digits" / "train.py").write_text("print(1)\n")
    (top / "common.py").write_text("A = 1\n")
    (top / ".gitignore").write_text("data/\n")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    commit(top, "first")
    return top


@pytest.fixture
def project(top: Path) -> Path:
    return top / "ml" / "digits"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    run = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def commit(top: Path, message: str) -> str:
    git(top, "commit", "-q", "-am", message)
    return git(top, "rev-parse", "HEAD")


def listing(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_clean_project_in_a_subfolder(top: Path, project: Path, tmp_path: Path) -> None:
    git(top, "remote", "add", "origin", "https://ada:secret@example.org/ml.git")
    code = describe(project)
    assert code.repository == "https://example.org/ml.git"
    assert code.commit == git(top, "rev-parse", "HEAD")
    assert (code.branch, code.subfolder) == ("main", "ml/digits")
    assert [code.is_dirty, code.is_detached, code.is_shallow, code.diff] == [False, False, False, ""]
    copy = checkout(project, tmp_path / "flow" / "checkout")
    assert copy.folder == tmp_path / "flow" / "checkout" / "ml" / "digits"
    assert listing(tmp_path / "flow" / "checkout") == listing(top)
    assert git(copy.folder, "rev-parse", "HEAD") == code.commit
    assert git(copy.folder, "status", "--porcelain") == ""


def test_a_dirty_tree_is_copied_as_it_is_and_its_digest_follows_the_content(
    top: Path, project: Path, tmp_path: Path
) -> None:
    (project / "train.py").write_text("print(2)\n")
    (project / "new.py").write_text("new\n")
    (project / "MLproject").unlink()
    (project / "data").mkdir()
    (project / "data" / "big.csv").write_text("ignored")
    code = describe(project)
    assert code.is_dirty
    assert sorted(code.changes or ()) == ["ml/digits/MLproject", "ml/digits/new.py", "ml/digits/train.py"]
    copy = checkout(project, tmp_path / "copy")
    assert copy.code == code
    assert listing(copy.folder) == {"train.py": "print(2)\n", "new.py": "new\n"}
    (project / "train.py").write_text("print(3)\n")
    assert describe(project).diff != code.diff


def test_changes_outside_the_project_are_told_apart(top: Path, project: Path, tmp_path: Path) -> None:
    (top / "common.py").write_text("A = 2\n")
    copy = checkout(project, tmp_path / "copy")
    assert not copy.code.is_dirty
    assert copy.code.is_dirty_elsewhere
    assert (tmp_path / "copy" / "common.py").read_text() == "A = 1\n"


def test_a_copy_never_touches_the_users_checkout(top: Path, project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text("print(2)\n")
    before = (git(top, "status"), git(top, "worktree", "list"), (top / ".git" / "index").read_bytes())
    checkout(project, tmp_path / "copy")
    assert (git(top, "status"), git(top, "worktree", "list"), (top / ".git" / "index").read_bytes()) == before


def test_a_repeat_returns_the_copy_that_was_made_first(project: Path, tmp_path: Path) -> None:
    first = checkout(project, tmp_path / "copy")
    (project / "train.py").write_text("print(2)\n")
    assert checkout(project, tmp_path / "copy") == first
    assert (first.folder / "train.py").read_text() == "print(1)\n"


def test_an_older_commit_can_be_had(top: Path, project: Path, tmp_path: Path) -> None:
    first = git(top, "rev-parse", "HEAD")
    (project / "train.py").write_text("print(2)\n")
    commit(top, "second")
    copy = checkout(project, tmp_path / "copy", first[:10])
    assert copy.code.commit == first
    assert not copy.code.is_dirty
    assert (copy.folder / "train.py").read_text() == "print(1)\n"
    with pytest.raises(NotFound, match="has no commit `feedface`"):
        describe(project, "feedface")


def test_a_detached_head(top: Path, project: Path) -> None:
    git(top, "checkout", "-q", "--detach")
    code = describe(project)
    assert code.is_detached
    assert code.branch == ""
    assert not code.is_dirty


def test_a_shallow_clone(top: Path, tmp_path: Path) -> None:
    (top / "common.py").write_text("A = 2\n")
    second = commit(top, "second")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{top}", "shallow")
    copy = checkout(tmp_path / "shallow" / "ml" / "digits", tmp_path / "copy")
    assert copy.code.is_shallow
    assert copy.code.commit == second == git(copy.folder, "rev-parse", "HEAD")
    with pytest.raises(NotFound) as refusal:
        describe(tmp_path / "shallow" / "ml" / "digits", git(top, "rev-parse", "HEAD~1"))
    assert "--unshallow" in refusal.value.remedy


def test_no_git_at_all(tmp_path: Path) -> None:
    project = tmp_path / "plain"
    for path in ("train.py", "sub/a.txt", ".venv/bin/python", "env/pyvenv.cfg", "env/x.py", "__pycache__/a.pyc"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(path)
    copy = checkout(project, tmp_path / "copy")
    assert not copy.code.has_git
    assert copy.code.is_dirty
    assert (copy.code.commit, copy.code.repository) == ("", str(project))
    assert listing(copy.folder) == {"train.py": "train.py", "sub/a.txt": "sub/a.txt"}


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    project = tmp_path / "fresh"
    project.mkdir()
    (project / "train.py").write_text("x")
    git(project, "init", "-q", "-b", "main")
    copy = checkout(project, tmp_path / "copy")
    assert copy.code.has_git
    assert copy.code.is_dirty
    assert copy.code.commit == ""
    assert listing(copy.folder) == {"train.py": "x"}


def test_links_stay_links_and_variables_of_a_hook_are_ignored(
    top: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "link").symlink_to("/etc/hostname")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    copy = checkout(project, tmp_path / "copy")
    assert copy.code.changes == {"ml/digits/link": "link to /etc/hostname"}
    assert (copy.folder / "link").is_symlink()


@pytest.mark.parametrize("becomes", ["file", "link", "link out"])
def test_a_folder_that_became_a_file_or_a_link_is_one_in_the_copy(
    top: Path, project: Path, tmp_path: Path, becomes: str
) -> None:
    (project / "steps").mkdir()
    (project / "steps" / "one.py").write_text("old\n")
    git(top, "add", "-A")
    commit(top, "steps")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one.py").write_text("mine\n")
    (project / "steps" / "one.py").unlink()
    (project / "steps").rmdir()
    if becomes == "file":
        (project / "steps").write_text("new\n")
    else:
        (project / "steps").symlink_to(outside if becomes == "link out" else "train.py")
    copy = checkout(project, tmp_path / "copy")
    assert copy.code.changes == describe(project).changes
    assert dict(copy.code.changes or {})["ml/digits/steps/one.py"] == "deleted"
    steps = copy.folder / "steps"
    if becomes == "file":
        assert steps.read_text() == "new\n"
    else:
        assert steps.readlink() == (project / "steps").readlink()
    assert (outside / "one.py").read_text() == "mine\n"


def test_a_file_that_became_a_folder_is_one_in_the_copy(project: Path, tmp_path: Path) -> None:
    (project / "train.py").unlink()
    (project / "train.py").mkdir()
    (project / "train.py" / "x").write_text("new\n")
    assert listing(checkout(project, tmp_path / "copy").folder)["train.py/x"] == "new\n"


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_submodule_in_the_project_is_refused_and_one_elsewhere_is_not(
    top: Path, project: Path, tmp_path: Path, is_committed: bool
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "first")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other))
    git(top, *add, "library")
    commit(top, "a submodule beside the project")
    checkout(project, tmp_path / "copy")
    git(top, *add, "ml/digits/library")
    if is_committed:
        commit(top, "a submodule")
    with pytest.raises(InvalidConfig, match="`ml/digits/library` is a git submodule"):
        checkout(project, tmp_path / "another", "HEAD" if is_committed else None)


def test_a_folder_that_git_ignores_counts_as_without_git(top: Path) -> None:
    ignored = top / "data" / "project"
    ignored.mkdir(parents=True)
    (ignored / "train.py").write_text("x")
    assert not describe(ignored).has_git


def test_a_release_tag_names_the_baseline_and_a_repeat_changes_nothing(top: Path, project: Path) -> None:
    head = git(top, "rev-parse", "HEAD")
    tag = ReleaseTag("digits", 3, "b" * 64, "c" * 64, "person:ada", head)
    assert write_tag(project, tag) == ""
    assert write_tag(project, tag) == ""
    git(top, "tag", "digits/v12")
    git(top, "tag", "digits/vx")
    git(top, "tag", "other/v1")
    assert read_tags(project, "digits") == [tag, ReleaseTag("digits", 12, target=head)]
    assert git(top, "cat-file", "-t", "digits/v3") == "tag"
    assert git(top, "status", "--porcelain") == ""
    assert "another tag digits/v3" in write_tag(project, replace(tag, baseline="d" * 64))


def test_whatever_a_tags_message_holds_it_is_read_and_others_are_written(top: Path, project: Path) -> None:
    head = git(top, "rev-parse", "HEAD")
    git(top, "tag", "-a", "-m", "x\x01y\x02\u2028z\nbaseline: b1", "digits/v1")
    git(top, "tag", "-a", "-m", "x", "digits/v99999999999999999999")
    git(top, "tag", "-a", "-m", "x", "digits/v03")
    git(top, "tag", "-a", "-m", os.fsdecode(b"x\n\nactor: Ren\xe9"), "digits/v2")
    assert read_tags(project, "digits") == [
        ReleaseTag("digits", 1, "b1", target=head),
        ReleaseTag("digits", 2, actor="Ren\ufffd", target=head),
    ]
    assert write_tag(project, ReleaseTag("digits", 3, "b" * 64, "c" * 64, "person:ada", head)) == ""


def test_a_subject_may_have_separators(top: Path, project: Path) -> None:
    before = git(top, "rev-parse", "HEAD")
    git(top, "commit", "--allow-empty", "-m", "one\u2028line")
    assert commits_between(project, before, git(top, "rev-parse", "HEAD")) == ["one\u2028line"]


def test_without_git_there_is_no_tag_and_it_is_said(tmp_path: Path) -> None:
    assert "not under git" in write_tag(tmp_path, ReleaseTag("digits", 1, target="a" * 40))
    assert read_tags(tmp_path, "digits") == []


def test_the_commits_between_two_versions_are_named(top: Path, project: Path) -> None:
    first = git(top, "rev-parse", "HEAD")
    (project / "train.py").write_text("print(2)")
    second = commit(top, "train longer")
    assert commits_between(project, first, second) == ["train longer"]
    assert commits_between(project, first, "f" * 40) == []


def test_a_git_that_does_not_end_is_unavailable(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **words: float) -> None:
        raise subprocess.TimeoutExpired("git", words["timeout"])

    monkeypatch.setattr(code.subprocess, "run", hang)
    with pytest.raises(Unavailable, match="git did not end within 300 s"):
        code.run_git(top, "fetch")
