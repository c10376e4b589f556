"""An app: a name, a configuration shared by its routes."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

import msgspec

from hearth.models.errors import AppsInvalidName, AppsMissingName, AppsTooLongName
from hearth.models.times import ZERO

MAX_NAME_LENGTH: Final = 30
_NAME = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A group of routes. Frozen: a cached app is shared by every call that uses it."""

    name: str
    config: dict[str, str] = msgspec.field(default_factory=dict)
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO


def validate_app_name(name: str) -> None:
    """Check an app's name.

    Raises:
        AppsMissingName: It is empty.
        AppsTooLongName: It has more than 30 bytes.
        AppsInvalidName: It holds a character outside ``[0-9A-Za-z_-]``.
    """
    if not name:
        raise AppsMissingName
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_LENGTH:
        raise AppsTooLongName
    if _NAME.fullmatch(name) is None:
        raise AppsInvalidName
