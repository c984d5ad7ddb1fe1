"""What people see: steps as they happen, errors as fact and remedy. JSON for scripts goes to standard output alone."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from headrace.cli import plain
from headrace.errors import HeadraceError, InvalidInput
from headrace.lifecycle.events import Event, Mark
from headrace.types import Json

SYMBOLS = {Mark.DONE: "[green]✓[/green]", Mark.FAILED: "[red]✗[/red]"}


def console(*, as_json: bool = False) -> Console:
    """Return where people read: standard output, or standard error where that is for a JSON document."""
    return Console(stderr=as_json, highlight=False, soft_wrap=True)


def text_of(said: str) -> str:
    """Return a text as people may be shown it, line by line: what looks like markup, or steers a terminal, is text."""
    return escape("\n".join(plain.shown(line) for line in said.split("\n")))


def good(text: str) -> None:
    """Say that something was done; what looks like markup in it is text."""
    console().print(f"[green]✓[/green] {text_of(text)}")


def duration(text: str) -> float:
    """Return the seconds of `90s`, `6h` or `7d`. Raises InvalidInput where it is none, or longer than 100 years."""
    from headrace.config.component import seconds

    try:
        return float(seconds(text))
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error


def print_json(document: Json | Mapping[str, Json]) -> None:
    """Print one JSON document to standard output; `null` is written where a number is not finite."""
    sys.stdout.write(plain.as_json(document))


def print_error(error: HeadraceError, *, as_json: bool = False) -> None:
    """Print what is so and what to do."""
    if as_json:
        print_json({"error": {"fact": error.fact, "remedy": error.remedy, "exit_code": error.exit_code}})
        return
    out = Console(stderr=True, highlight=False, soft_wrap=True)
    out.print(f"[red]✗[/red] {text_of(error.fact)}")
    if error.remedy:
        out.print(f"  → {text_of(error.remedy)}")


@dataclass(slots=True)
class Steps:
    """Shows a flow's events as lines; the step that runs shows its progress in place."""

    out: Console
    width: int = 12
    _status: Status | None = field(default=None)

    def show(self, event: Event) -> None:
        """Show one event."""
        text = text_of(event.text)
        if event.mark is Mark.STARTED:
            self._spin(f"{event.step:<{self.width}} [dim]{text}[/dim]")
        elif event.mark is Mark.PROGRESS:
            if self.out.is_terminal:
                self._spin(f"{event.step:<{self.width}} [dim]{text}[/dim]")
            if event.step == "gate":
                self.out.print(f"  {'':<{self.width}} [dim]{text}[/dim]")
        elif event.mark in SYMBOLS:
            self.close()
            took = f"[dim]{event.seconds:6.1f} s[/dim]"
            # The rest of what failed, its last lines say, follows once, with the remedy, at the flow's end.
            text = text.partition("\n")[0].removesuffix(" Its last lines:")
            self.out.print(f"{SYMBOLS[event.mark]} {event.step:<{self.width}} {took}  {text}")

    def _spin(self, text: str) -> None:
        if not self.out.is_terminal:
            return
        if self._status is None:
            self._status = self.out.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def close(self) -> None:
        """Stop showing what runs."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """Return a plain table."""
    result = Table(title=text_of(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*[text_of(cell) for cell in row])
    return result
