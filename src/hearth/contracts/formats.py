"""The contracts by the name of their format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from hearth.contracts.base import Contract, InvalidProtocol
from hearth.contracts.http_stream.answer import NO_LIMITS, Limits
from hearth.contracts.http_stream.contract import HttpStreamContract
from hearth.contracts.stdio.default import DefaultContract
from hearth.contracts.stdio.http import HttpContract
from hearth.contracts.stdio.json import JsonContract
from hearth.models.function import DEFAULT, HTTP, HTTP_STREAM, JSON


class Terms(msgspec.Struct, frozen=True):
    """The operator's choices about formats.

    Attributes:
        limits: The largest answers of formats over HTTP that Fn's server limits, too.
        json_lines: Messages of the format ``json`` take one line each.
    """

    limits: Limits = NO_LIMITS
    json_lines: bool = False


#: What holds where the operator says nothing.
USUAL: Final = Terms()

_CONTRACTS: Final[dict[str, Callable[[Terms], Contract]]] = {
    "": lambda terms: DefaultContract(),
    DEFAULT: lambda terms: DefaultContract(),
    HTTP: lambda terms: HttpContract(),
    JSON: lambda terms: JsonContract(on_one_line=terms.json_lines),
    HTTP_STREAM: lambda terms: HttpStreamContract(terms.limits),
}


def contract_for(format_name: str, terms: Terms = USUAL) -> Contract:
    """Return the contract of a format; the empty name is ``default``.

    Args:
        format_name: The name.
        terms: What the operator says about formats.

    Raises:
        InvalidProtocol: No format has this name.
    """
    make = _CONTRACTS.get(format_name)
    if make is None:
        raise InvalidProtocol
    return make(terms)
