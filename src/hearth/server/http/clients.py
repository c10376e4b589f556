"""The connections of each client address, and the limits of them: one client must not take those of all others.

Connections over Unix sockets and from loopback have no limit: they come from this machine, often from a proxy.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from hearth.telemetry.series import Series

#: Bits of an IPv6 address that name a network: a client has all addresses of one.
_NETWORK_BITS: Final = 64


class Client:
    """The connections of one address.

    Attributes:
        connections: Their number.
        heads: The number of those that have sent the beginning of a head and not its end.
        most_heads: The limit of these; 0 for none.
        refused_heads: Counts connections that are refused because of it.
    """

    __slots__ = ("connections", "heads", "key", "most_heads", "refused_heads")

    def __init__(self, key: str, most_heads: int, refused_heads: Series) -> None:
        self.key = key
        self.connections = 0
        self.heads = 0
        self.most_heads = most_heads
        self.refused_heads = refused_heads

    def begin_head(self) -> bool:
        """Count a head that has started; return false if there are too many."""
        self.heads += 1
        is_allowed = not self.most_heads or self.heads <= self.most_heads
        if not is_allowed:
            self.refused_heads.value += 1
        return is_allowed

    def end_head(self) -> None:
        """Count a head that has ended, or whose client has left."""
        self.heads -= 1


class Clients:
    """All clients of a server.

    Args:
        most_connections: Of one address; 0 for no limit.
        most_heads: Likewise, heads in progress.
        refused: Counts connections that are refused because of the first limit.
        refused_heads: Counts those that are refused because of the second.
    """

    def __init__(
        self,
        most_connections: int = 0,
        most_heads: int = 0,
        refused: Series | None = None,
        refused_heads: Series | None = None,
    ) -> None:
        self.most_connections = most_connections
        self._most_heads = most_heads
        self._refused = refused or Series()
        self._refused_heads = refused_heads or Series()
        self._clients: dict[str, Client] = {}
        self._exempt = Client("", 0, self._refused_heads)

    def __repr__(self) -> str:
        return f"<Clients addresses={len(self._clients)}>"

    def enter(self, peer: Any) -> Client | None:
        """Count a connection, and return its client; ``None`` if it has too many. :meth:`leave` follows.

        Args:
            peer: The address of the other end, as a socket has it.
        """
        key = _key(peer)
        if not key:
            return self._exempt
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = Client(key, self._most_heads, self._refused_heads)
        if self.most_connections and client.connections >= self.most_connections:
            self._refused.value += 1
            return None
        client.connections += 1
        return client

    def leave(self, client: Client) -> None:
        """Count a connection that is closed."""
        if client is self._exempt:
            return
        client.connections -= 1
        if not client.connections:
            del self._clients[client.key]


def _key(peer: Any) -> str:
    """Return what connections of one client have in common; empty for those without a limit."""
    if not isinstance(peer, tuple):
        return ""  # a Unix socket
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return "" if address.is_loopback else str(ipaddress.ip_network((address, _NETWORK_BITS), strict=False))
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)
