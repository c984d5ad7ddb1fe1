"""Work runs once, survives its watcher, and is ended with everything that it started."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from headrace.errors import Cancelled
from headrace.training.supervise import Attendant, attend, stop

ENV = {"PATH": os.environ["PATH"]}


def shell(script: str, folder: Path, attendant: Attendant | None = None) -> tuple[int, list[str], str]:
    attendant = attendant or Attendant()
    outcome = attend(["/bin/sh", "-c", script], cwd=Path("/"), env=ENV, folder=folder / "work", attendant=attendant)
    return outcome.code, list(outcome.last_lines), outcome.ending


def test_the_exit_code_and_the_last_lines_are_kept(tmp_path: Path) -> None:
    heard: list[str] = []
    code, lines, ending = shell("echo one; echo two >&2; exit 3", tmp_path, Attendant(tell=heard.append))
    assert (code, lines, ending) == (3, ["one", "two"], "ended with exit code 3")
    assert heard == ["one", "two"]


def test_work_that_has_ended_is_not_done_again(tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/times"
    shell(script, tmp_path)
    shell(script, tmp_path)
    assert (tmp_path / "times").read_text() == "x\n"


def test_a_kill_is_named(tmp_path: Path) -> None:
    code, _, ending = shell("kill -9 $$", tmp_path)
    assert code == -signal.SIGKILL
    assert "SIGKILL" in ending
    assert "memory" in ending


@pytest.mark.parametrize(("mode", "code"), [(None, 127), (0o644, 126)])
def test_a_command_that_cannot_start_says_so(tmp_path: Path, mode: int | None, code: int) -> None:
    program = tmp_path / "program"
    if mode is not None:
        program.write_text("no program\n")
        program.chmod(mode)
    outcome = attend([program], cwd=tmp_path, env=ENV, folder=tmp_path / "work", attendant=Attendant())
    assert (outcome.code, outcome.ending) == (code, f"ended with exit code {code}")
    assert f"{program} cannot be started" in outcome.last_lines[-1]


def test_cancel_leaves_nothing_running(tmp_path: Path) -> None:
    started = threading.Event()
    nap = f"600.{os.getpid()}"
    script = f"sleep {nap} & setsid sleep {nap} & echo started; wait"
    attendant = Attendant(is_cancelled=started.is_set, tell=lambda line: started.set() if line == "started" else None)
    with pytest.raises(Cancelled):
        shell(script, tmp_path, attendant)
    assert [one.pid for one in psutil.process_iter(["cmdline"]) if nap in (one.info["cmdline"] or [])] == []


def test_a_watcher_that_is_killed_leaves_the_work_and_the_next_one_finds_it(tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/times; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo done"
    watcher = (
        "import sys; from pathlib import Path; from headrace.training.supervise import *\n"
        "attend(['/bin/sh', '-c', sys.argv[1]], cwd=Path('/'), env={'PATH': sys.argv[2]}, folder=Path(sys.argv[3]),"
        " attendant=Attendant())"
    )
    first = subprocess.Popen([sys.executable, "-c", watcher, script, os.environ["PATH"], str(tmp_path / "work")])
    try:
        _wait_for(tmp_path / "times")
    finally:
        first.kill()
        first.wait()
    heard: list[str] = []

    def tell(line: str) -> None:
        heard.append(line)

    threading.Timer(0.3, (tmp_path / "go").touch).start()
    code, lines, _ = shell(script, tmp_path, Attendant(tell=tell))
    assert (code, lines) == (0, ["done"])
    assert (tmp_path / "times").read_text() == "x\n"


def test_two_watchers_at_once_start_it_once(tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/times; sleep 0.5"
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(shell(script, tmp_path)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0]
    assert (tmp_path / "times").read_text() == "x\n"


def test_work_that_vanished_with_its_machine_is_started_again(tmp_path: Path) -> None:
    """The whole session is killed without a word while nobody watches."""
    script = f"echo x >> {tmp_path}/times; [ -e {tmp_path}/second ] || sleep 600"
    ready = threading.Event()
    watcher = threading.Thread(target=lambda: _swallow(script, tmp_path, ready))
    watcher.start()
    _wait_for(tmp_path / "times")
    child = psutil.Process(_pid(tmp_path))
    for process in [child, *child.children(recursive=True)]:
        process.kill()
    watcher.join()
    (tmp_path / "second").touch()
    assert shell(script, tmp_path)[0] == 0
    assert (tmp_path / "times").read_text() == "x\nx\n"


def test_stop_of_what_never_ran_is_no_error(tmp_path: Path) -> None:
    stop(tmp_path / "nothing")


def _swallow(script: str, folder: Path, ready: threading.Event) -> None:
    ready.set()
    code, _, ending = shell(script, folder)
    assert code == -signal.SIGKILL, ending


def _pid(folder: Path) -> int:
    return int(json.loads((folder / "work" / "pid.json").read_text())["pid"])


def _wait_for(path: Path) -> None:
    deadline = threading.Event()
    for _ in range(3600):
        if path.exists():
            return
        deadline.wait(0.05)
    raise AssertionError(f"{path} did not appear")
