"""Release tags in the user's repository, in both directions.

    write_tag(project, tag, commit) -> str       # an annotated tag NAME/v3; a note where it was not written
    read_tags(project, component) -> list[ReleaseTag]

A tag names the baseline and anchors the head of the component's ledger chain outside the ledger. Nothing but the tag's
ref is written: no index, no working tree, no hook.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from headrace.provenance.code import git_output, readable, run_git, top_of

MOST_VERSION = 2**31 - 1

_MESSAGE = (
    "{component} version {version} serves in production\n\nbaseline: {baseline}\nledger: {ledger}\nactor: {actor}\n"
)


@dataclass(frozen=True, slots=True)
class ReleaseTag:
    """One release, as a git tag tells it.

    Attributes:
        baseline: the digest that the tag's message names; empty for a tag that somebody made by hand.
        ledger: the head of the component's chain when the tag was written; empty likewise.
        target: the commit that the tag points at.
    """

    component: str
    version: int
    baseline: str = ""
    ledger: str = ""
    actor: str = ""
    target: str = ""

    @property
    def name(self) -> str:
        return f"{self.component}/v{self.version}"


def write_tag(project: Path, tag: ReleaseTag) -> str:
    """Write an annotated tag; a repeat changes nothing. Returns why it could not be written, or an empty text."""
    top = top_of(project)
    if top is None or not tag.target:
        return f"{project} is not under git, so there is no tag {tag.name}"
    there = {known.name: known for known in read_tags(project, tag.component)}.get(tag.name)
    if there is not None:
        same = there.baseline == tag.baseline
        return "" if same else f"{top} has another tag {tag.name} (baseline {there.baseline[:12] or 'not named'})"
    fields = ("component", "version", "baseline", "ledger", "actor")
    message = _MESSAGE.format(**{name: getattr(tag, name) for name in fields})
    identity = ("-c", "user.name=headrace", "-c", "user.email=headrace@localhost", "-c", "tag.gpgSign=false")
    run = run_git(top, *identity, "tag", "--annotate", "--message", message, tag.name, tag.target)
    return readable(run.stderr).strip().partition("\n")[0] if run.returncode else ""


def read_tags(project: Path, component: str) -> list[ReleaseTag]:
    """Return the release tags of a component, lowest version first; those that people pushed among them."""
    top = top_of(project)
    if top is None:
        return []
    # NUL is the one character that git leaves in no message: it ends one there.
    form = "%(refname:strip=2)%00%(objecttype)%00%(*objectname)%00%(objectname)%00%(contents)%00"
    fields = git_output(top, "for-each-ref", f"--format={form}", f"refs/tags/{component}/").split("\0")
    found = [_parse(component, *row) for row in zip(*[iter(fields)] * 5, strict=False)]
    return sorted((tag for tag in found if tag), key=lambda tag: tag.version)


def version_in(name: str, component: str) -> int | None:
    """Return the version that a tag releases; None for a tag that is no release tag of the component."""
    number = re.fullmatch(rf"{re.escape(component)}/v([1-9][0-9]{{0,9}})", name)
    return int(number[1]) if number and int(number[1]) <= MOST_VERSION else None


def _parse(component: str, name: str, kind: str, peeled: str, own: str, contents: str) -> ReleaseTag | None:
    version = version_in(name.lstrip("\n"), component)
    if version is None:
        return None
    said = re.findall(r"^(baseline|ledger|actor): (.+)$", readable(contents), re.MULTILINE) if kind == "tag" else []
    return ReleaseTag(component, version, target=peeled or own, **dict(said))
