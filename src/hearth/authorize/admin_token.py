"""The administrators' token of a node: from the settings, or from a file that the first start creates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hearth.authorize.tokens import is_token, new_token
from hearth.host import private_files
from hearth.models.errors import StartUpError
from hearth.settings import Settings
from hearth.telemetry import redaction
from hearth.telemetry.logs import get_logger

FILE: Final = "admin-token"
_MOST_BYTES: Final = 1024

_log = get_logger(__name__)


def admin_token(settings: Settings) -> str:
    """Return the token; create its file if there is neither a setting nor a file. Blocks shortly.

    No log shows the token from here on, but for the one line that ``FN_LOG_ADMIN_TOKEN`` asks for.

    Raises:
        StartUpError: The file cannot be created, or is not one that a start creates.
    """
    if given := settings.admin_token.get_secret_value():
        return given
    path = settings.data / FILE
    try:
        is_new = not path.exists() and private_files.create(path, f"{new_token()}\n")
        token = read(path, os.geteuid())
    except OSError as exc:
        raise StartUpError(f"FN_DATA_DIR={settings.data}: {FILE}: {exc.strerror}; set FN_ADMIN_TOKEN instead") from exc
    if is_new and settings.log_admin_token:
        _log.warning("admin token created; it is logged only this once", admin_token=token)
    redaction.hide({token})
    return token


def read(path: Path, owner: int) -> str:
    """Return the token of a file.

    Args:
        path: Of the file.
        owner: The user whose file it has to be: another one knows the token, or it is the token of another node.

    Raises:
        OSError: It cannot be read.
        StartUpError: It holds no token, others may read it, or it is another user's.
    """
    try:
        text = private_files.read_own(path, owner, _MOST_BYTES)
    except private_files.NotPrivate as exc:
        raise StartUpError(
            f"{path}: {exc}; remove it, and the next start creates a new token, or set FN_ADMIN_TOKEN"
        ) from exc
    if not is_token(text):
        raise StartUpError(f"{path}: contains no token; remove it, and the next start creates a new one")
    return text
