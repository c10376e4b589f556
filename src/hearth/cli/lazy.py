"""A group whose commands are imported when they are used, so that the command starts fast."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


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
            return typer.main.get_group(found)
        one = typer.Typer(add_completion=False)
        one.command(name)(found)
        return typer.main.get_command(one)

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
        return super().resolve_command(ctx, args)
