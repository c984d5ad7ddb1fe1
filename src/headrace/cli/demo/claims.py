"""What the story claims, each with its evidence and whether it is true."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from headrace.cli.terminal import table, text_of
from headrace.types import Json


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the story that was checked."""

    name: str
    sentence: str
    holds: bool
    evidence: Mapping[str, Json]


@dataclass(slots=True)
class Chapter:
    """One part of the story and how long it took."""

    title: str
    seconds: float = 0.0


@dataclass(slots=True)
class Book:
    """Everything that the story found."""

    out: Console
    claims: list[Claim] = field(default_factory=list)
    chapters: list[Chapter] = field(default_factory=list)
    accuracy: dict[str, float] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=lambda: {"sent": 0, "failed": 0})
    places: dict[str, str] = field(default_factory=dict)

    def claim(self, name: str, sentence: str, holds: bool, **evidence: Json) -> None:
        """Write down a checked claim and show it."""
        self.claims.append(Claim(name, sentence, bool(holds), evidence))
        sign = "[green]✓[/green]" if holds else "[red]✗ NOT TRUE[/red]"
        self.out.print(f"{sign} {text_of(sentence)}")
        if not holds:
            self.out.print(f"  [dim]{text_of(json.dumps(evidence, default=str)[:600])}[/dim]")

    @property
    def is_true(self) -> bool:
        """Whether every claim holds."""
        return bool(self.claims) and all(claim.holds for claim in self.claims)

    def as_json(self) -> dict[str, Json]:
        """Return the whole story as one document."""
        return {
            "demo": "digits",
            "holds": self.is_true,
            "claims": [
                {"name": c.name, "claim": c.sentence, "holds": c.holds, "evidence": dict(c.evidence)}
                for c in self.claims
            ],
            "accuracy": dict(self.accuracy),
            "requests": dict(self.requests),
            "seconds": {chapter.title: round(chapter.seconds, 2) for chapter in self.chapters},
            "places": dict(self.places),
        }

    def show_summary(self) -> None:
        """Print what was found, how long it took and where to look."""
        out = self.out
        out.print()
        rows = [[moment, f"{value:.3f}"] for moment, value in self.accuracy.items()]
        out.print(table("accuracy in production", ["when", "accuracy"], rows))
        out.print(f"\nrequests  {self.requests['sent']} sent, {self.requests['failed']} failed\n")
        rows = [[chapter.title, f"{chapter.seconds:.1f} s"] for chapter in self.chapters]
        out.print(table("time", ["chapter", ""], rows))
        out.print()
        for name, place in self.places.items():
            out.print(f"{name:<10}{text_of(place)}")
        held = sum(claim.holds for claim in self.claims)
        verdict = "[green]every claim holds[/green]" if self.is_true else "[red]NOT every claim holds[/red]"
        out.print(f"\n{held} of {len(self.claims)} claims checked and true: {verdict}")


def examples_folder() -> Path | None:
    """Return the folder of the examples in this checkout, or None where headrace was installed without them."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "examples" / "digits" / "MLproject").exists():
            return parent / "examples"
    return None
