"""Every variable that headrace reads is explained on one page, and nothing is explained that is not read."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\bHEADRACE_[A-Z0-9_]+\b")
#: What headrace's processes tell each other.
INTERNAL = {"HEADRACE_SERVE", "HEADRACE_HEAVY_THREADS", "HEADRACE_TORCHSERVE_MAP", "HEADRACE_TORCHSERVE_FALLBACK"}


def test_every_variable_is_explained_and_nothing_else_is() -> None:
    read = {name for path in (ROOT / "src").rglob("*.py") for name in NAME.findall(path.read_text())}
    # Both come as an address or as a file that holds it.
    read |= {f"{name}_FILE" for name in read if name.endswith("DATABASE_URL")}
    assert set(NAME.findall((ROOT / "docs" / "variables.md").read_text())) == read - INTERNAL
