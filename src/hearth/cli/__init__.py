"""The ``hearth`` command."""

from hearth.cli.entry import main

__all__ = ["main"]
