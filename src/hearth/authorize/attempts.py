"""Wrong tokens, counted per address.

A valid token is never refused because of them: clients behind one balancer share its address, so a hostile one among
them could lock out the others. What is limited is how often an address is answered, and logged, as mistaken.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

from hearth.aio.clock import Clock
from hearth.models.addresses import unmapped
from hearth.models.errors import TooManyWrongTokens
from hearth.telemetry.logs import get_logger

#: Wrong tokens that an address may show at once, and seconds until it may show one more.
_BURST: Final = 10
_PAUSE_S: Final = 6.0
#: Addresses that are remembered; the one that was quiet for longest is forgotten first.
_REMEMBERED: Final = 10_000
#: The part of an IPv6 address that one client may have to itself.
_IPV6_PREFIX: Final = 64

_log = get_logger(__name__)


class AddressLimit:
    """Limits how often something happens for each address, with token buckets.

    Args:
        burst: How often it may happen at once.
        pause_s: Seconds until it may happen once more.
    """

    def __init__(self, clock: Clock, *, burst: int, pause_s: float) -> None:
        self._clock = clock
        self._burst_s = burst * pause_s
        self._pause_s = pause_s
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<AddressLimit addresses={len(self._full_at)}>"

    def take(self, address: str) -> float:
        """Return 0 if it may happen now, which counts; else the seconds to wait."""
        now = self._clock.monotonic()
        key = _network(address)
        full_at = max(now, self._full_at.pop(key, now))
        wait_s = full_at + self._pause_s - now - self._burst_s
        refused = wait_s > 0
        self._full_at[key] = full_at if refused else full_at + self._pause_s
        if len(self._full_at) > _REMEMBERED:
            self._full_at.popitem(last=False)
        return wait_s if refused else 0.0


class WrongTokens:
    """Counts the wrong tokens of each address."""

    def __init__(self, clock: Clock) -> None:
        self._limit = AddressLimit(clock, burst=_BURST, pause_s=_PAUSE_S)

    def __repr__(self) -> str:
        return f"<WrongTokens {self._limit!r}>"

    def note(self, address: str) -> None:
        """Count a wrong token.

        Raises:
            TooManyWrongTokens: There were too many from this address.
        """
        if wait_s := self._limit.take(address):
            raise TooManyWrongTokens(math.ceil(wait_s))
        _log.warning("wrong token", address=address)


def _network(address: str) -> str:
    try:
        parsed = unmapped(ipaddress.ip_address(address))
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
