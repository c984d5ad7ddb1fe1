"""The story of `headrace demo`, each part live, each claim checked.

It works in a home of its own beside the user's, with a copy of examples/digits: nothing of the user's is touched.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from types import FrameType

from headrace import wiring
from headrace.cli import client as control
from headrace.cli.demo.claims import Book, Chapter, examples_folder
from headrace.cli.demo.traffic import Answer, Images, Pace, Users, accuracy, read_images
from headrace.cli.services import take_down
from headrace.cli.terminal import Steps, console, print_json
from headrace.config.settings import Settings, read_settings
from headrace.deploy.base import Target
from headrace.errors import ModelRefused, NotFound, Unavailable
from headrace.ledger.base import Action, Ledger
from headrace.lifecycle.events import Event, Mark
from headrace.lifecycle.evidence.doors import verify_version
from headrace.lifecycle.versions import recall
from headrace.types import Json, Stage

COMPONENT = "digits"
SHIFT_EVERY = 3
TRAFFIC_ROWS = 120
ALARM_WAIT_S = 60.0
#: A rollback takes less than this or, where the machine is too busy for that, less than so many ordinary answers.
ROLLBACK_S, USUAL_ANSWERS = 1.0, 20


def tell(*, keep: bool, as_json: bool) -> None:
    """Tell the story from a fresh start; ends with exit code 1 where a claim is not true."""
    settings = demo_settings()
    out = console(as_json=as_json)
    book = Book(out)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        fresh_start(settings)
        story = Story(settings, book, Steps(out))
        story.tell()
        if keep:
            book.places["MLflow"] = str(story.client.ask("POST", "/api/up")["mlflow"])
        book.show_summary()
        if as_json:
            print_json(book.as_json())
        if keep:
            out.print("\nEverything goes on running until Ctrl-C.")
            _wait()
    finally:
        with out.status("taking everything down …"):
            take_down(settings)
    if not book.is_true:
        sys.exit(1)


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def demo_settings() -> Settings:
    """Return settings with a home of the demo's own and headrace's own store, whatever MLFLOW_TRACKING_URI says."""
    settings = read_settings()
    home = settings.state / "demo"
    variables = {name: value for name, value in settings.variables.items() if name != "MLFLOW_TRACKING_URI"}
    variables |= {"HEADRACE_HOME": str(home), "HEADRACE_STATE": str(settings.state)}
    return replace(settings, home=home, tracking_uri=None, variables=variables)


def fresh_start(settings: Settings) -> None:
    """Stop what an earlier demo left and remove its home; environments and keys stay."""
    if settings.home.exists():
        take_down(settings)
        for folder, _, _ in os.walk(settings.home):
            # Verified copies are read-only on purpose.
            Path(folder).chmod(0o700)
        shutil.rmtree(settings.home)
    settings.prepare()


@dataclass(slots=True)
class Story:
    """The chapters, in order, with what later ones need from earlier ones."""

    settings: Settings
    book: Book
    steps: Steps
    project: Path = Path()
    _client: control.Client | None = field(default=None)
    _users: Users | None = field(default=None)
    _retrain_flow: str = ""

    def tell(self) -> None:
        """Tell all of it."""
        chapters: list[tuple[str, Callable[[], None]]] = [
            ("set up", self.set_up),
            ("release v1", self.release),
            ("serve", self.serve),
            ("the world changes", self.drift),
            ("retrain and release v2", self.retrain),
            ("roll back and forward", self.roll_back),
            ("prove it", self.prove),
        ]
        for title, chapter in chapters:
            self.book.out.print(f"\n[bold]{title}[/bold]")
            with self.timed(title):
                chapter()
        if self._users is not None:
            self.book.requests = {"sent": self._users.sent, "failed": self._users.failed}

    @contextmanager
    def timed(self, title: str) -> Iterator[None]:
        """Time a chapter."""
        began = time.monotonic()
        chapter = Chapter(title)
        self.book.chapters.append(chapter)
        try:
            yield
        finally:
            chapter.seconds = time.monotonic() - began
            self.steps.close()

    @property
    def client(self) -> control.Client:
        if self._client is None:
            raise Unavailable("The demo's control process is not up yet.")
        return self._client

    @property
    def users(self) -> Users:
        if self._users is None:
            raise Unavailable("The demo's endpoint is not up yet.")
        return self._users

    def images(self, name: str) -> Images:
        """Return one of the example's image files."""
        return read_images(self.project / "data" / f"{name}.parquet")

    def follow(self, flow: str, watch: Callable[[Event], None] | None = None) -> Event:
        """Show a flow and what goes on from it; return the last end."""
        for event in self.client.events(flow):
            if watch is not None:
                watch(event)
            if event.mark is Mark.ENDED:
                following = str(event.numbers.get("next_flow") or "")
                return self.follow(following, watch) if following else event
            self.steps.show(event)
        raise NotFound(f"Flow {flow} has no end.")

    # The chapters.

    def set_up(self) -> None:
        """Copy the example, commit it, start control."""
        source = examples_folder()
        if source is None:
            raise NotFound("The examples are not here.", "Run the demo in a clone: git clone …, make demo")
        self.project = self.settings.home / "project"
        shutil.copytree(source / "digits", self.project, ignore=shutil.ignore_patterns("data", "__pycache__", "mlruns"))
        git(self.project, "init", "--quiet", "--initial-branch=main")
        git(self.project, "add", "--all")
        git(self.project, "commit", "--quiet", "--message", "digits: the example as it ships")
        self._client = control.ensure(self.settings)
        self.book.out.print(
            f"  a copy of examples/digits in {self.project}, committed; control at {self.client.url}", markup=False
        )

    def release(self) -> None:
        """Train v1 and bring it to production."""
        ended = self.run("first release")
        entries = {entry.action: entry for entry in self.ledger.history(COMPONENT)}
        registered, gated = entries.get(Action.REGISTERED), entries.get(Action.GATED)
        run_id = str(registered.evidence.get("run")) if registered else ""
        run = wiring.registry(self.settings).run(run_id)
        claim = self.book.claim
        claim(
            "trained", "v1 was trained by its MLflow Project and tracked: "
            f"{len(run.parameters)} parameters, {len(run.metrics)} metrics",
            run.state.value == "FINISHED" and bool(run.parameters) and bool(run.metrics) and bool(run.models),
            run=run_id, parameters=dict(run.parameters), metrics=dict(run.metrics),
        )  # fmt: skip
        claim(
            "gated", f"it passed its gate: {gated.reason if gated else 'no entry'}",
            gated is not None and gated.evidence.get("verdict") == "pass", **(dict(gated.evidence) if gated else {}),
        )  # fmt: skip
        claim(
            "accepted in dev", "dev served it, tested it over HTTP, and is gone again",
            Action.ACCEPTED in entries and self.target.status(COMPONENT, Stage.DEV) is None,
            findings=entries[Action.ACCEPTED].evidence.get("findings") if Action.ACCEPTED in entries else None,
        )  # fmt: skip
        serving = self.ledger.serving(COMPONENT, Stage.PRODUCTION)
        claim(
            "in production", "the ledger says that v1 is in production, with its baseline's digest",
            serving is not None and serving.version == 1 and bool(serving.baseline),
            outcome=dict(ended.numbers), baseline=serving.baseline if serving else None,
        )  # fmt: skip
        status = self.target.status(COMPONENT, Stage.PRODUCTION)
        if status is None:
            raise Unavailable("Nothing serves after the first release.", "Its steps above say why.")
        self._users = Users(status.endpoint.url)

    def run(self, reason: str) -> Event:
        """Start a candidate by hand and follow it."""
        answer = self.client.ask(
            "POST", "/api/run", folder=str(self.project), actor=self.settings.actor, reason=reason, key="demo"
        )
        return insist(self.follow(answer["flow"]))

    def serve(self) -> None:
        """Real images, logged; the truth later, joined; and the watch says nothing."""
        quiet = self.images("stream-quiet")
        answers = self.users.send(quiet)
        self.book.accuracy["before, as trained"] = accuracy(answers)
        self.users.tell_truth(answers)
        joined = self.wait_for(lambda: self.labelled() >= len(quiet), 10)
        self.book.claim(
            "served", f"{len(answers)} images answered over HTTP, each logged and joined with its actual",
            joined and len(answers) == len(quiet) and self.users.failed == 0,
            sent=len(quiet), answered=len(answers), labelled=self.labelled(), failures=list(self.users.failures[:3]),
        )  # fmt: skip
        judged = self.judged_window(0)
        self.book.claim(
            "quiet", f"the watch looked at them and was quiet: {judged.get('sentence')}",
            judged.get("consequence") == "none", window=judged,
        )  # fmt: skip

    def drift(self) -> None:
        """The scanner moves a third of the images by one pixel."""
        changed = self.images("stream-drifted").shifted(SHIFT_EVERY)
        self.book.out.print("  upstream, the scanner is bumped: every third image comes in shifted by one pixel")
        answers = self.users.send(changed)
        self.book.accuracy["during, scanner shifted"] = accuracy(answers)
        self.users.tell_truth(answers)
        judged = self.judged_window(1)
        signals = [dict_of(signal) for signal in list_of(judged.get("signals"))]
        fired = sorted({str(signal.get("name")) for signal in signals if signal.get("fired")})
        self.book.claim(
            "alarm", f"alarm: {judged.get('sentence')}",
            judged.get("consequence") == "retrain" and {"output drift", "labelled quality"} <= set(fired),
            fired=list(fired), window=judged,
        )  # fmt: skip
        self._retrain_flow = str(judged.get("next_flow") or "")

    def retrain(self) -> None:
        """The alarm's release, while traffic goes on."""
        stream = self.images("stream-after").shifted(SHIFT_EVERY)
        failed_before, sent_before = self.users.failed, self.users.sent
        pace = Pace(1.0)
        thread = self.users.keep_sending(stream.part(0, TRAFFIC_ROWS), pace)

        def hurry(event: Event) -> None:
            if event.step == "warm":
                pace.seconds = 0.02

        try:
            ended = self.follow(self._retrain_flow, hurry)
            time.sleep(0.5)
            insist(ended)
        finally:
            pace.is_over = True
            thread.join(timeout=15)
        serving = self.ledger.serving(COMPONENT, Stage.PRODUCTION)
        registered = next(e for e in self.ledger.history(COMPONENT) if e.action is Action.REGISTERED)
        self.book.claim(
            "retrained", "the alarm, not a person, started a release that is now in production as v2",
            serving is not None and serving.version == 2 and registered.actor.name == "monitor",
            actor=registered.actor.name, reason=registered.reason, outcome=dict(ended.numbers),
        )  # fmt: skip
        gated = next(e for e in self.ledger.history(COMPONENT) if e.action is Action.GATED)
        self.book.claim(
            "gated against the champion",
            "v2 was judged against v1 on the old holdout and on recent rows kept out of training",
            gated.evidence.get("champion") == 1
            and any("recent" in str(finding) for finding in list_of(gated.evidence.get("findings"))),
            **dict(gated.evidence),
        )  # fmt: skip
        sent, failed = self.users.sent - sent_before, self.users.failed - failed_before
        self.book.claim(
            "no failed request", f"{sent} requests were answered while v2 was made and promoted, {failed} failed",
            failed == 0 and sent > 0, sent=sent, failed=failed, failures=list(self.users.failures[:3]),
        )  # fmt: skip
        answers = self.users.send(stream.part(TRAFFIC_ROWS))
        self.book.accuracy["after, retrained"] = accuracy(answers)
        before = self.book.accuracy["during, scanner shifted"]
        self.book.claim(
            "recovered",
            f"accuracy recovered from {before:.3f} to {accuracy(answers):.3f} with the scanner still shifted",
            accuracy(answers) > before and {a.version for a in answers} == {2},
            during=before, after=accuracy(answers), rows=len(answers),
        )  # fmt: skip

    def roll_back(self) -> None:
        """Back to v1 and forward again."""
        (before,) = self.client.ask("GET", "/api/status")["components"]
        usual_s = self.usual_answer_s()
        back_s, answer = self.timed_rollback(1, "showing a rollback")
        self.book.claim(
            "rolled back", f"rollback: v1 was kept warm, and its first answer came after {back_s * 1000:.0f} ms",
            answer.version == 1 and 1 in before["warm"] and back_s < max(ROLLBACK_S, USUAL_ANSWERS * usual_s),
            seconds=back_s, usual_answer_seconds=usual_s, version=answer.version, warm=before["warm"],
        )  # fmt: skip
        forward_s, answer = self.timed_rollback(2, "and forward again")
        self.book.claim(
            "forward again", f"and v2 answers again after {forward_s * 1000:.0f} ms",
            answer.version == 2, seconds=forward_s, version=answer.version,
        )  # fmt: skip

    def usual_answer_s(self) -> float:
        """Return what an answer takes just now: the median of a few."""
        probe = self.images("stream-quiet").part(0, 1)
        times = []
        for _ in range(9):
            began = time.monotonic()
            self.users.send(probe)
            times.append(time.monotonic() - began)
        return median(times)

    def timed_rollback(self, to: int, reason: str) -> tuple[float, Answer]:
        """Roll back or forward and return the seconds to the first answer of the wanted version."""
        probe = self.images("stream-quiet").part(0, 1)
        began = time.monotonic()
        self.client.ask(
            "POST", "/api/rollback", component=COMPONENT, to=to, actor=self.settings.actor, reason=reason,
            key=f"demo-{to}",
        )  # fmt: skip
        while True:
            answer = self.users.send(probe)[0]
            if answer.version == to or time.monotonic() - began > 10:
                return time.monotonic() - began, answer

    def prove(self) -> None:
        """The ledger's chain, the baselines, and one flipped byte."""
        verified = self.ledger.verify(COMPONENT)
        moves = [e for e in self.ledger.history(COMPONENT) if e.stage is Stage.PRODUCTION]
        shown = [f"{e.action.value} v{e.version} by {e.actor}" for e in reversed(moves)]
        self.book.claim(
            "ledger", f"the ledger's chain of {verified.entries} entries is whole: {', '.join(shown)}",
            not verified.problem and [e.version for e in reversed(moves)] == [1, 2, 1, 2],
            head=verified.head, problem=verified.problem,
        )  # fmt: skip
        for version in (1, 2):
            problem = self.verify_version(version)
            self.book.claim(
                f"baseline of v{version}",
                f"baseline verify: v{version} is what was sealed",
                problem == "",
                problem=problem,
            )
        name, problem = self.flip_one_byte()
        self.book.claim(
            "tamper", f"one flipped byte in a copy is refused: {problem}", name in problem, file=name, refusal=problem
        )
        pixels = [int(value) for value in self.images("stream-quiet").pixels[0]]
        self.book.places = {
            "endpoint": f"curl {self.users.url}/invocations -H 'content-type: application/json' "
            f"-d '{json.dumps({'inputs': [pixels]}, separators=(',', ':'))}'",
            "ledger": f"HEADRACE_HOME={self.settings.home} headrace history {COMPONENT}",
            "all of it": f"HEADRACE_HOME={self.settings.home} headrace up   (production again, and MLflow's pages)",
        }

    def verify_version(self, version: int, model: Path | None = None) -> str:
        """Return what is wrong with a version, or nothing."""
        try:
            verify_version(wiring.rooms(self.settings), COMPONENT, version, model=model)
        except ModelRefused as error:
            return f"{error.fact} {error.remedy}".strip()
        return ""

    def flip_one_byte(self) -> tuple[str, str]:
        """Copy v2's model, flip one byte of its largest file, and return the file's name and the refusal."""
        copy = self.settings.home / "tampered"
        original = recall(wiring.rooms(self.settings), COMPONENT, 2).model
        shutil.copytree(original, copy)
        largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        largest.chmod(0o600)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        return largest.relative_to(copy).as_posix(), self.verify_version(2, model=copy)

    # What the chapters look at.

    @property
    def ledger(self) -> Ledger:
        return wiring.ledger(self.settings)

    @property
    def target(self) -> Target:
        return wiring.target(self.settings)

    def labelled(self) -> int:
        """Return how many predictions have their actuals."""
        return wiring.prediction_log(self.settings).counts(COMPONENT).labelled

    def judged_window(self, number: int) -> dict[str, Json]:
        """Wait for the watch's verdict on the n-th window and return it."""
        found: list[dict[str, Json]] = []

        def look() -> bool:
            found[:] = self.client.ask("GET", "/api/windows", component=COMPONENT)["windows"]
            return len(found) > number

        self.wait_for(look, ALARM_WAIT_S)
        return found[number] if len(found) > number else {"sentence": f"no verdict within {ALARM_WAIT_S:.0f} s"}

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; tell whether it came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.2)
        return False


def insist(ended: Event) -> Event:
    """Return a flow's end if it is a good one. Raises Unavailable with its first cause."""
    if ended.numbers.get("exit_code"):
        raise Unavailable(str(ended.numbers["fact"]), str(ended.numbers.get("remedy") or ""))
    return ended


def dict_of(value: object) -> dict[str, Json]:
    """Return a JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Json]:
    """Return a JSON list, or an empty one."""
    return value if isinstance(value, list) else []


def git(folder: Path, *command: str) -> None:
    """Run git in the demo's copy with an identity of its own."""
    identity = ["-c", "user.name=headrace demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True)
