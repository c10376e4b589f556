"""The addresses that functions must not reach."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

Network = ipaddress.IPv4Network

#: The network between a namespace and its helper: the same in every namespace.
VIRTUAL: Final = Network("10.0.2.0/24")
#: Where the helper forwards DNS to the machine's resolver.
NAMESERVER: Final = "10.0.2.3"
#: Networks that are not the internet: of sites, carriers, links (metadata services of clouds), tests, multicast.
PRIVATE: Final = tuple(
    Network(text)
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
_LOCAL: Final = Path("/proc/net/fib_trie")
#: An address, or a network all of whose addresses are this machine's, as ``ip route add local`` makes it. A table of
#: routes of a transparent proxy has all addresses, which is for marked packets only.
_IS_LOCAL: Final = re.compile(r"/([1-9]\d*) host LOCAL$")


def refused(allowed: Iterable[Network]) -> list[Network]:
    """Return the private networks without those that are allowed, as networks."""
    left = list(PRIVATE)
    for exception in allowed:
        kept: list[Network] = []
        for network in left:
            if network.subnet_of(exception):
                continue
            kept += network.address_exclude(exception) if exception.subnet_of(network) else [network]
        left = kept
    return sorted(left)


def own(allowed: Sequence[Network] = ()) -> frozenset[Network]:
    """Return the addresses of this machine, those left out that are allowed by themselves. Blocks shortly.

    Its services listen on them, the node's control API among them.
    """
    found, address = set(), ""
    for line in _LOCAL.read_text().splitlines():
        if (local := _IS_LOCAL.search(line)) is not None:
            found.add(Network(f"{address}/{local[1]}"))
        address = line.rpartition(" ")[2]
    loopback = Network("127.0.0.0/8")  # a namespace has its own
    return frozenset(
        network
        for network in found
        if not network.subnet_of(loopback) and not network.subnet_of(VIRTUAL) and network not in allowed
    )
