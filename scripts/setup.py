"""Make headrace's own virtual environment; run by `make setup` with nothing but the standard library.

pip's settings (find-links, extra indexes) are handed to uv, which does not read them by itself.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pip_settings(python: Path) -> dict[str, list[str]]:
    """Return the package sources that pip is configured with: `find-links`, `index-url`, `extra-index-url`."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings: dict[str, list[str]] = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'\"").split()
    return settings


def uv_options(settings: dict[str, list[str]]) -> list[str]:
    """Return pip's package sources as options of `uv pip`."""
    options = [f"--index-url={url}" for url in settings.get("index-url", [])]
    options += [f"--extra-index-url={url}" for url in settings.get("extra-index-url", []) if reachable(url)]
    return options + [f"--find-links={place}" for place in settings.get("find-links", [])]


def reachable(url: str) -> bool:
    """Tell whether an index is there; uv stops at a missing local folder, pip passes it over."""
    return not url.startswith("file://") or Path(url.removeprefix("file://")).is_dir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path)
    folder = (ROOT / parser.parse_args().venv).absolute()
    python = folder / "bin" / "python"
    if sys.version_info < (3, 11):  # noqa: UP036 - this script is run by whatever python3 is
        sys.exit(f"headrace needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.11")
    if not python.exists():
        print(f"making {folder} (Python {sys.version.split()[0]}; downloads about 400 MB once)", flush=True)
        venv.create(folder, with_pip=True, clear=True)
    environment = {**os.environ, "VIRTUAL_ENV": str(folder)}
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check",
         "--constraint", ROOT / "constraints.txt", "uv"],
        check=True,
    )  # fmt: skip
    subprocess.run(
        [folder / "bin" / "uv", "pip", "install", "--quiet", "--python", python, "--index-strategy=unsafe-best-match",
         *uv_options(pip_settings(python)), "--constraint", ROOT / "constraints.txt",
         "--editable", ROOT, "--group", f"{ROOT / 'pyproject.toml'}:dev"],
        check=True, env=environment,
    )  # fmt: skip
    (folder / ".ready").write_text(json.dumps({"python": sys.version}))


if __name__ == "__main__":
    main()
