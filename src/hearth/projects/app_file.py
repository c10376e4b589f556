"""``app.yaml``: the app that the functions below a folder belong to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from hearth.models.app import validate_app_name
from hearth.models.errors import ApiError
from hearth.projects.section import Document

_FILES: Final = ("app.yaml", "app.yml", "app.json")
_OF_V2: Final = "belongs to Fn's later API and is ignored"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AppFile:
    """What an app's file says; ``None``: nothing."""

    name: str | None
    config: dict[str, str] | None
    file: Path
    warnings: tuple[str, ...]


def load_app(folder: Path) -> AppFile | None:
    """The app of a folder, if there is a file of one.

    Raises:
        ProjectError: Something in it is wrong.
    """
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    document = Document(file)
    section = document.open()
    section.check_names(["name", "config"], {"annotations": _OF_V2, "syslog_url": _OF_V2})
    name = section.text("name")
    if name is not None:
        try:
            validate_app_name(name)
        except ApiError as exc:
            section.complain("name", f"{name!r}: {exc.message}")
    config = section.mapping("config")
    document.settle()
    return AppFile(name=name, config=config, file=file, warnings=tuple(document.warnings))
