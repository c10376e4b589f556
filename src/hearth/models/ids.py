"""Ids of calls and containers: 128 bits, sortable by time, unique without coordination (API specification 1.7).

Layout, big-endian: 48 bits of milliseconds since the epoch, 48 bits of machine id (IPv4 and port), 32 bits of a
per-process counter. Written as 26 characters of Crockford's base 32, most significant first.
"""

from __future__ import annotations

import functools
import ipaddress
import threading
from collections.abc import Callable
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 26

_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_MS_MASK: Final = (1 << 48) - 1
_COUNTER_MASK: Final = (1 << 32) - 1
# Ten bits at a time halve the work of encoding.
_PAIRS: Final = [high + low for high in ALPHABET for low in ALPHABET]
_PAIR_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}


def machine_id(address: str, port: int) -> int:
    """The 48-bit machine part: the IPv4 address, then the port."""
    return (int(ipaddress.IPv4Address(address)) << 16) | (port & 0xFFFF)


def encode(value: int) -> str:
    """Write a 128-bit value as its 26 characters."""
    if not 0 <= value < 1 << 128:
        raise ValueError("an id has 128 bits")
    return "".join([_PAIRS[(value >> shift) & 0x3FF] for shift in range(120, -1, -10)])


def decode(text: str) -> int:
    """Read an id; lower case is accepted.

    Raises:
        ValueError: Wrong length, or a character outside the alphabet, or more than 128 bits.
    """
    if len(text) != LENGTH:
        raise ValueError(f"an id has {LENGTH} characters, not {len(text)}")
    value = 0
    for character in text.upper():
        try:
            value = (value << 5) | _VALUES[character]
        except KeyError:
            raise ValueError(f"{character!r} is not a character of an id") from None
    if value >> 128:
        raise ValueError("an id has 128 bits")
    return value


def time_ms(text: str) -> int | None:
    """Milliseconds since the epoch at which an id was made; ``None`` if it does not sort by them: no id of ours."""
    return _head_ms(text[:10]) if len(text) == LENGTH else None


@functools.lru_cache(maxsize=64)  # many ids of a busy node are of the same millisecond
def _head_ms(head: str) -> int | None:
    value = 0
    for start in range(0, 10, 2):
        pair = _PAIR_VALUES.get(head[start : start + 2])
        if pair is None:
            return None
        value = (value << 10) | pair
    return value if value <= _MS_MASK else None


def first_of(now_ms: int) -> str:
    """The smallest id of a millisecond; what lies outside of the ids' time is moved to its end."""
    return encode(min(max(now_ms, 0), _MS_MASK) << 80)


class IdGenerator:
    """Makes the ids of one process, strictly increasing even if the wall clock steps back.

    Args:
        machine: The 48-bit machine part, from :func:`machine_id`.
        now_ms: Milliseconds since the epoch.
    """

    def __init__(self, machine: int, now_ms: Callable[[], int]) -> None:
        self._machine = (machine & _MS_MASK) << 32
        # The first ten characters are the time, the next nine the machine; only the others are the counter's.
        self._middle = encode(self._machine)[10:19]
        self._high = (self._machine >> 32 & 0b111) << 32
        self._time = (-1, "")
        self._now_ms = now_ms
        self._last_ms = 0
        self._counter = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The next id; from any thread."""
        with self._lock:
            count = self._next()
            if self._time[0] != self._last_ms:
                self._time = (self._last_ms, first_of(self._last_ms)[:10])
            low = self._high | count
            last = _PAIRS[low >> 25] + _PAIRS[low >> 15 & 0x3FF] + _PAIRS[low >> 5 & 0x3FF] + ALPHABET[low & 0x1F]
            return self._time[1] + self._middle + last

    def _next(self) -> int:
        """Move on; the counter."""
        now_ms = self._now_ms() & _MS_MASK
        if now_ms > self._last_ms:
            self._last_ms = now_ms
        self._counter += 1
        if self._counter > _COUNTER_MASK:  # keep the order across the wrap: move on to the next millisecond
            self._counter = 0
            self._last_ms += 1
        return self._counter
