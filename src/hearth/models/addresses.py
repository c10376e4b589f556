"""Addresses of machines, and those that functions must not reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Networks that are not the internet: of sites, carriers, links (metadata services of clouds), tests, multicast.
PRIVATE: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)


def unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address stands for, as that of an IPv4 peer of a listener on ``::``."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def refused(allowed: Iterable[ipaddress.IPv4Network]) -> list[ipaddress.IPv4Network]:
    """Return the private networks without those that are allowed, as networks."""
    left = list(PRIVATE)
    for exception in allowed:
        kept: list[ipaddress.IPv4Network] = []
        for network in left:
            if network.subnet_of(exception):
                continue
            kept += network.address_exclude(exception) if exception.subnet_of(network) else [network]
        left = kept
    return sorted(left)
