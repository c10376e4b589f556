"""The contracts by the name of their format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hearth.contracts.base import Contract, InvalidProtocol
from hearth.contracts.http_stream.answer import NO_LIMITS, Limits
from hearth.contracts.http_stream.contract import HttpStreamContract
from hearth.contracts.stdio.default import DefaultContract
from hearth.contracts.stdio.http import HttpContract
from hearth.contracts.stdio.json import JsonContract
from hearth.models.function import DEFAULT, HTTP, HTTP_STREAM, JSON

_CONTRACTS: Final[dict[str, Callable[[Limits], Contract]]] = {
    "": lambda limits: DefaultContract(),
    DEFAULT: lambda limits: DefaultContract(),
    HTTP: lambda limits: HttpContract(),
    JSON: lambda limits: JsonContract(),
    HTTP_STREAM: HttpStreamContract,
}


def contract_for(format_name: str, limits: Limits = NO_LIMITS) -> Contract:
    """Return the contract of a format; the empty name is ``default``.

    Args:
        format_name: The name.
        limits: The largest answers of formats over HTTP that Fn's server limits, too.

    Raises:
        InvalidProtocol: No format has this name.
    """
    make = _CONTRACTS.get(format_name)
    if make is None:
        raise InvalidProtocol
    return make(limits)
