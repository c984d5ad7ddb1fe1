"""The commands in `headrace --help`, by what a person wants to do."""

import re
from typing import Any

from typer.core import TyperGroup

#: Where the examples of a help text begin.
EXAMPLES = re.compile(r"\n\n(?=Examples?:)")

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

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            keep_examples(found)
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # The library's classes for both are private.
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


def keep_examples(command: Any) -> None:
    """Have the examples of a command, and of those below it, each on a line of its own (`\\b` tells click so)."""
    if command.help and "\b" not in command.help:
        command.help = EXAMPLES.sub("\n\n\b\n", command.help)
    for below in getattr(command, "commands", {}).values():
        keep_examples(below)
