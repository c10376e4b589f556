"""The entry point of the command."""

from __future__ import annotations

import sys
from typing import Final

from hearth.cli.init_process import split_off_init

#: Exit status of a program that Ctrl-C has ended.
_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command as this process, or as a child of it where it is the first of a container."""
    split_off_init()  # before anything else is imported: it stays in memory as it is now
    try:
        from hearth.cli.main import main as run_command

        run_command()
    except KeyboardInterrupt:  # during the imports
        sys.exit(_INTERRUPTED)
