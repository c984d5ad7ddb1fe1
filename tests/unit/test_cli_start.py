"""The command line starts light: its help loads none of the heavy libraries."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from headrace.cli import main
from headrace.cli.sections import SECTIONS
from headrace.errors import HeadraceError

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


def leaves(group: Any, title: str = "headrace") -> dict[str, Any]:
    """Return every command that does something, by its whole name."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        whole = f"{title} {name}"
        found |= leaves(command, whole) if hasattr(command, "commands") else {whole: command}
    return found


def test_every_command_answers_in_json_and_every_option_is_explained() -> None:
    commands = leaves(get_command(main.app))
    silent = {name for name, one in commands.items() if not any("--json" in each.opts for each in one.params)}
    assert silent == {"headrace worker", "headrace mlflow"}, "these two go on until Ctrl-C"
    assert [(name, each.name) for name, one in commands.items() for each in one.params if not each.help] == []


def test_every_exit_code_is_documented() -> None:
    documented = re.findall(r"^\| (\d+) \|", (Path(__file__).parents[2] / "docs" / "howto-upkeep.md").read_text(), re.M)
    classes = [HeadraceError, *HeadraceError.__subclasses__()]
    assert {int(code) for code in documented} >= {one.exit_code for one in classes}


def test_every_command_shows_an_example_of_itself() -> None:
    commands = leaves(get_command(main.app))
    wrong = [name for name, one in commands.items() if not re.search(rf"Examples?: [^\n]*{name}", one.help or "")]
    assert wrong == []


def test_examples_stand_on_lines_of_their_own() -> None:
    shown = CliRunner().invoke(main.app, ["run", "--help"]).stdout.splitlines()
    assert "            headrace run . --version 3" in shown
