"""Choose the driver of a node, and note it in the data folder.

Functions that were built for one driver do not run with the other: a bundle's name given to Docker is the name of an
image in a public registry. So the first start decides, and the data folder remembers it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Final

from hearth.drivers.local.stored import image_store
from hearth.host import private_files
from hearth.images.errors import ImageStoreError
from hearth.models.errors import StartUpError
from hearth.settings import DriverName, Settings
from hearth.telemetry.logs import get_logger

FILE: Final = "driver"

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The driver of a node.

    Attributes:
        name: The driver; ``None``: Docker if an Engine answers, else processes.
        reason: Why, for people.
        remembered: The driver that the data folder has had until now; ``None`` if it does not say.
    """

    name: DriverName | None
    reason: str
    remembered: DriverName | None = None

    @property
    def is_change(self) -> bool:
        """True if functions that were deployed to this data folder may not run any more."""
        return self.remembered is not None and self.name is not None and self.name != self.remembered


def choose(settings: Settings) -> Choice:
    """Return the driver for a node with these settings. Blocks shortly.

    An explicit setting wins, then what the data folder remembers, then the bundles or images that are in it.

    Raises:
        StartUpError: The data folder remembers something that is not a driver.
    """
    noted = remembered(settings.data)
    if settings.driver != "auto":
        return Choice(settings.driver, f"FN_DRIVER={settings.driver}", noted)
    if noted is not None:
        return Choice(noted, f"remembered in {settings.data / FILE}", noted)
    if _has_entries(settings.bundles):
        return Choice("process", f"there are bundles in {settings.bundles}")
    if _has_images(settings):
        return Choice("process", f"there are images in {image_store(settings.bundles).root}")
    return Choice(None, "FN_DRIVER=auto, and nothing was deployed here yet")


def remembered(data: Path) -> DriverName | None:
    """Return the driver that a data folder remembers.

    Raises:
        StartUpError: The file cannot be read, or holds something else.
    """
    path = data / FILE
    try:
        text = path.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StartUpError(f"{path}: {exc.strerror}; make it readable") from exc
    if text == "process":
        return "process"
    if text == "docker":
        return "docker"
    raise StartUpError(f"{path}: must hold process or docker; remove it, and set FN_DRIVER")


def remember(settings: Settings, choice: Choice, name: DriverName) -> None:
    """Note the driver that has been opened, and warn if it is another one than before. Blocks shortly.

    Raises:
        StartUpError: The data folder cannot be written to.
    """
    if choice.remembered == name:
        return
    if choice.is_change:
        _log.warning(
            "the driver of this data folder changes: functions deployed for the other one cannot run until they are "
            "deployed again",
            before=choice.remembered,
            now=name,
            folder=str(settings.data),
        )
    try:
        private_files.replace(settings.data / FILE, f"{name}\n")
    except OSError as exc:
        raise StartUpError(
            f"FN_DATA_DIR={settings.data}: {exc.strerror}; choose a folder that can be written to"
        ) from exc


def _has_images(settings: Settings) -> bool:
    with contextlib.suppress(ImageStoreError):  # a damaged store is reported when it is used
        return bool(image_store(settings.bundles).entries())
    return False


def _has_entries(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(not entry.name.startswith(".") for entry in folder.iterdir())
    return False
