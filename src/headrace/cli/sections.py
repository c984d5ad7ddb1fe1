"""The commands in `headrace --help`, by what a person wants to do."""

from typing import Any

from typer.core import TyperGroup

SECTIONS = {
    "Release": ("init", "run", "promote", "approve", "reject", "rollback", "retire", "demo"),
    "Look": ("status", "history", "follow", "logs", "nodes", "monitor", "predictions"),
    "Ask": ("predict", "feedback", "serve"),
    "Prove": ("check", "baseline", "ledger", "reproduce", "adopt", "restore", "signers", "environment", "image"),
    "Run it": ("up", "down", "stop", "triggers", "token", "gc", "upgrade"),
    "Production parts": ("worker", "drain", "restart", "migrate", "mlflow", "database-roles"),
}


class Sections(TyperGroup):
    """A group whose help lists its commands under headings, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # The library's classes for both are private.
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])
