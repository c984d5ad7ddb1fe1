"""Commands that move versions: run, promote, rollback, follow, stop."""

import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from headrace.cli import client as control
from headrace.cli.terminal import Steps, console, good, print_json, text_of
from headrace.config.settings import read_settings
from headrace.errors import Unavailable
from headrace.lifecycle.events import Event, Mark
from headrace.types import Json


def new_key() -> str:
    """Return a key that no other command has: the time, readable, and four random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def run(folder: Path, *, commit: str, version: int, reason: str, as_json: bool) -> None:
    """Start a candidate and follow it to its end, promotion included."""
    from headrace.config.parse import read_component

    component = read_component(folder.absolute())
    console(as_json=as_json).print(f"[bold]{component.component}[/bold]: {text_of(str(component.project_folder))}")
    _ask_and_follow(
        "/api/run", as_json=as_json, folder=str(folder.absolute()), reason=reason or "run by hand", key=new_key(),
        commit=commit, version=version,
    )  # fmt: skip


def promote(component: str, version: int, *, reason: str, as_json: bool) -> None:
    """Start a promotion and follow it."""
    _ask_and_follow(
        "/api/promote", as_json=as_json, component=component, version=version, reason=reason or "promoted by hand",
        key=new_key(),
    )  # fmt: skip


def approve(component: str, *, version: int | None, comment: str, as_json: bool) -> None:
    """Let a version that waits into production, and follow its promotion."""
    _ask_and_follow("/api/approve", as_json=as_json, component=component, version=version, comment=comment)


def _ask_and_follow(path: str, *, as_json: bool, **body: Json) -> None:
    settings = read_settings()
    client = control.ensure(settings)
    answer = client.ask("POST", path, timeout_s=120, actor=settings.actor, **body)
    # By this name it is found again when this window is closed: `headrace follow`.
    console(as_json=as_json).print(f"[dim]flow {answer['flow']}[/dim]")
    finish(client, answer["flow"], as_json=as_json, actor=settings.actor)


def reject(component: str, *, version: int | None, comment: str, as_json: bool) -> None:
    """Say that a version that waits will not go to production."""
    settings = read_settings()
    client = control.ensure(settings)
    answer = client.ask(
        "POST", "/api/reject", component=component, version=version, actor=settings.actor, comment=comment
    )
    if as_json:
        print_json(answer["entry"])
        return
    good(f"v{answer['entry']['version']} of {component} is rejected")


def rollback(component: str, *, to: int | None, reason: str, as_json: bool) -> None:
    """Go back at once."""
    settings = read_settings()
    client = control.ensure(settings)
    entry = client.ask(
        "POST", "/api/rollback", component=component, to=to, actor=settings.actor,
        reason=reason or "rolled back by hand", key=new_key(),
    )  # fmt: skip
    if as_json:
        print_json(entry)
        return
    good(f"{component}: v{entry['from_version']} → v{entry['version']} (entry {entry['sequence']})")


def follow(flow: str, *, as_json: bool) -> None:
    """Show a flow to its end."""
    finish(control.ensure(read_settings()), flow, as_json=as_json, actor="", can_stop=False)


def stop(flow: str, *, as_json: bool) -> None:
    """Stop a flow and wait until it has ended."""
    settings = read_settings()
    client = control.ensure(settings)
    client.ask("POST", "/api/stop", flow=flow, actor=settings.actor)
    ended = Follower(client, Steps(console(as_json=True))).end_of(flow)
    if as_json:
        print_json(ended.numbers)
        return
    console().print(f"{flow}: {ended.numbers.get('state')}", markup=False)


def finish(client: control.Client, flow: str, *, as_json: bool, actor: str, can_stop: bool = True) -> None:
    """Show a flow and the one that goes on from it; end with its exit code. Ctrl-C stops it for certain."""
    out = console(as_json=as_json)
    steps = Steps(out)
    follower = Follower(client, steps)
    try:
        ended = follower.end_of(flow)
    except KeyboardInterrupt:
        steps.close()
        if can_stop:
            out.print("stopping …")
            client.ask("POST", "/api/stop", flow=flow, actor=actor)
            out.print(text_of(str(follower.end_of(flow).numbers["fact"])))
        raise
    except Unavailable as error:
        raise Unavailable(
            error.fact, f"The flow goes on where it was: `headrace up`, then `headrace follow {flow}`."
        ) from error
    finally:
        steps.close()
    tell(ended.numbers, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Follower:
    """Shows flows as they go on; each event once."""

    client: control.Client
    steps: Steps
    seen: Counter[str] = field(default_factory=Counter)

    def end_of(self, flow: str) -> Event:
        """Show a flow and the one that goes on from it, and return the end."""
        for event in self.client.events(flow, after=self.seen[flow]):
            if event.mark is Mark.ENDED:
                following = str(event.numbers.get("next_flow") or "")
                return self.end_of(following) if following else event
            self.seen[flow] += 1
            self.steps.show(event)
        raise AssertionError("events end with the flow's end")


def tell(outcome: dict[str, Json], *, as_json: bool) -> None:
    """Say how it ended. Raises the flow's error with its exit code."""
    if as_json:
        print_json(outcome)
    code = int(str(outcome.get("exit_code") or 0))
    if code and as_json:
        raise SystemExit(code)
    if code:
        raise control.Answered(str(outcome["fact"]), str(outcome.get("remedy") or ""), code)
    if not as_json:
        console().print(f"[bold]{text_of(str(outcome['fact']))}[/bold]")
