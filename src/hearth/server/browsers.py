"""Requests that web pages make: a browser says where they come from, and under which name it reached the node.

A page of another site must not use the API in the name of its user, nor may one that has bound a name of its
own to the node's address (DNS rebinding).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from hearth.models.errors import ContentTypeRefused, HostRefused, OriginRefused, StartUpError
from hearth.models.principal import AuthMode

_ANY: Final = "*"
_LOCALHOST: Final = "localhost"
_JSON: Final = "application/json"
#: An IPv6 address in brackets, or a name, with or without a port.
_HOST: Final = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::[0-9]*)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which a node may be reached.

    Attributes:
        names: In lower case, without port.
        any_address: Whether every IP address is one; no web page can bind a name of its own to a Host that has none.
        any_label: Whether every name without a dot is one: such names are this network's own.
        any_name: Whether everything is.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False
    any_label: bool = False
    any_name: bool = False

    def admits(self, host: str) -> bool:
        """Return whether a Host header names this node. Without one, no browser sent the request."""
        if self.any_name or not host:
            return True
        name = _name(host)
        if name in self.names or name == _LOCALHOST:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return self.any_label and "." not in name and ":" not in name
        return self.any_address or address.is_loopback


def parse_hosts(text: str, mode: AuthMode, address: str) -> Hosts:
    """Return the hosts that ``FN_HOSTS`` lists, besides those that are known.

    On loopback these are loopback's own and the address that is listened on. A node that is open to a network is
    reached by IP address, or by names without a dot, too. Where a token is required there is nothing that a browser
    would send by itself, so without a list every name is admitted.

    Raises:
        StartUpError: An entry is no host name.
    """
    names = frozenset("".join(text.split()).lower().split(",")) - {""}
    for name in sorted(names - {_ANY}):
        if "/" in name or "@" in name or _name(name) != name.strip("[]"):
            raise StartUpError(f"FN_HOSTS: {name!r} is no host name; list names without scheme and port, or *")
    bare = frozenset(name.strip("[]") for name in names)
    if _ANY in names or (mode is AuthMode.REQUIRED and not names):
        return Hosts(any_name=True)
    is_open = mode is not AuthMode.LOOPBACK
    return Hosts(bare | {address.lower()}, any_address=is_open, any_label=is_open)


def check_origin(headers: Mapping[str, str], origins: frozenset[str], *, from_own_pages: bool, as_page: bool) -> None:
    """Refuse what a web page asks for that has no right to.

    Args:
        headers: Of the request, by their names in lower case.
        origins: Of pages that may use the API, in lower case; ``*`` for all.
        from_own_pages: Whether pages that this node itself serves may. Functions' answers are such pages.
        as_page: Whether a link on any page may lead here.

    Raises:
        OriginRefused: It may not.
    """
    origin, site = headers.get("origin", "").lower(), headers.get("sec-fetch-site", "none").lower()
    if not origin and site == "none":
        return  # no browser, or an address that somebody has typed
    if origin and (_ANY in origins or origin in origins):
        return
    if origin:
        host = headers.get("host", "").lower()
        is_own = site in ("none", "same-origin") and bool(host) and origin.partition("://")[2] == host
    else:
        is_own = site == "same-origin"
    if is_own and from_own_pages:
        return
    if as_page and not origin and headers.get("sec-fetch-mode", "").lower() == "navigate":
        return
    raise OriginRefused


def check_content_type(headers: Mapping[str, str]) -> None:
    """Refuse a browser's body that is not declared as JSON: a form can send such a one without being asked.

    Raises:
        ContentTypeRefused: It is not.
    """
    if "origin" not in headers and "sec-fetch-site" not in headers:
        return
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise ContentTypeRefused


def check_host(headers: Mapping[str, str], hosts: Hosts) -> None:
    """Refuse a name that is not the node's.

    Raises:
        HostRefused: It is not.
    """
    host = headers.get("host", "")
    if not hosts.admits(host):
        raise HostRefused(_name(host))


def _name(host: str) -> str:
    """Return the name of a Host header, without port, brackets and the dot of the root; as it is if it has others."""
    host = host.strip().lower()
    match = _HOST.fullmatch(host)
    if match is None:  # an IPv6 address without brackets, or no name
        return host
    return match[1] or match[2].removesuffix(".")
