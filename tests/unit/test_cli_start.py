"""The command line starts light: its help loads none of the heavy libraries."""

import subprocess
import sys

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
