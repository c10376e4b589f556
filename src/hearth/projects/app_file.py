"""``app.yaml``: the app that the functions below a folder belong to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from hearth.models.app import validate_app_name
from hearth.models.call_auth import DEFAULT_CALL_AUTHS
from hearth.models.errors import ApiError
from hearth.projects.section import Document

_FILES: Final = ("app.yaml", "app.yml", "app.json")
_OF_V2: Final = "belongs to Fn's later API and is ignored"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AppFile:
    """The content of an app's file; ``None`` where it says nothing."""

    name: str | None
    config: dict[str, str] | None
    secrets: tuple[str, ...] | None
    auth: str | None
    file: Path
    warnings: tuple[str, ...]


def load_app(folder: Path) -> AppFile | None:
    """Return the app of a folder, if the folder has a file of one.

    Raises:
        ProjectError: The file is not valid.
    """
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    document = Document(file)
    section = document.open()
    section.check_names(["name", "config", "secrets", "auth"], {"annotations": _OF_V2, "syslog_url": _OF_V2})
    name = section.text("name")
    if name is not None:
        try:
            validate_app_name(name)
        except ApiError as exc:
            section.complain("name", f"{name!r}: {exc.message}")
    config = section.variables("config")
    secrets = section.secret_names("secrets")
    auth = section.choice("auth", DEFAULT_CALL_AUTHS)
    document.settle()
    warnings = tuple(document.warnings)
    return AppFile(name=name, config=config, secrets=secrets, auth=auth, file=file, warnings=warnings)
