"""Timestamps and durations as texts (API specification 1.4; protocols specification 6.1)."""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import Final

UTC: Final = dt.UTC

#: The value of a timestamp that was never set; shown as ``0001-01-01T00:00:00.000Z``.
ZERO: Final = dt.datetime(1, 1, 1, tzinfo=UTC)

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=UTC)

_RFC3339 = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt](?P<time>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d+))?(?P<zone>[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)

#: The form that :func:`format_time` writes, and that nearly all texts to read have.
_OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

# Four times are written for every call, most of them of the same minute.
_SECONDS: Final = [f"{second:02}" for second in range(60)]
_MILLIS: Final = [f".{ms:03}Z" for ms in range(1000)]


@functools.lru_cache(maxsize=256)
def _minute(year: int, month: int, day: int, hour: int, minute: int) -> str:
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:"


def format_time(moment: dt.datetime) -> str:
    """Return RFC 3339 in UTC with exactly three fractional digits, cut (not rounded), ending in ``Z``."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    minute = _minute(moment.year, moment.month, moment.day, moment.hour, moment.minute)
    return minute + _SECONDS[moment.second] + _MILLIS[moment.microsecond // 1000]


def parse_time(text: str) -> dt.datetime:
    """Read RFC 3339 with any number of fractional digits; the empty text is the Unix epoch.

    Raises:
        ValueError: The text is no RFC 3339 time.
    """
    if _OURS.fullmatch(text) is not None:
        return dt.datetime.fromisoformat(text)
    if text == "":
        return EPOCH
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    micros = (match["fraction"] or "0")[:6].ljust(6, "0")
    zone = "+00:00" if match["zone"] in "Zz" else match["zone"]
    local = dt.datetime.fromisoformat(f"{match['date']}T{match['time']}.{micros}{zone}")
    try:
        return local.astimezone(UTC)
    except OverflowError:  # year 1 or 9999 shifted out of range by its zone
        raise ValueError(f"time out of range: {text!r}") from None


def format_duration(seconds: float) -> str:
    """Return a duration as Go prints it: ``1.5µs``, ``1.234567ms``, ``2.5s``, ``1m30.5s``, ``0s``; never negative."""
    nanos = max(0, round(seconds * 1e9))
    if nanos == 0:
        return "0s"
    if nanos < 1_000:
        return f"{nanos}ns"
    before, digits, unit = "", 9, "s"
    if nanos < 1_000_000:
        digits, unit = 3, "µs"
    elif nanos < 1_000_000_000:
        digits, unit = 6, "ms"
    elif nanos >= 60_000_000_000:
        minutes, nanos = divmod(nanos, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        before = f"{hours}h{minutes}m" if hours else f"{minutes}m"
    whole, rest = divmod(nanos, 10**digits)
    fraction = "." + str(rest).zfill(digits).rstrip("0") if rest else ""
    return f"{before}{whole}{fraction}{unit}"
