"""The entry point of the command."""

from __future__ import annotations

from hearth.cli.init_process import split_off_init


def main() -> None:
    """Run the command as this process, or as a child of it where it is the first of a container."""
    split_off_init()  # before anything else is imported: it stays in memory as it is now
    from hearth.cli.main import main as run_command

    run_command()
