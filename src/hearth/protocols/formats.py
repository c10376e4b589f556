"""The formats by name."""

from __future__ import annotations

from typing import Final

from hearth.protocols.base import CallProtocol, InvalidProtocol
from hearth.protocols.default import DefaultProtocol
from hearth.protocols.http import HttpProtocol
from hearth.protocols.json import JsonProtocol

_PROTOCOLS: Final[dict[str, CallProtocol]] = {
    "": DefaultProtocol(),
    "default": DefaultProtocol(),
    "http": HttpProtocol(),
    "json": JsonProtocol(),
}


def protocol_for(format_name: str) -> CallProtocol:
    """The protocol of a route's format; the empty name is ``default``.

    Raises:
        InvalidProtocol: There is no such format.
    """
    try:
        return _PROTOCOLS[format_name]
    except KeyError:
        raise InvalidProtocol from None
