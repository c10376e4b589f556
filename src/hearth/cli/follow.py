"""Follow an app: print the logs of its calls as they end."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Final

from hearth.cli.client import Client, Record
from hearth.cli.fields import unix_seconds
from hearth.cli.output import Format, say, show_bytes
from hearth.cli.progress import progress

#: Seconds between two looks.
_PAUSE_S: Final = 0.25
#: A call's record may show up this many seconds after the call was made: the longest sync call, and its wait.
_LATE_S: Final = 250
#: A short look goes back until it has met so many known calls: less than a page, so that it is mostly one request.
_OVERLAP: Final = 50
#: Calls that a short look less is made for, before the next long one.
_CALLS_PER_LOOK: Final = 200
_MOST: Final = 1_000_000
#: Calls of the past whose logs are printed.
_MOST_PAST: Final = 1_000
_UNDER_WAY: Final = ("queued", "running")


class Follower:
    """Tells which calls have ended since the last look.

    The list is in the order of making, not of ending, and a sync call is listed only when it has ended. So a long look
    goes back as far as a call can take, and finds every one. Most looks are short: they see the newest calls, among
    which one that ends is found unless many were made since. The more calls there are, the rarer is the long look.

    Async calls are listed from the start, and are looked at until they have ended.
    """

    def __init__(self, client: Client, app: str, path: str) -> None:
        self._client = client
        self._app = app
        self._path = path
        self._known: dict[str, int] = {}
        self._under_way: set[str] = set()
        self._newest_s = self._oldest_s = 0
        self._short_looks = 0
        for call in client.calls(app, 1, path=path):
            self._newest_s = _created_s(call)
        self._long_look()

    def ended(self) -> list[Record]:
        """Return the calls that have ended since the last look, in the order of their ends."""
        if self._short_looks:
            self._short_looks -= 1
            found = self._short_look()
        else:
            found = self._long_look()
        return sorted(found, key=lambda call: str(call["completed_at"]))

    def knew_end(self, call: Record) -> bool:
        """Return whether a call had ended before the first look; :meth:`ended` never returns it."""
        return _created_s(call) <= self._oldest_s or (call["id"] in self._known and call["id"] not in self._under_way)

    def _short_look(self) -> list[Record]:
        ended, met = [], 0
        for call in self._client.calls(self._app, _MOST, path=self._path):
            met += call["id"] in self._known or _created_s(call) <= self._oldest_s
            if self._is_news(call):
                ended.append(call)
            if met >= _OVERLAP:
                break
        return ended

    def _long_look(self) -> list[Record]:
        since = max(self._newest_s - _LATE_S, 0)
        listed = list(self._client.calls(self._app, _MOST, path=self._path, from_time=str(since)))
        self._short_looks = len(listed) // _CALLS_PER_LOOK
        older = self._under_way - {call["id"] for call in listed}
        looked_up = [self._client.call(self._app, call_id) for call_id in sorted(older)]
        ended = [call for call in [*listed, *looked_up] if self._is_news(call)]
        self._oldest_s = since
        self._known = {call_id: made for call_id, made in self._known.items() if made > since}
        return ended

    def _is_news(self, call: Record) -> bool:
        """Return whether this call has ended since the last look."""
        call_id, made = call["id"], _created_s(call)
        if call["status"] in _UNDER_WAY:
            if made > self._oldest_s:
                self._note(call_id, made)
                self._under_way.add(call_id)
            return False
        if call_id in self._under_way:
            self._under_way.discard(call_id)
            return True
        if call_id in self._known or made <= self._oldest_s:
            return False
        self._note(call_id, made)
        return True

    def _note(self, call_id: str, made: int) -> None:
        self._known[call_id] = made
        self._newest_s = max(self._newest_s, made)


@dataclasses.dataclass(frozen=True, slots=True)
class Past:
    """The part of the past that is printed first.

    Attributes:
        since: Calls created before are left out; ``None`` for no such limit.
        lines: The last so many lines of logs; ``None`` for all.
    """

    since: dt.datetime | None = None
    lines: int | None = None

    def __bool__(self) -> bool:
        return self.since is not None or self.lines is not None


def follow_logs(client: Client, app: str, path: str, past: Past, output: Format) -> None:
    """Print logs of the past, if any are wanted; then those of calls that end from now on, until interrupted."""
    follower = Follower(client, app, path)
    if past:
        show_past(client, app, path, past, output, follower.knew_end)
    while True:
        for call in follower.ended():
            _print(call, client.log_if_any(app, call["id"]), output)
        time.sleep(_PAUSE_S)


def show_past(
    client: Client,
    app: str,
    path: str,
    past: Past,
    output: Format,
    is_wanted: Callable[[Record], bool] = lambda _: True,
) -> None:
    """Print the logs of calls that have ended, oldest first; at most those of the last 1,000 calls."""
    found: list[tuple[Record, bytes]] = []
    left = past.lines
    start = "" if past.since is None else str(int(past.since.timestamp()) - 1)  # the server knows whole seconds
    for call in client.calls(app, _MOST_PAST, path=path, from_time=start):
        if left == 0 or (past.since is not None and dt.datetime.fromisoformat(call["created_at"]) < past.since):
            break
        if call["status"] in _UNDER_WAY or not is_wanted(call):
            continue
        log = client.log_if_any(app, call["id"])
        if left is not None:
            lines = log.splitlines(keepends=True)[-left:]
            left, log = left - len(lines), b"".join(lines)
        found.append((call, log))
    for call, log in reversed(found):
        _print(call, log, output)


def wait_until_ended(client: Client, app: str, call_id: str) -> None:
    """Return when a call has ended."""
    with progress(f"waiting for call {call_id}"):
        while client.call(app, call_id)["status"] in _UNDER_WAY:
            time.sleep(_PAUSE_S)


def _print(call: Record, log: bytes, output: Format) -> None:
    if output is Format.JSON:
        say(json.dumps({**call, "log": log.decode("utf-8", "replace")}, ensure_ascii=False))
        return
    error = f" {call['error']}" if call.get("error") else ""
    say(f"{call['completed_at']} {call['id']} {call['path']} {call['status']}{error}")
    show_bytes([b"".join(b"  %b\n" % line for line in log.splitlines())])


def _created_s(call: Record) -> int:
    return int(unix_seconds(call["created_at"], "created_at"))
