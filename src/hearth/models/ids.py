"""Ids of calls and containers: 128 bits, sortable by time, unique without coordination (API specification 1.7).

Layout, big-endian: 48 bits of milliseconds since the epoch, 48 bits of machine id (IPv4 and port), 32 bits of a
per-process counter. Written as 26 characters of Crockford's base 32, most significant first.
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
from collections.abc import Callable
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 26
#: Characters of the time, which come first.
TIME_LENGTH: Final = 10

_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_MS_MASK: Final = (1 << 48) - 1
_COUNTER_MASK: Final = (1 << 32) - 1


class _Digits(dict[int, str]):
    """Translates the alphabet into the digits of :class:`int`, and what is not in it into none."""

    def __init__(self) -> None:
        super().__init__(zip(map(ord, ALPHABET), "0123456789abcdefghijklmnopqrstuv", strict=True))

    def __missing__(self, key: int) -> str:
        return "?"


_DIGITS: Final = _Digits()
# Ten bits at a time halve the work of encoding.
_PAIRS: Final = [high + low for high in ALPHABET for low in ALPHABET]


def machine_id(address: str, port: int) -> int:
    """Return the 48-bit machine part: the IPv4 address, then the port."""
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
    """Return when an id was created, in milliseconds since the epoch; ``None`` if it is not a time-sorted id."""
    try:
        value = int(text[:TIME_LENGTH].translate(_DIGITS), 32)
    except ValueError:
        return None
    return value if len(text) == LENGTH and value <= _MS_MASK else None


def first_of(now_ms: int) -> str:
    """Return the smallest id of a millisecond; a time outside the range of ids is moved to its end."""
    return encode(min(max(now_ms, 0), _MS_MASK) << 80)


def random_id() -> str:
    """Return a random id, for things that are created rarely and without a generator; it does not sort by time."""
    return encode(secrets.randbits(128))


class IdGenerator:
    """Generates the ids of one process, strictly increasing even if the wall clock steps back.

    Args:
        machine: The 48-bit machine part, from :func:`machine_id`.
        now_ns: Returns the nanoseconds since the epoch.
    """

    def __init__(self, machine: int, now_ns: Callable[[], int], counter: int = 0) -> None:
        self._machine = (machine & _MS_MASK) << 32
        # The first ten characters are the time, the next nine the machine; only the others are the counter's.
        self._middle = encode(self._machine)[10:19]
        self._high = (self._machine >> 32 & 0b111) << 32
        self._now_ns = now_ns
        self._last_ms = -1
        self._start = ""
        self._counter = counter
        self._block = -1  # of 1,024 values of the counter, all but the last two characters are the same
        self._before_last = ""
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """Return the next id; from any thread."""
        with self._lock:
            ms = self._now_ns() // 1_000_000 & _MS_MASK
            self._counter += 1
            if self._counter > _COUNTER_MASK:  # keep the order across the wrap: move on to the next millisecond
                self._counter = 0
                ms = max(ms, self._last_ms + 1)
            if ms > self._last_ms:
                self._last_ms = ms
                time = _PAIRS[ms >> 40] + _PAIRS[ms >> 30 & 0x3FF] + _PAIRS[ms >> 20 & 0x3FF]
                self._start = time + _PAIRS[ms >> 10 & 0x3FF] + _PAIRS[ms & 0x3FF] + self._middle
            block = self._counter >> 10
            if block != self._block:
                self._block = block
                high = self._high >> 10 | block
                self._before_last = ALPHABET[high >> 20] + _PAIRS[high >> 10 & 0x3FF] + _PAIRS[high & 0x3FF]
            return self._start + self._before_last + _PAIRS[self._counter & 0x3FF]
