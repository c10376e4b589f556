"""hearth backup and hearth restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearth import settings
from hearth.cli.data_lock import data_lock
from hearth.cli.output import note, say
from hearth.cli.progress import progress
from hearth.models.errors import StartUpError
from hearth.nodes.backup import Backup, back_up
from hearth.nodes.backup import restore as put_back

File = Annotated[Path, typer.Argument(metavar="FILE", help="File of the backup.", show_default=False)]


def backup(
    file: File,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Leave out the key of secrets and the admin token.")
    ] = False,
) -> None:
    """Copy what the node of FN_DATA_DIR keeps into a new file. The node may run.

    The file holds the database, the queue and logs, where they are files, images, and keys. It opens all
    secrets.

    Examples:
        hearth backup /backups/hearth-2026-01-31.tar
        hearth backup --without-keys /backups/hearth.tar
    """
    wanted = _settings()
    with progress("copying"):
        made = back_up(wanted, file, with_keys=not without_keys)
    say(f"{file}: {_size(made)}")
    _note(made)


def restore(file: File) -> None:
    """Restore a backup into FN_DATA_DIR, which must be empty, and start no node.

    Run it as the user of the node. Nothing is restored of a file that is damaged or not complete.

    Examples:
        FN_DATA_DIR=/srv/new hearth restore /backups/hearth-2026-01-31.tar
    """
    wanted = _settings()
    if not file.is_file():
        raise StartUpError(f"{file}: no such file")
    with data_lock(wanted.data), progress("restoring"):
        made = put_back(wanted, file)
    say(f"{wanted.data}: {_size(made)}, of {made.about.created_at}, Hearth {made.about.version}")
    _note(made)


def _settings() -> settings.Settings:
    wanted = settings.load()
    if wanted.node_type == settings.RUNNER:
        raise StartUpError("FN_NODE_TYPE=runner: a runner keeps nothing; run this with the variables of an API node")
    return wanted


def _size(made: Backup) -> str:
    return f"{made.files} files, {made.bytes / (1 << 20):.1f} MiB"


def _note(made: Backup) -> None:
    for text in made.notes:
        note(f"hearth: {text}")
