"""Lists of calls with filters for which no index exists.

What an index can find, the store finds. For the rest it reads a bounded number of calls, newest first, and the answer
says where it stopped: a table of ten million calls is never read to its end.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any, Final

from hearth.models.call import FINAL, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.times import ZERO, format_time
from hearth.server.api_v1.encode import call_json
from hearth.stores.records.base import CallFilter, RecordStore

#: Calls that are read for one answer, and in one query.
MAX_SCANNED: Final = 2000
_PIECE: Final = 250
#: Statuses that the index by status holds.
_INDEXED: Final = frozenset({QUEUED, RUNNING, *FINAL}) - {SUCCESS}
_MS: Final = dt.timedelta(milliseconds=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The calls to list.

    Attributes:
        apps: The apps that the principal reaches; empty for all.
        error: A text that the error contains, in any case.
        min_ms: The least duration in milliseconds.
    """

    apps: frozenset[str] = frozenset()
    app: str = ""
    path: str = ""
    status: str = ""
    error: str = ""
    min_ms: int = 0
    from_time: dt.datetime | None = None
    to_time: dt.datetime | None = None
    cursor: str = ""
    per_page: int = 50

    def matches(self, call: Call) -> bool:
        """Return whether a call is wanted."""
        return (
            (not self.apps or call.app_name in self.apps)
            and (not self.path or call.path == self.path)
            and (not self.status or call.status == self.status)
            and self.error.casefold() in call.error.casefold()
            and (not self.min_ms or duration(call) >= self.min_ms * _MS)
        )


def duration(call: Call) -> dt.timedelta:
    """Return how long a call ran; zero while it has not ended."""
    if ZERO in (call.started_at, call.completed_at):
        return dt.timedelta()
    return max(dt.timedelta(), call.completed_at - call.started_at)


async def list_calls(store: RecordStore, wanted: Wanted) -> dict[str, Any]:
    """Return a page of calls, newest first, how many were read for it, and where that ended.

    ``next_cursor`` continues behind the last call that was read; it is empty after the oldest.
    """
    found: list[Call] = []
    scanned, cursor, last = 0, wanted.cursor, None
    is_end = False
    while not is_end and len(found) < wanted.per_page and scanned < MAX_SCANNED:
        piece = await store.get_calls(_indexed(wanted, cursor))
        is_end = len(piece) < _PIECE
        for call in piece:
            scanned, cursor, last = scanned + 1, call.id, call
            if wanted.matches(call):
                found.append(call)
                if len(found) == wanted.per_page:
                    is_end = is_end and call is piece[-1]
                    break
    return {
        "calls": [call_json(call) for call in found],
        "scanned": scanned,
        "stopped_at": "" if is_end or last is None else format_time(last.created_at),
        "next_cursor": "" if is_end else cursor,
        "is_cut": not is_end and len(found) < wanted.per_page,
    }


def _indexed(wanted: Wanted, cursor: str) -> CallFilter:
    """Return the part of the filter that walks an index in the order of the answer."""
    by_status = bool(wanted.app) and not wanted.path and wanted.status in _INDEXED
    return CallFilter(
        app_name=wanted.app,
        path=wanted.path if wanted.app else "",
        status=wanted.status if by_status else "",
        cursor=cursor,
        per_page=_PIECE,
        from_time=wanted.from_time,
        to_time=wanted.to_time,
    )
