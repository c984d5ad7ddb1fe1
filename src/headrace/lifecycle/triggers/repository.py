"""Git as a source of triggers: a folder's own repository, or a copy of a remote one that headrace keeps and fetches.

The user's own checkout is only ever read.
"""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import InvalidConfig, NotFound, Unavailable
from headrace.lifecycle.rooms import Rooms
from headrace.lifecycle.triggers.base import Watched
from headrace.provenance.code import git_output, readable, run_git, top_of
from headrace.provenance.tags import version_in


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository that is looked at.

    Attributes:
        top: its top folder here.
        branches: where its branches are found.
        subfolder: where the component lies in it; empty at its top.
        is_copy: headrace keeps it.
    """

    top: Path
    branches: str
    subfolder: str
    is_copy: bool

    @property
    def folder(self) -> Path:
        """The component's folder in it."""
        return self.top / self.subfolder

    def head(self, branch: str) -> str:
        """Return the full SHA of a branch's newest commit.

        Raises:
            NotFound: there is no such branch; the message names those that are there.
        """
        found = git_output(
            self.top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.branches}/{branch}^{{commit}}",
            check=False,
        ).strip()  # fmt: skip
        if found:
            return found
        listing = readable(git_output(self.top, "for-each-ref", "--format=%(refname)", self.branches))
        names = [line.removeprefix(f"{self.branches}/") for line in listing.split("\n")]
        known = ", ".join(sorted(name for name in names if name not in ("", "HEAD"))) or "none"
        raise NotFound(f"{self.top} has no branch `{branch}` (it has: {known}).", "Correct `triggers.commit.branch`.")

    def is_changed(self, before: str, after: str) -> bool:
        """Tell whether the component's folder differs between two commits; it does where git cannot say."""
        run = run_git(self.top, "diff", "--quiet", before, after, "--", self.subfolder or ".")
        return run.returncode != 0

    def follows(self, before: str, after: str) -> bool:
        """Tell whether `after` was built on `before`."""
        return run_git(self.top, "merge-base", "--is-ancestor", before, after).returncode == 0

    def told(self, commit: str) -> tuple[str, str]:
        """Return a commit's author and subject."""
        said = readable(git_output(self.top, "log", "-1", "--format=%an%x00%s", commit))
        author, _, subject = said.strip().partition("\0")
        return author, subject

    def tags(self, component: str) -> dict[str, tuple[str, str]]:
        """Return the component's release tags: name to the tag's own SHA and who made it."""
        form = "%(refname:strip=2)%00%(objectname)%00%(taggername)"
        listing = readable(git_output(self.top, "for-each-ref", f"--format={form}", f"refs/tags/{component}/"))
        rows = [line.split("\0") for line in listing.split("\n") if line.count("\0") == 2]
        return {name: (sha, tagger) for name, sha, tagger in rows if version_in(name, component) is not None}


def repository_of(rooms: Rooms, watched: Watched, remote: str, branch: str = "") -> Repository:
    """Return the repository to look at, freshly fetched where it is a remote one.

    Raises:
        InvalidConfig: the folder is not under git.
        Unavailable: the remote does not answer.
    """
    top = top_of(watched.folder)
    if top is None:
        raise InvalidConfig(f"{watched.folder} is not under git, so there are no commits to watch.", "git init")
    subfolder = watched.folder.resolve().relative_to(top).as_posix()
    subfolder = "" if subfolder == "." else subfolder
    if not remote:
        return Repository(top, "refs/heads", subfolder, is_copy=False)
    address = git_output(top, "remote", "get-url", remote, check=False).strip() or remote
    if "/" not in address and ":" not in address:
        raise InvalidConfig(f"{top} has no remote `{remote}`.", f"git -C {top} remote -v")
    copy = rooms.settings.home / "triggers" / watched.component / "repository"
    found = Repository(copy, "refs/remotes/origin", subfolder, is_copy=True)
    with _alone(copy):
        _fetch(address, copy, top)
        if branch:
            _check_out(copy, found.head(branch))
    return found


@contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """Let one at a time change a copy, and free what a crash left locked."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o700)  # Git keeps the remote's address in it, and that may hold a password.
    with copy.with_name(f"{copy.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in [*(copy / ".git").glob("*.lock"), *(copy / ".git" / "refs").rglob("*.lock")]:
            left.unlink(missing_ok=True)
        yield


def _check_out(copy: Path, commit: str) -> None:
    """Put a commit's files there: the component's folder has to be there to be copied from; nobody works in it."""
    if git_output(copy, "rev-parse", "--verify", "--quiet", "HEAD", check=False).strip() != commit:
        git_output(copy, "checkout", "--quiet", "--detach", "--force", commit)


def _fetch(address: str, copy: Path, top: Path) -> None:
    if not (copy / ".git").exists():
        copy.mkdir(parents=True, exist_ok=True)
        git_output(copy, "init", "--quiet")
        git_output(copy, "remote", "add", "origin", address)
    git_output(copy, "remote", "set-url", "origin", str((top / address).resolve()) if _is_path(address) else address)
    run = run_git(
        copy, "fetch", "--quiet", "--prune", "--no-tags", "origin", "+refs/heads/*:refs/remotes/origin/*",
        "+refs/tags/*:refs/tags/*",
    )  # fmt: skip
    if run.returncode:
        told = (readable(run.stderr).strip() or "no answer").partition("\n")[0].removeprefix("fatal: ")
        fact = re.sub(r"(?<=://)[^/@\s]*@", "", f"{address} cannot be fetched: {told}")
        raise Unavailable(fact, "Try it by hand: git ls-remote")


def _is_path(address: str) -> bool:
    return "://" not in address and ":" not in address.partition("/")[0]
