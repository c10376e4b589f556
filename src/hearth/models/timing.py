"""Firing times: when a schedule makes calls. Pure arithmetic in UTC; time zones matter to cron expressions only."""

from __future__ import annotations

import datetime as dt
import functools
import re
import zoneinfo
from collections import deque
from typing import Final

import msgspec
from cronsim import CronSim, CronSimError

from hearth.models.errors import InvalidSchedule
from hearth.models.times import UTC, format_time, parse_time

MIN_EVERY_S: Final = 1
MAX_EVERY_S: Final = 366 * 86_400
MAX_CRON: Final = 256

_SECOND: Final = dt.timedelta(seconds=1)
_EVERY: Final = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_UNITS: Final = (86_400, 3_600, 60, 1)


class Timing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rule for the times at which a schedule fires: one of ``cron``, ``every`` and ``at``.

    Attributes:
        cron: Five fields, in the time of ``timezone``.
        timezone: The IANA name of a time zone; empty for UTC.
        every: A duration such as ``90s`` or ``1h30m``, counted from the anchor of the schedule.
        at: The only time, RFC 3339.
    """

    cron: str = ""
    timezone: str = ""
    every: str = ""
    at: str = ""

    def after(self, moment: dt.datetime, anchor: dt.datetime) -> dt.datetime | None:
        """Return the first firing time after a moment; ``None`` if there is none.

        Args:
            moment: The moment.
            anchor: Where intervals begin to count.
        """
        if self.cron:
            return _cron_after(self.cron, self.timezone, moment)
        if self.every:
            step = every_s(self.every) * _SECOND
            return anchor + max(1, (moment - anchor) // step + 1) * step
        if self.at:
            at = parse_time(self.at)
            return at if at > moment else None
        return None

    def coming(self, moment: dt.datetime, anchor: dt.datetime, most: int) -> list[dt.datetime]:
        """Return the next firing times after a moment, at most ``most``."""
        found: list[dt.datetime] = []
        latest: dt.datetime | None = moment
        while latest is not None and len(found) < most:
            latest = self.after(latest, anchor)
            if latest is not None:
                found.append(latest)
        return found

    def newest(self, first: dt.datetime, last: dt.datetime, anchor: dt.datetime, most: int) -> list[dt.datetime]:
        """Return the newest firing times from ``first`` to ``last``, both included, oldest first; at most ``most``.

        The window that is searched grows from its end, so that a year of missed minutes costs no more than a few.
        """
        window = dt.timedelta(minutes=1)
        while True:
            begin = max(first, last - window) if last - first > window else first
            found = self._between(begin, last, anchor, most)
            if len(found) == most or begin == first:
                return found
            window *= 2

    def _between(self, first: dt.datetime, last: dt.datetime, anchor: dt.datetime, most: int) -> list[dt.datetime]:
        found: deque[dt.datetime] = deque(maxlen=most)
        moment = self.after(first - dt.timedelta(microseconds=1), anchor)
        while moment is not None and moment <= last:
            found.append(moment)
            moment = self.after(moment, anchor)
        return list(found)


def validate_timing(given: Timing, now: dt.datetime) -> Timing:
    """Return the rule in its usual form after checking it.

    Args:
        given: The rule as a client wrote it.
        now: The present time: an expression that never fires after it is refused.

    Raises:
        InvalidSchedule: Names the field and says what is wrong.
    """
    named = [name for name in ("cron", "every", "at") if getattr(given, name)]
    if len(named) != 1:
        raise InvalidSchedule("exactly one of cron, every and at is needed")
    if given.timezone and not given.cron:
        raise InvalidSchedule("timezone: only cron has a time zone")
    if given.every:
        every_s(given.every)
        return given
    if given.at:
        return _validated_at(given.at)
    zone_of(given.timezone)
    cron = " ".join(given.cron.split())
    if len(cron) > MAX_CRON or len(cron.split()) != 5:
        raise InvalidSchedule("cron: it must have five fields: minute, hour, day of month, month, day of week")
    timing = Timing(cron=cron, timezone=given.timezone)
    try:
        never = timing.after(now, now) is None
    except CronSimError as exc:
        problem = str(exc).lower() + (", or no month has such a day" if "day-of-month" in str(exc) else "")
        raise InvalidSchedule(f"cron: {cron!r}: {problem}") from None
    except OverflowError:
        never = True
    if never:
        raise InvalidSchedule(f"cron: {cron!r} never fires")
    return timing


def refuse_past(timing: Timing, now: dt.datetime) -> None:
    """Check that a rule fires again.

    Raises:
        InvalidSchedule: Its only time is over.
    """
    if timing.at and parse_time(timing.at) <= now:
        raise InvalidSchedule(f"at: {timing.at} is in the past, so it never fires")


def every_s(text: str) -> int:
    """Return the seconds of an interval.

    Raises:
        InvalidSchedule: It is no interval, or out of range.
    """
    found = _EVERY.fullmatch(text)
    seconds = sum(int(count or 0) * unit for count, unit in zip(found.groups(), _UNITS, strict=True)) if found else 0
    if not MIN_EVERY_S <= seconds <= MAX_EVERY_S:
        raise InvalidSchedule(f"every: {text!r} must be a duration such as 90s, 15m, 1h30m or 1d, up to 366d")
    return seconds


@functools.lru_cache(maxsize=256)
def zone_of(name: str) -> dt.tzinfo:
    """Return a time zone.

    Raises:
        InvalidSchedule: There is none of this name.
    """
    if not name or name == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, or a very long name
        raise InvalidSchedule(f"timezone: {name[:64]!r} is no time zone, such as Europe/Berlin") from None


def _validated_at(text: str) -> Timing:
    try:
        at = parse_time(text)
    except ValueError:
        raise InvalidSchedule(f"at: {text[:64]!r} must be an RFC 3339 time, such as 2030-01-31T12:00:00Z") from None
    return Timing(at=format_time(at))


def _cron_after(cron: str, timezone: str, moment: dt.datetime) -> dt.datetime | None:
    """Return the first time of a cron expression after a moment.

    As in Debian's cron, an expression with a fixed hour and minute fires once where an hour is repeated, and right
    after an hour that is skipped. One with ``*`` in either follows the clock on the wall.
    """
    # The expression yields a time again for each time of day within a skipped hour, and earlier ones from a repeated
    # hour on.
    for found in CronSim(cron, moment.astimezone(zone_of(timezone))):
        if (after := found.astimezone(UTC)) > moment:
            return after
    return None
