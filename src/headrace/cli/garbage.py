"""`headrace retire` and `headrace gc`: what is not wanted any more, and what of it can go."""

from typing import Any

from headrace.cli import client as control
from headrace.cli.plain import table
from headrace.cli.terminal import console, duration, good, print_json
from headrace.config.settings import read_settings


def retire(component: str, version: int, *, reason: str, as_json: bool) -> None:
    """Write that a version is not wanted any more."""
    settings = read_settings()
    entry = control.ensure(settings).ask(
        "POST", "/api/retire", component=component, version=version, reason=reason, actor=settings.actor
    )
    if as_json:
        print_json(entry)
        return
    good(
        f"v{version} of {component} is retired (entry {entry['sequence']}); "
        f"what it leaves goes with `headrace gc {component}`"
    )


def collect(component: str, *, dry_run: bool, unused_for: str, predictions: str, as_json: bool) -> None:
    """Say what nobody needs and how much it is, then remove it."""
    unused_for_s, predictions_s = duration(unused_for), duration(predictions)
    client = control.ensure(read_settings())

    def ask(*, is_rehearsal: bool) -> Any:
        return client.ask(
            "POST", "/api/gc", timeout_s=600, component=component, unused_for_s=unused_for_s,
            predictions_s=predictions_s, dry_run=is_rehearsal,
        )  # fmt: skip

    found = ask(is_rehearsal=True)
    out = console(as_json=as_json)
    if found["items"]:
        rows = [[one["kind"], size(one["bytes"]), short(one["name"]), one["why"]] for one in found["items"]]
        out.print(table(["what", "size", "name", "why"], rows), markup=False)
    for sentence in found["left"]:
        out.print(sentence, markup=False)
    done = found if dry_run or not found["items"] else ask(is_rehearsal=False)
    if as_json:
        print_json(done)
        return
    verb = "would be removed" if dry_run else "removed"
    out.print(f"[green]✓[/green] {len(done['items'])} things {verb}, {size(done['bytes'])}")


def short(name: str) -> str:
    """Return a digest as people tell it apart; other names as they are."""
    return name[:12] if len(name) == 64 else name


def size(count: int) -> str:
    """Return bytes in one unit."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} B"
