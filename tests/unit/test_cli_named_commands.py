"""Every command that an error, a guide or a help text tells people to type exists."""

import re
from pathlib import Path
from typing import Any

import typer

from headrace.cli.main import app

ROOT = Path(__file__).parents[2]
PLACES = [
    ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md"),
    *(ROOT / "src").rglob("*.py"),
]  # fmt: skip
#: `headrace` behind a backtick or first on a line, and the words that may name a command.
NAMED = re.compile(r"(?:`|^ {0,4}|: )headrace ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", re.MULTILINE)


def known(group: Any, before: str = "") -> set[str]:
    """Return the names of all commands, those of groups with the group's name first."""
    found: set[str] = set()
    for name, command in group.commands.items():
        found.add(before + name)
        if hasattr(command, "commands"):
            found |= known(command, f"{before}{name} ")
    return found


def test_named_commands_exist() -> None:
    commands = known(typer.main.get_command(app))
    groups = {one.split()[0] for one in commands if " " in one}
    wrong = set()
    count = 0
    for path in PLACES:
        text = path.read_text()
        is_code = path.suffix == ".py"
        for match in NAMED.finditer(text):
            if is_code and not match[0].startswith("`"):
                continue
            first, _, second = match[1].partition(" ")
            wanted = match[1] if first in groups and second else first
            count += 1
            if wanted not in commands:
                wrong.add(f"{path.relative_to(ROOT)}: headrace {match[1]}")
    assert count > 100
    assert not wrong
