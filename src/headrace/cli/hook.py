"""A git hook that says that there is a commit to look at; without it headrace looks a few seconds later."""

import shlex
from pathlib import Path

from headrace.config.settings import Settings
from headrace.errors import Conflict, InvalidInput
from headrace.provenance.code import git_output, top_of

NAMES = ("post-commit", "post-merge", "post-rewrite")
MARK = "# headrace: "
SCRIPT = """\
#!/bin/sh
{mark}look at the commits of {component} now. It never holds up git; delete this file to be rid of it.
[ -d {folder} ] && : > {folder}/hint
exit 0
"""


def install(folder: Path, component: str, settings: Settings) -> list[Path]:
    """Write the hooks into the repository of a component's folder; a repeat writes the same.

    Raises:
        InvalidInput: the folder is not under git.
        Conflict: there is a hook of somebody else's; none is written.
    """
    top = top_of(folder)
    if top is None:
        raise InvalidInput(f"{folder} is not under git, so it has no hooks.", "git init")
    place = git_output(top, "config", "--local", "--get", "core.hooksPath", check=False).strip()
    common = Path(git_output(top, "rev-parse", "--path-format=absolute", "--git-common-dir").strip())
    hooks = (top / place) if place else common / "hooks"
    watched = shlex.quote(str(settings.home / "triggers" / component))
    text = SCRIPT.format(mark=MARK, component=component, folder=watched)
    paths = [hooks / name for name in NAMES]
    for path in paths:
        if path.exists() and MARK not in path.read_text(errors="replace"):
            raise Conflict(
                f"{path} is a hook of somebody else's.", f"Add to it: [ -d {watched} ] && : > {watched}/hint"
            )
    hooks.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.write_text(text)
        path.chmod(0o755)
    return paths
