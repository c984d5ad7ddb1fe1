"""What code a version was made of, told truthfully, and clean copies of it.

    describe(project, commit=None) -> Code            # git's facts; works without git too
    checkout(project, to, commit=None) -> Checkout    # .folder is the project inside the copy, .code what was copied

The user's own checkout and its `.git` are only ever read. A copy is a clone that borrows the objects of the user's
repository; what was changed and not committed is laid over it, file by file, and digested as it is copied.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from headrace.errors import InvalidConfig, NotFound, Unavailable
from headrace.files import canonical_json, sha256_json, write_atomically
from headrace.types import Json

#: Folders that are never code; a project without git has no list of its own.
NOT_CODE = frozenset(
    {".git", ".venv", "venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints"}
    | {"node_modules", "mlruns", "mlartifacts"}
)
#: What a hook or another tool may have left in the environment.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
_GIT_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Code:
    """The code of one version.

    Attributes:
        repository: the remote's address without credentials, or the local path where there is no remote.
        commit: the full SHA; empty without git or before the first commit.
        branch: empty where HEAD is detached.
        subfolder: where the project lies in the repository; empty at its top.
        changes: what differs from the commit inside the project: POSIX path in the repository to the SHA-256 of the
            content, `deleted`, or `link to …`. Untracked files count, ignored ones do not. Without git: every file.
        is_dirty_elsewhere: something outside the project is changed; the copy has it as committed.
    """

    repository: str
    commit: str = ""
    branch: str = ""
    subfolder: str = ""
    changes: Mapping[str, str] | None = None
    has_git: bool = True
    is_shallow: bool = False
    is_dirty_elsewhere: bool = False

    @property
    def is_dirty(self) -> bool:
        """True where the commit alone does not say what the code was."""
        return bool(self.changes) or not self.commit

    @property
    def diff(self) -> str:
        """SHA-256 over `changes`; empty where there are none."""
        return sha256_json(dict(self.changes)) if self.changes else ""

    @property
    def is_detached(self) -> bool:
        return self.has_git and bool(self.commit) and not self.branch

    def as_json(self) -> dict[str, Json]:
        """Return the facts as they go into a baseline."""
        return {
            "repository": self.repository,
            "commit": self.commit,
            "branch": self.branch,
            "subfolder": self.subfolder,
            "has_git": self.has_git,
            "is_dirty": self.is_dirty,
            "is_dirty_elsewhere": self.is_dirty_elsewhere,
            "is_shallow": self.is_shallow,
            "is_detached": self.is_detached,
            "diff": self.diff,
            "changed_files": [*sorted(self.changes or ())],
        }

    def __str__(self) -> str:
        if not self.has_git:
            return f"{self.repository}, not under git ({len(self.changes or ())} files, digest {self.diff[:12]})"
        place = f"{self.repository} in {self.subfolder}" if self.subfolder else self.repository
        dirt = f", {len(self.changes)} files changed (diff {self.diff[:12]})" if self.changes else ""
        return f"{place} at {self.commit[:12] or 'no commit yet'}{dirt}"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A clean copy. `folder` is the project inside it; `code` is what was copied."""

    folder: Path
    code: Code


def describe(project: Path, commit: str | None = None) -> Code:
    """Return the facts about a project's code: as it lies there, or as it is at `commit`.

    Raises:
        InvalidConfig: git is there and refuses to read the repository.
        NotFound: the repository has no such commit.
    """
    top = top_of(project)
    if top is None:
        files = {path: _content(project / path) for path in _files_without_git(project)}
        return Code(str(project), changes=files, has_git=False)
    subfolder = project.resolve().relative_to(top).as_posix()
    subfolder = "" if subfolder == "." else subfolder
    facts = Code(
        repository=_repository(top),
        commit=_commit(top, commit or "HEAD", required=commit is not None),
        branch=readable(git_output(top, "symbolic-ref", "--quiet", "--short", "HEAD", check=False)).strip(),
        subfolder=subfolder,
        is_shallow=git_output(top, "rev-parse", "--is-shallow-repository").strip() == "true",
    )
    if commit is not None:
        return facts
    changed = _changed(top)
    inside = [path for path in changed if not subfolder or path.startswith(f"{subfolder}/")]
    return replace(
        facts,
        changes={path: "deleted" if _is_behind_link(top, path) else _content(top / path) for path in inside},
        is_dirty_elsewhere=len(inside) < len(changed),
    )


def checkout(project: Path, to: Path, commit: str | None = None) -> Checkout:
    """Make a clean copy of a project's repository in `to`; a repeat returns the copy that is there.

    Without `commit` it is HEAD with the project's uncommitted changes laid over it; without git, all that looks like
    code.

    Raises:
        InvalidConfig: as `describe`; or a submodule lies in the project.
        NotFound: as `describe`.
    """
    facts = to.with_name(f"{to.name}.code.json")
    if to.is_dir() and facts.is_file():
        return _checkout(to, _read(facts))
    code = describe(project, commit)
    _check_no_submodules(project, code, commit)
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-"))
    try:
        top = top_of(project)
        if top is not None and code.commit:
            _clone(top, code.commit, temporary)
        source = top or project
        changes = {path: _copy(source, temporary, path) for path in code.changes or ()}
        code = replace(code, changes=changes)
        write_atomically(facts, canonical_json(asdict(code)))
        shutil.rmtree(to, ignore_errors=True)
        os.rename(temporary, to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _checkout(to, code)


def text_at(project: Path, name: str, commit: str) -> str:
    """Return the text of a file of the project at a commit.

    Raises:
        InvalidConfig: git has no such file there.
        NotFound: there is no such project folder.
    """
    top = top_of(project)
    path = (project.resolve() / name).relative_to(top or project.resolve()).as_posix()
    return git_output(top or project, "show", "--end-of-options", f"{commit}:{path}")


def _checkout(to: Path, code: Code) -> Checkout:
    return Checkout(to / code.subfolder, code)


def _read(facts: Path) -> Code:
    return Code(**json.loads(facts.read_text()))


def top_of(project: Path) -> Path | None:
    """Return the top folder of the project's repository; None without git, or where git ignores the project."""
    if not project.is_dir():
        raise NotFound(f"There is no project folder {project}", "Check `project` in headrace.yaml")
    if shutil.which("git") is None or "not a git repository" in run_git(project, "rev-parse").stderr:
        return None
    is_ignored = run_git(project, "check-ignore", "--quiet", str(project.resolve())).returncode == 0
    return None if is_ignored else Path(git_output(project, "rev-parse", "--show-toplevel").strip()).resolve()


def _repository(top: Path) -> str:
    url = readable(git_output(top, "remote", "get-url", "origin", check=False)).strip()
    return re.sub(r"(?<=://)[^/@]*@", "", url) or str(top)


def _commit(top: Path, name: str, *, required: bool) -> str:
    found = git_output(
        top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False
    ).strip()
    if required and not found:
        shallow = git_output(top, "rev-parse", "--is-shallow-repository").strip() == "true"
        remedy = f"Fetch it: git -C {top} fetch {'--unshallow' if shallow else '--all'}"
        raise NotFound(f"The repository {top} has no commit `{name}`", remedy)
    return found


def _changed(top: Path) -> list[str]:
    """Return the paths that differ from HEAD, untracked ones included; a repository inside ends with `/`."""
    listing = git_output(top, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    paths = sorted(line[3:] for line in listing.split("\0") if line)
    for path in paths:
        if not path.isascii() and path != path.encode(errors="replace").decode():
            raise InvalidConfig(f"The name of {path!r} in {top} is not UTF-8", "Rename the file")
    return paths


def _clone(top: Path, commit: str, to: Path) -> None:
    # `--shared` borrows the objects and writes nothing to the user's repository, unlike a worktree.
    git_output(top, "clone", "--quiet", "--shared", "--no-checkout", str(top), str(to))
    git_output(to, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)


def commits_between(project: Path, before: str, after: str) -> list[str]:
    """Return the subjects of the commits after `before` up to `after`, oldest first; none where git cannot say."""
    top = top_of(project) if project.is_dir() else None
    if top is None or not (before and after):
        return []
    run = run_git(top, "log", "--reverse", "--format=%s", "--end-of-options", f"{before}..{after}")
    return readable(run.stdout).split("\n")[:-1] if run.returncode == 0 else []


def _files_without_git(project: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(project):
        folders[:] = [name for name in folders if name not in NOT_CODE and not Path(place, name, "pyvenv.cfg").exists()]
        links = [name for name in folders if Path(place, name).is_symlink()]
        found += [Path(place, name).relative_to(project).as_posix() for name in (*files, *links)]
    return sorted(found)


def _content(path: Path) -> str:
    """Return what stands at a path, in a word: a digest, `deleted`, `link to …`."""
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if not path.exists():
        return "deleted"
    if not path.is_file():
        return "a repository inside" if path.is_dir() else "no plain file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path, path: str) -> str:
    """Lay one changed path over the clone and return what stands there now."""
    # Never through a link, which may lead out of the clone.
    if _is_behind_link(source, path) or _is_behind_link(target, path):
        return "deleted"
    source, target = source / path, target / path
    if target.is_symlink() or target.is_file():
        target.unlink()
    if source.is_symlink() or source.is_file():
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        return _content(target)
    return _content(source)


def readable(text: str) -> str:
    """Return what git said as text that can be written anywhere; what is no UTF-8 is shown as U+FFFD."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _is_behind_link(root: Path, path: str) -> bool:
    """Tell whether a folder of the path has become a link: nothing of the path is in the repository then."""
    return any((root / folder).is_symlink() for folder in list(PurePosixPath(path).parents)[:-1])


def _check_no_submodules(project: Path, code: Code, commit: str | None) -> None:
    """Raise InvalidConfig where a submodule lies in the project: a copy would have an empty folder there."""
    top = top_of(project)
    if top is None:
        return
    listed = ["ls-tree", "-r", "-z", code.commit] if commit is not None else ["ls-files", "--stage", "-z"]
    listing = git_output(top, "--literal-pathspecs", *listed, "--", code.subfolder or ".")
    found = [line.partition("\t")[2] for line in listing.split("\0") if line.startswith("160000 ")]
    if found:
        raise InvalidConfig(
            f"`{readable(found[0])}` is a git submodule, whose files are in no commit of {top}: the copy that is "
            "trained from would lack them",
            "Put the files themselves there (`git subtree add`), or take them in as a package",
        )


def git_output(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run git and return its output, deaf to variables that point it elsewhere and to hooks.

    What is no UTF-8 in it is kept as surrogates, because files have to be found by it; `readable` makes text of it.

    Raises:
        InvalidConfig: git ended with an error and `check` is set.
    """
    run = run_git(folder, *arguments)
    if check and run.returncode:
        told = readable(run.stderr).strip().split("\n") if run.stderr.strip() else [f"exit code {run.returncode}"]
        raise InvalidConfig(f"git cannot read {folder}: {told[0].removeprefix('fatal: ')}", _remedy(run.stderr, folder))
    return run.stdout


def run_git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run git and return how it ended. Raises Unavailable where it does not: a remote that is silent, say."""
    unset = [part for name in _ELSEWHERE for part in ("-u", name)]
    settings = ["GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"]
    try:
        return subprocess.run(
            ["env", *unset, *settings, "git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"git did not end within {_GIT_TIMEOUT_S} s in {folder}.",
            "A remote may be silent, or a disk slow; run the same git command by hand to see more.",
        ) from error


def _remedy(stderr: str, folder: Path) -> str:
    if "dubious ownership" in stderr:
        return f"It belongs to another user. If you trust it: git config --global --add safe.directory {folder}"
    return "Run the same git command by hand to see more"
