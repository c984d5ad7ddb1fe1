"""Make docs/demo.svg, the picture in the README, from what a real run printed.

FORCE_COLOR=1 COLUMNS=130 headrace demo > told.txt; .venv/bin/python scripts/picture.py told.txt
"""

import argparse
import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 130


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("told", type=Path)
    told = parser.parse_args().told.read_text(encoding="utf-8")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(settled(told))))
    console.save_svg(str(ROOT / "docs" / "demo.svg"), title="make demo")


def settled(told: str) -> list[str]:
    """Return the lines as they stay on the screen: without the spinner's frames and cursor movements."""
    lines = []
    for line in told.splitlines():
        last = re.split(r"\x1b\[2K|\r", line)[-1]
        plain = re.sub(r"\x1b\[\?25[lh]|\x1b\[1A", "", last)
        if not any(frame in plain for frame in "\u280b\u2819\u2839\u2838\u283c\u2834\u2826\u2827\u2807\u280f"):
            lines.append(plain.replace(str(Path.home()), "~"))
    return lines


if __name__ == "__main__":
    main()
