"""Timestamps and durations as texts (API specification 1.4; protocols specification 6.1)."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from msgspec import to_builtins

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

#: Characters of a time up to its seconds, and up to its milliseconds.
_TO_SECONDS: Final = 19
_TO_MILLIS: Final = 23


def format_time(moment: dt.datetime) -> str:
    """Return RFC 3339 in UTC with exactly three fractional digits, cut (not rounded), ending in ``Z``."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    text: str = to_builtins(moment)  # four times are written for every call; a whole second has no fraction
    return f"{text[:_TO_MILLIS]}Z" if len(text) > _TO_MILLIS else f"{text[:_TO_SECONDS]}.000Z"


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
    nanos = round(seconds * 1e9)
    if 1_000 <= nanos < 1_000_000:  # as of most calls
        return f"{nanos / 1_000:.6g}µs"
    if 1_000_000 <= nanos < 1_000_000_000:
        return f"{nanos / 1_000_000:.9g}ms"
    if nanos <= 0:
        return "0s"
    if nanos < 1_000:
        return f"{nanos}ns"
    minutes, nanos = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    before = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    whole, rest = divmod(nanos, 1_000_000_000)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{before}{whole}{fraction}s"
