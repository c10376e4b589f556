"""Parse values of the command line: K=V, headers, times."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable
from typing import Annotated, Final

import typer

from hearth.cli import completion
from hearth.models.config import TOKEN, config_problem, header_problem
from hearth.models.errors import InvalidQuota
from hearth.models.quotas import validate_quotas

#: Headers that are one line: they have a single value, or semicolons in it.
_NOT_SPLIT: Final = frozenset(
    {
        "age",
        "alt-svc",
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-location",
        "content-range",
        "content-security-policy",
        "content-security-policy-report-only",
        "content-type",
        "date",
        "etag",
        "expires",
        "last-modified",
        "link",
        "location",
        "permissions-policy",
        "retry-after",
        "server",
        "set-cookie",
        "strict-transport-security",
    }
)
#: Headers that define where a body ends: the command sets them.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_LINE_END: Final = re.compile(r"[\r\n\0]")
_SHOWN: Final = 60
_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def no_slash(value: str) -> str:
    """Return a name that is one segment of a path.

    Raises:
        typer.BadParameter: It would be read as more than a name.
    """
    if "/" in value or value in (".", ".."):
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        raise typer.BadParameter(f"{shown!r}: a name must not be '.' or '..', or contain '/'")
    return value


App = Annotated[
    str, typer.Argument(metavar="APP", help="App name.", callback=no_slash, autocompletion=completion.app_names)
]
OfRoute = Annotated[
    str,
    typer.Option("--path", help="Only calls of this route.", show_default=False, autocompletion=completion.route_paths),
]
CallId = Annotated[str, typer.Argument(metavar="ID", help="Call ID.", callback=no_slash)]
Path = Annotated[
    str,
    typer.Argument(metavar="PATH", help="Path of the route, such as /hello.", autocompletion=completion.route_paths),
]
Limit = Annotated[int, typer.Option("--n", "-n", min=1, help="Maximum number of items.")]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", metavar="K=V", help="Configuration value. Can be repeated.", show_default=False),
]
Quota = Annotated[
    list[str] | None,
    typer.Option(
        "--quota", metavar="NAME=N", help="Quota, such as memory_mib=512; 0: no limit. Repeatable.", show_default=False
    ),
]


def quota_changes(given: Iterable[str] | None) -> dict[str, dict[str, int | None]]:
    """Return ``NAME=N`` texts as the field of an app; without a value the app's own quota is removed.

    Raises:
        typer.BadParameter: It is not a quota.
    """
    changes: dict[str, int | None] = {}
    for text in given or ():
        name, value = _pair(text, "--quota")
        try:
            changes.update(validate_quotas({name: int(value) if value else None}))
        except (ValueError, InvalidQuota) as exc:
            problem = str(exc) if isinstance(exc, InvalidQuota) else f"{text!r}: must be NAME=N"
            raise typer.BadParameter(problem, param_hint="--quota") from None
    return {"quotas": changes} if changes else {}


def pairs(given: Iterable[str] | None, option: str = "--config") -> dict[str, str]:
    """Return ``K=V`` texts as a mapping. Values are taken byte for byte.

    Raises:
        typer.BadParameter: One has no name or no ``=``.
    """
    return {key: value for text in given or () for key, value in entry(*_pair(text, option), option).items()}


def entry(name: str, value: str, option: str = "KEY") -> dict[str, str]:
    """Return a config with one value.

    Raises:
        typer.BadParameter: It cannot be an environment variable.
    """
    if problem := config_problem(name, value):
        raise typer.BadParameter(problem, param_hint=option)
    return {name: value}


def header_lists(given: Iterable[str] | None) -> dict[str, list[str]]:
    """Return headers ``name=value;value`` as a mapping of names to their values; a name without a value has none.

    A header that has only one value, or semicolons in its value, is not split. A name may be given several times.
    """
    found: dict[str, list[str]] = {}
    for text in given or ():
        name, value = _pair(text, "--headers")
        whole = name.lower() in _NOT_SPLIT
        values = [value] if whole and value else [part for part in value.split(";") if part]
        if problem := header_problem(name, values):
            raise typer.BadParameter(problem, param_hint="--headers")
        found.setdefault(name, []).extend(values)
    return found


def request_header(text: str, option: str = "--header") -> tuple[str, str]:
    """Return the name and value of ``NAME: VALUE``.

    Raises:
        typer.BadParameter: It is not a header, or one that says where the body ends.
    """
    name, sign, value = (part.strip() for part in text.partition(":"))
    if not sign or not TOKEN.fullmatch(name) or _LINE_END.search(value):
        raise typer.BadParameter(f"{text!r}: must be NAME: VALUE", param_hint=option)
    if name.lower() in _FRAMING:
        raise typer.BadParameter(f"{name}: set by the command itself from the body and the server", param_hint=option)
    return name, value


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as they are sent: UTF-8, or the bytes that stood on the command line."""
    return [(os.fsencode(name), os.fsencode(value)) for name, value in headers]


def _pair(text: str, option: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise typer.BadParameter(f"{text!r}: must be K=V", param_hint=option)
    return key, value


def variable(name: str) -> str:
    """Return a variable of the environment.

    Raises:
        typer.BadParameter: It is not set.
    """
    reference = f"${{{name}}}"
    if (value := os.path.expandvars(reference)) == reference:
        raise typer.BadParameter(f"{name} is not set in the environment", param_hint="-e")
    return value


def since_time(given: str, option: str) -> dt.datetime | None:
    """Return a time of the past, given as an age such as ``10m`` or in RFC 3339; ``None`` for an empty text.

    Raises:
        typer.BadParameter: It is neither.
    """
    if not given:
        return None
    if match := _AGO.fullmatch(given):
        return dt.datetime.now(dt.UTC) - dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError:
        text = f"{given!r}: should be like 30s, 10m, 2h, 1d or 2018-01-31T16:52:39Z"
        raise typer.BadParameter(text, param_hint=option) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def unix_seconds(given: str, option: str) -> str:
    """Return a time as Unix seconds, given in RFC 3339 or in Unix seconds; empty stays empty.

    Raises:
        typer.BadParameter: It is neither.
    """
    if not given or given.isdecimal():
        return given
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r}: should be like 2018-01-31T16:52:39Z", param_hint=option) from None
    return str(int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()))
