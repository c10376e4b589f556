"""How values are written on the command line: K=V, headers, times."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

App = Annotated[str, typer.Argument(metavar="APP", help="The app's name.")]
Path = Annotated[str, typer.Argument(metavar="PATH", help="The route's path, as /hello.")]
Limit = Annotated[int, typer.Option("--n", "-n", min=1, help="At most this many.")]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", metavar="K=V", help="A configuration value; may be repeated.", show_default=False),
]


def pairs(given: Iterable[str] | None, option: str = "--config") -> dict[str, str]:
    """K=V texts as a mapping; ``$NAME`` in a value is that variable of the environment.

    Raises:
        typer.BadParameter: One has no name or no ``=``.
    """
    found = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise typer.BadParameter(f"{text!r}: should be K=V", param_hint=option)
        found[key] = os.path.expandvars(value)
    return found


def header_lists(given: Iterable[str] | None) -> dict[str, list[str]]:
    """Headers ``name=value;value`` as a mapping of names to their values."""
    return {name: value.split(";") for name, value in pairs(given, "--headers").items()}


def encoded(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Headers as they are sent: UTF-8, or the bytes that stood on the command line."""
    return {os.fsencode(name): os.fsencode(value) for name, value in headers.items()}


def variable(name: str) -> str:
    """A variable of the environment.

    Raises:
        typer.BadParameter: It is not set.
    """
    reference = f"${{{name}}}"
    if (value := os.path.expandvars(reference)) == reference:
        raise typer.BadParameter(f"{name} is not set in the environment", param_hint="-e")
    return value


def unix_seconds(given: str, option: str) -> str:
    """A time, RFC 3339 or already in Unix seconds, as Unix seconds; empty stays empty.

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
