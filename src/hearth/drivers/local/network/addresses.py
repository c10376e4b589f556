"""The addresses of this machine, and of the network between an app and its helper."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

Network = ipaddress.IPv4Network

#: The network between a namespace and its helper: the same in every namespace.
VIRTUAL: Final = Network("10.0.2.0/24")
#: Where the helper forwards DNS to the machine's resolver.
NAMESERVER: Final = "10.0.2.3"
_LOCAL: Final = Path("/proc/net/fib_trie")
#: An address, or a network all of whose addresses are this machine's, as ``ip route add local`` makes it. A table of
#: routes of a transparent proxy has all addresses, which is for marked packets only.
_IS_LOCAL: Final = re.compile(r"/([1-9]\d*) host LOCAL$")


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
