"""The command line starts light: its help loads none of the heavy libraries."""

import re
import subprocess
import sys
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from headrace.cli import main
from headrace.cli.sections import SECTIONS

HEAVY = {"torch", "mlflow", "dbos", "pandas", "numpy", "pyarrow", "sqlalchemy", "pydantic", "httpx", "duckdb"}
PROBE = """
import sys
from headrace.cli import main
sys.argv = ["headrace", "--help"]
try:
    main.run_command()
except SystemExit:
    pass
print(*sys.modules, sep=",", file=sys.stderr)
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert "rollback" in done.stdout
    assert HEAVY & {name.partition(".")[0] for name in done.stderr.strip().split(",")} == set()


def test_an_unknown_command_is_named_and_ends_with_2() -> None:
    probe = "import sys; from headrace.cli import main; sys.argv = ['headrace', 'promot']; main.run_command()"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "promot" in done.stderr


def test_every_command_stands_under_one_heading_of_the_help() -> None:
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(get_command(main.app).commands)  # type: ignore[attr-defined]


def cut(group: Any, title: str = "headrace") -> list[str]:
    """Return the commands whose line in their group's list ends in the middle of a sentence, at 80 columns."""
    width = 78 - 6 - max(map(len, group.commands))
    found = []
    for name, command in group.commands.items():
        if command.get_short_help_str(width).endswith("..."):
            found.append(f"{title} {name}")
        if hasattr(command, "commands"):
            found += cut(command, f"{title} {name}")
    return found


def test_each_list_of_commands_has_whole_sentences() -> None:
    assert cut(get_command(main.app)) == []


def leaves(group: Any, title: str = "headrace") -> list[tuple[str, str]]:
    """Return every command that does something, with its help text."""
    found = []
    for name, command in group.commands.items():
        below = hasattr(command, "commands")
        found += leaves(command, f"{title} {name}") if below else [(f"{title} {name}", command.help or "")]
    return found


def test_every_command_shows_an_example_of_itself() -> None:
    wrong = [name for name, text in leaves(get_command(main.app)) if not re.search(rf"Examples?: [^\n]*{name}", text)]
    assert wrong == []


def test_examples_stand_on_lines_of_their_own() -> None:
    shown = CliRunner().invoke(main.app, ["run", "--help"]).stdout.splitlines()
    assert "            headrace run . --version 3" in shown
