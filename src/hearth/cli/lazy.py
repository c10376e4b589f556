"""A group whose commands are imported when they are used, so that the command starts fast."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup

#: Opens the last section of a command's docstring: one command line for each line.
_EXAMPLES: Final = "\nExamples:\n"
#: Examples in the help of a group.
_MOST: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One command: where it is, ``module:attribute``, and the line that the group's help shows of it."""

    where: str
    help: str
    panel: str | None = None
    hidden: bool = False

    def load(self, name: str) -> Any:
        """Import it; a function becomes a command, a Typer a group."""
        module, _, attribute = self.where.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return with_examples(typer.main.get_group(found))
        one = typer.Typer(add_completion=False)
        one.command(name)(found)
        return with_examples(typer.main.get_command(one))

    def shown(self, name: str) -> TyperCommand:
        """Return the placeholder of the command for the group's help."""
        return TyperCommand(name, help=self.help, hidden=self.hidden, rich_help_panel=self.panel)


class LazyGroup(TyperGroup):
    """A group over a table of :class:`Entry`; subclasses set the table."""

    entries: ClassVar[dict[str, Entry]]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the table's order."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a placeholder for a command without importing it."""
        entry = self.entries.get(cmd_name)
        return None if entry is None else entry.shown(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is about to run."""
        if args and (entry := self.entries.get(args[0])) is not None:
            return args[0], entry.load(args[0]), args[1:]
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if near:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


def with_examples(command: Any) -> Any:
    """Move the examples of a docstring behind the options in the help; a group shows the first of each command."""
    if isinstance(command, TyperGroup):
        children = [with_examples(child) for child in command.commands.values()]
        command.epilog = command.epilog or examples_text(
            example for child in children if not child.hidden for example in examples(child)[:1]
        )
    elif command.help:
        command.help, _, lines = inspect.cleandoc(command.help).partition(_EXAMPLES)
        command.epilog = examples_text(line.strip() for line in lines.splitlines())
    return command


def examples_text(lines: Iterable[str]) -> str | None:
    """Return the end of a help with these command lines; ``None`` without any."""
    shown = list(lines)[:_MOST]
    return "\n".join(["Examples:", *shown]) if shown else None


def examples(command: Any) -> list[str]:
    """Return the command lines at the end of a command's help."""
    return (command.epilog or "").splitlines()[1:]
