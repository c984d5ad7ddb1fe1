"""The stand-ins of the chaos benchmark fit the flows that they are put into."""

import os
from pathlib import Path

from benchmarks.chaos_house import FORK, bare


def test_a_release_goes_through_the_stand_ins_to_production(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    variables = {**os.environ, "HEADRACE_STATE": str(tmp_path / "state"), "HEADRACE_HOME": str(tmp_path / "home")}
    variables.pop("HEADRACE_DATABASE_URL", None)
    mine, theirs = FORK.Pipe()
    # Forked, because the stand-ins take the place of the crafts for good.
    process = FORK.Process(target=bare, args=("bare", tmp_path, variables, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        _, state = mine.recv()
    except EOFError:
        state = (tmp_path / "bare.log").read_text()
    process.join()
    assert state == "promoted"
