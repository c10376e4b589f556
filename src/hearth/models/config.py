"""Validate config entries (environment variables) and response headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from hearth.models.errors import InvalidConfig, InvalidHeader

#: The name of a header, or a method (RFC 9110, 5.6.2).
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_LINE_BREAK: Final = re.compile(r"[\r\n]")
#: Characters of a wrong name that an error shows.
_SHOWN: Final = 100


def config_problem(name: str, value: str) -> str:
    """Return what keeps a name and a value from being an environment variable; empty if nothing does."""
    if not name:
        return "a name is empty"
    if "=" in name or "\0" in name:
        return f"name {_shown(name)} must not contain {'=' if '=' in name else 'NUL'}"
    if "\0" in value:
        return f"the value of {_shown(name)} must not contain NUL"
    if _SURROGATE.search(name) or _SURROGATE.search(value):
        return f"name or value of {_shown(name)} is not valid Unicode: use UTF-8"
    return ""


def header_problem(name: str, values: Iterable[str]) -> str:
    """Return what keeps a name and its values from being response headers; empty if nothing does."""
    if TOKEN.fullmatch(name) is None:
        return f"name {_shown(name)} must consist of letters, digits and !#$%&'*+-.^_`|~"
    for value in values:
        if "\0" in value or _LINE_BREAK.search(value):
            return f"a value of {_shown(name)} must not contain NUL or line breaks"
        if _SURROGATE.search(value):
            return f"a value of {_shown(name)} is not valid Unicode: use UTF-8"
    return ""


def validate_config(config: Mapping[str, str]) -> None:
    """Check a configuration.

    Raises:
        InvalidConfig: An entry cannot be an environment variable.
    """
    for name, value in config.items():
        if problem := config_problem(name, value):
            raise InvalidConfig(problem)


def validate_headers(headers: Mapping[str, Iterable[str]]) -> None:
    """Check the headers of a route.

    Raises:
        InvalidHeader: An entry cannot be a response header.
    """
    for name, values in headers.items():
        if problem := header_problem(name, values):
            raise InvalidHeader(problem)


def _shown(name: str) -> str:
    return ascii(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")
