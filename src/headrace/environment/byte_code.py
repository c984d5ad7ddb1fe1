"""Byte code, made at first import and kept in the state folder: a new environment starts with what it shares.

inherit_byte_code(settings, folder)   # `folder` was just installed; another environment has the same files
"""

import filecmp
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from headrace.config.settings import Settings

#: So many of the environments that were used last are looked at.
ELDERS = 3


def byte_code_folder(settings: Settings, environment: Path) -> Path:
    """Return where Python keeps the byte code of an environment's files."""
    return settings.byte_code / environment.relative_to(environment.anchor)


def inherit_byte_code(settings: Settings, environment: Path, elders: list[Path]) -> int:
    """Link the byte code of those files that another environment has alike, and return how many.

    Python compares time and size of a source before it uses byte code. That is not enough here, as files of two
    releases of a package may agree in both; so the contents are compared too.

    Args:
        elders: environments with byte code, the most useful first.
    """
    linked = 0
    for elder in elders[:ELDERS]:
        kept = byte_code_folder(settings, elder)
        for compiled, source in _compiled(kept):
            mine = byte_code_folder(settings, environment) / compiled.relative_to(kept)
            # What another process removes meanwhile, or a disk that cannot link, costs a compilation and no more.
            with suppress(OSError):
                if not mine.exists() and _is_same(elder / source, environment / source):
                    mine.parent.mkdir(parents=True, exist_ok=True)
                    os.link(compiled, mine)
                    linked += 1
    return linked


def _compiled(kept: Path) -> Iterator[tuple[Path, Path]]:
    """Yield byte code files, each with its source's path within the environment."""
    for compiled in kept.rglob("*.pyc"):
        name = compiled.name.split(".")[0]
        yield compiled, compiled.relative_to(kept).with_name(f"{name}.py")


def _is_same(one: Path, other: Path) -> bool:
    found = one.stat(), other.stat()
    if os.path.samestat(*found):
        return True
    same_at_sight = len({(int(stat.st_mtime), stat.st_size) for stat in found}) == 1
    return same_at_sight and filecmp.cmp(one, other, shallow=False)
