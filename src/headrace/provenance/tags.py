"""Release tags in the user's repository, in both directions.

    write_tag(project, tag, commit) -> str       # an annotated tag NAME/v3; a note where it was not written
    read_tags(project, component) -> list[ReleaseTag]

A tag names the baseline and anchors the head of the component's ledger chain outside the ledger. Nothing but the tag's
ref is written: no index, no working tree, no hook.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from headrace.provenance.code import git_output, run_git, top_of

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
    return run.stderr.strip().partition("\n")[0] if run.returncode else ""


def read_tags(project: Path, component: str) -> list[ReleaseTag]:
    """Return the release tags of a component, lowest version first; those that people pushed among them."""
    top = top_of(project)
    if top is None:
        return []
    form = "%(refname:strip=2)%00%(objecttype)%00%(*objectname)%00%(objectname)%00%(contents)%01"
    listing = git_output(top, "for-each-ref", f"--format={form}", f"refs/tags/{component}/")
    found = [_parse(line.strip("\n"), component) for line in listing.split("\x01") if line.strip()]
    return sorted((tag for tag in found if tag), key=lambda tag: tag.version)


def _parse(line: str, component: str) -> ReleaseTag | None:
    name, kind, peeled, own, contents = line.split("\x00")
    number = re.fullmatch(rf"{re.escape(component)}/v(\d+)", name)
    if number is None:
        return None
    said = dict(re.findall(r"^(baseline|ledger|actor): (.+)$", contents, re.MULTILINE)) if kind == "tag" else {}
    return ReleaseTag(component, int(number[1]), target=peeled or own, **said)
