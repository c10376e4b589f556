"""An app: a name, and a configuration that its routes share."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from typing import Final
from urllib.parse import urlsplit

import msgspec

from hearth.models.annotations import Annotations, validate_annotations
from hearth.models.call_auth import DEFAULT_CALL_AUTHS
from hearth.models.config import validate_config
from hearth.models.errors import AppsInvalidAuth, AppsInvalidName, AppsMissingName, AppsTooLongName
from hearth.models.fn_errors import AppInvalidShape, AppMissingName, AppTooLongName, InvalidSyslogUrl
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.models.times import ZERO

MAX_NAME_LENGTH: Final = 30
#: Bytes of the name of an app of API v2.
MAX_NAME_BYTES: Final = 255
#: Machines that an app's images are built for; a hint for those who build them.
SHAPES: Final = ("GENERIC_X86", "GENERIC_ARM", "GENERIC_X86_ARM")

_NAME = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)
_SYSLOG_SCHEMES: Final = ("tcp", "udp", "unix", "unixgram", "tcp+tls")


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A group of routes and fns. Frozen: a cached app is shared by every call that uses it.

    ``id`` is its identity: an app that is deleted and created again under the same name has another one. ``secrets``
    are the names of the secrets that all its functions get. ``annotations``, ``syslog_url`` and ``shape`` are set
    through API v2. ``auth`` is the proof that its routes ask of callers unless they say otherwise; empty: as the node
    says. ``quotas`` are its own, without the defaults of a node.
    """

    name: str
    config: dict[str, str] = msgspec.field(default_factory=dict)
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO
    id: str = ""
    secrets: tuple[str, ...] = ()
    annotations: Annotations = msgspec.field(default_factory=dict)
    syslog_url: str = ""
    shape: str = ""
    auth: str = ""
    quotas: Quotas = NO_QUOTAS


def validate_app_name(name: str) -> None:
    """Check an app's name.

    Raises:
        AppsMissingName: The name is empty.
        AppsTooLongName: The name has more than 30 bytes.
        AppsInvalidName: The name contains a character outside ``[0-9A-Za-z_-]``.
    """
    if not name:
        raise AppsMissingName
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_LENGTH:
        raise AppsTooLongName
    if _NAME.fullmatch(name) is None:
        raise AppsInvalidName


def validate_app(app: App) -> None:
    """Check an app as API v2 does; the first failure wins (its specification, 4).

    Raises:
        ApiError: The matching row of the catalogue.
    """
    if not app.name:
        raise AppMissingName
    if len(app.name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise AppTooLongName
    if not is_word(app.name):
        raise AppsInvalidName
    validate_annotations(app.annotations)
    if app.syslog_url:
        _validate_syslog_url(app.syslog_url)
    if app.shape and app.shape not in SHAPES:
        raise AppInvalidShape
    validate_config(app.config)


def is_word(name: str) -> bool:
    """Return whether a name consists of letters and numbers of any script, ``_`` and ``-``."""
    return all(sign in "_-" or unicodedata.category(sign)[0] in "LN" for sign in name)


def _validate_syslog_url(url: str) -> None:
    try:
        scheme = urlsplit(url).scheme
    except ValueError as exc:
        raise InvalidSyslogUrl(url, str(exc)) from exc
    if scheme not in _SYSLOG_SCHEMES:
        raise InvalidSyslogUrl(url, f"invalid scheme, only [{', '.join(_SYSLOG_SCHEMES)}] are supported")


def validate_app_auth(auth: str) -> None:
    """Check the proof that an app asks of the callers of its routes.

    Raises:
        AppsInvalidAuth: There is no such proof, or only a route can ask for it.
    """
    if auth and auth not in DEFAULT_CALL_AUTHS:
        raise AppsInvalidAuth
