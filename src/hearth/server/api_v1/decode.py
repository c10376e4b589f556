"""Request bodies to patches: lenient about keys, strict about types (API specification 1.1, 2)."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Collection
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from hearth.contracts.stdio.fields import well_formed
from hearth.models.app import validate_app_auth
from hearth.models.call import STATUSES
from hearth.models.call_auth import DEFAULT_TOLERANCE_S, INHERITED, STYLES, Signature, validate_signature
from hearth.models.config import validate_config, validate_headers
from hearth.models.delivery import RULES, validate_delivery
from hearth.models.errors import (
    ApiError,
    AppsMissingNew,
    InvalidFromTime,
    InvalidJSON,
    InvalidStatus,
    InvalidToken,
    InvalidToTime,
    RoutesInvalidImage,
    RoutesMissingNew,
    TokensMissingNew,
)
from hearth.models.instances import BOUNDS, validate_instances
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.principal import TOKEN_ROLES, Role
from hearth.models.quotas import validate_quotas
from hearth.models.registry_login import RegistryLogin, validate_login
from hearth.models.route import parse_cpus
from hearth.models.secret import validate_secret_names, validate_secret_value
from hearth.models.times import EPOCH, ZERO, parse_time
from hearth.server.bodies import Config, config_of, convert, first_value, lowered

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_UInt64 = Annotated[int, msgspec.Meta(ge=0)]
_MAX_UINT64: Final = 2**64 - 1
_PAGE: Final = 30
_MAX_PAGE: Final = 100
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]*")
#: Characters of a number that are parsed: a sign and 19 digits; longer numbers exceed every bound.
_MAX_CHARACTERS: Final = 20


class _App(msgspec.Struct):
    name: str = ""
    config: Config | None = None
    secrets: list[str] | None = None
    auth: str = ""
    quotas: dict[str, Any] = msgspec.field(default_factory=dict)


class _Signature(msgspec.Struct):
    style: str = ""
    secret: str = ""
    header: str = ""
    tolerance: _Int32 = DEFAULT_TOLERANCE_S


class _Route(msgspec.Struct):
    path: str = ""
    image: str = ""
    memory: _UInt64 = 0
    cpus: str = ""
    headers: dict[str, list[str | None] | None] | None = None
    type: str = ""
    format: str = ""
    timeout: _Int32 = 0
    idle_timeout: _Int32 = 0
    config: Config | None = None
    secrets: list[str] | None = None
    secrets_as: str = ""
    auth: str = ""
    signature: dict[str, Any] | None = None
    concurrency: _Int32 = 0


class _Secret(msgspec.Struct):
    value: str = ""


class _Login(msgspec.Struct):
    username: str = ""
    password: str = ""


class _Token(msgspec.Struct):
    name: str = ""
    role: str = ""
    apps: list[str] | None = None
    expires_at: str | None = None


class NewToken(NamedTuple):
    """The wish for a token.

    Attributes:
        expires_at: ``ZERO`` if it never expires.
    """

    name: str
    role: Role
    apps: list[str]
    expires_at: dt.datetime


def app_patch(body: bytes) -> AppPatch:
    """Return the ``app`` of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
        InvalidConfig: A value cannot be an environment variable.
        SecretsInvalidName: A secret cannot have such a name.
        AppsInvalidAuth: An app cannot ask for such a proof.
        InvalidQuota: There is no such quota, or it cannot have this value.
        AppsMissingNew: The body has no app.
    """
    fields = _wrapped(body, "app", AppsMissingNew)
    app = convert(fields, _App)
    config, auth = _checked_config(app.config), well_formed(app.auth)
    validate_app_auth("" if auth == INHERITED else auth)
    return AppPatch(
        name=well_formed(app.name),
        config=config,
        secrets=_secret_names(app.secrets),
        auth=auth,
        quotas=validate_quotas(app.quotas),
    )


def route_patch(body: bytes) -> RoutePatch:
    """Return the ``route`` of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
        InvalidConfig: A value cannot be an environment variable.
        InvalidCPUs: ``cpus`` is not an amount of CPU.
        InvalidHeader: A value cannot be a response header.
        RoutesInvalidImage: The image holds control characters.
        SecretsInvalidName: A secret cannot have such a name.
        RoutesInvalidSignature: There cannot be such a signature.
        InvalidInstances: There cannot be so many containers.
        InvalidDelivery: A rule for async calls cannot have this value.
        RoutesMissingNew: The body has no route.
    """
    fields = _wrapped(body, "route", RoutesMissingNew)
    route = convert(fields, _Route)
    if route.memory > _MAX_UINT64:
        raise InvalidJSON
    image, headers = well_formed(route.image), _headers(route.headers)
    if _CONTROL.search(image):
        raise RoutesInvalidImage
    # An entry without values is deleted, even if its name is not valid.
    validate_headers({name: values for name, values in (headers or {}).items() if values})
    return RoutePatch(
        path=well_formed(route.path),
        image=image,
        memory=route.memory,
        cpu_milli=parse_cpus(route.cpus),
        headers=headers,
        type=well_formed(route.type),
        format=well_formed(route.format),
        timeout=route.timeout,
        idle_timeout=route.idle_timeout,
        config=_checked_config(route.config),
        secrets=_secret_names(route.secrets),
        secrets_as=well_formed(route.secrets_as),
        auth=well_formed(route.auth),
        signature=_signature(route.signature),
        concurrency=route.concurrency,
        instances=validate_instances(_named(body, BOUNDS)),
        delivery=validate_delivery(_named(body, RULES)),
    )


def token(body: bytes) -> NewToken:
    """Return the ``token`` of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
        InvalidToken: The role does not exist, or the time of expiry is none.
        TokensMissingNew: The body has no token.
    """
    given = convert(_wrapped(body, "token", TokensMissingNew), _Token)
    try:
        role = Role(given.role)
    except ValueError:
        raise InvalidToken(f"role must be one of {', '.join(TOKEN_ROLES)}") from None
    try:
        expires_at = parse_time(given.expires_at) if given.expires_at else ZERO
    except ValueError:
        raise InvalidToken("expires_at must be an RFC 3339 time, such as 2030-01-31T12:00:00Z") from None
    return NewToken(well_formed(given.name), role, [well_formed(app) for app in given.apps or ()], expires_at)


def secret_value(body: bytes) -> str:
    """Return the value of the secret in a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
        SecretsMissingValue: The value is missing or empty.
        SecretsInvalidValue: It contains NUL, or is not valid Unicode.
        SecretsTooLarge: It has too many bytes.
    """
    value = convert(lowered(first_value(body)), _Secret).value
    validate_secret_value(value)
    return value


def registry_login(body: bytes) -> RegistryLogin:
    """Return the login in a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
        RegistriesInvalidLogin: One of its parts is missing, or cannot be sent to a registry.
    """
    given = convert(lowered(first_value(body)), _Login)
    login = RegistryLogin(given.username, given.password)
    validate_login(login)
    return login


def _signature(given: dict[str, Any] | None) -> Signature | None:
    if given is None:
        return None
    fields = convert(lowered(given), _Signature)
    signature = Signature(
        style=well_formed(fields.style),
        secret=well_formed(fields.secret),
        header=well_formed(fields.header),
        tolerance=fields.tolerance,
    )
    validate_signature(signature)
    is_default = signature.header.lower() == STYLES[signature.style].lower()  # an answer shows it, and may be sent back
    return msgspec.structs.replace(signature, header="") if is_default else signature


def _secret_names(given: list[str] | None) -> tuple[str, ...] | None:
    """Return names of secrets after checking them, each once, sorted."""
    if given is None:
        return None
    names = tuple(sorted({well_formed(name) for name in given}))
    validate_secret_names(names)
    return names


def _checked_config(given: Config | None) -> dict[str, str] | None:
    """Return a config after checking it. An entry without a value is deleted, even if its name is not valid."""
    config = config_of(given)
    validate_config({name: value for name, value in (config or {}).items() if value})
    return config


def per_page(text: str) -> int:
    """Return the size of a page: 30 unless the request has a positive number, at most 100."""
    if not _INTEGER.fullmatch(text):
        return _PAGE
    if len(text) > _MAX_CHARACTERS:
        return _PAGE if text.startswith("-") else _MAX_PAGE
    wanted = int(text)
    return min(wanted, _MAX_PAGE) if wanted > 0 else _PAGE


def cursor(text: str) -> str:
    """Return the key in a cursor of apps or routes; of a broken one, the part that can be decoded, often nothing."""
    match = _CURSOR.match(text)
    sound = match[0] if match else ""
    if len(sound) % 4 == 1:  # six bits are not a byte
        sound = sound[:-1]
    return base64.urlsafe_b64decode(sound + "=" * (-len(sound) % 4)).decode("utf-8", "ignore").partition("\0")[0]


def status(text: str) -> str:
    """Return the status that limits a list of calls; empty for all.

    Raises:
        InvalidStatus: The status does not exist.
    """
    if text and text not in STATUSES:
        raise InvalidStatus
    return text


def bounds(from_text: str, to_text: str) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return two times, given in seconds since the epoch.

    Raises:
        InvalidFromTime: The first is not a time.
        InvalidToTime: The second is not a time.
    """
    return _epoch(from_text, InvalidFromTime), _epoch(to_text, InvalidToTime)


def _epoch(text: str, error: type[ApiError]) -> dt.datetime | None:
    if not text:
        return None
    if not _INTEGER.fullmatch(text) or len(text) > _MAX_CHARACTERS:
        raise error
    try:
        return EPOCH + dt.timedelta(seconds=int(text))
    except OverflowError:  # beyond the calendar: before or after all calls
        return ZERO if text.startswith("-") else dt.datetime.max.replace(tzinfo=dt.UTC)


def _named(body: bytes, names: Collection[str]) -> dict[str, Any]:
    """Return some fields of a route; a null, which counts as absent elsewhere, removes what was set."""
    route = lowered(first_value(body))["route"]
    return {name.lower(): value for name, value in route.items() if name.lower() in names}


def _wrapped(body: bytes, key: str, missing: type[ApiError]) -> dict[str, Any]:
    value = lowered(first_value(body)).get(key)
    if value is None:
        raise missing
    return lowered(value)


def _headers(given: dict[str, list[str | None] | None] | None) -> dict[str, list[str] | None] | None:
    if given is None:
        return None
    return {
        well_formed(name): None if values is None else [well_formed(value or "") for value in values]
        for name, values in given.items()
    }
