"""Following an app: the logs of its calls, as they end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Final

import typer

from hearth.cli.client import Client, Record, ServerError
from hearth.cli.fields import unix_seconds
from hearth.cli.output import Format

#: Seconds between two looks.
_PAUSE_S: Final = 0.5
#: A call's record may show up this many seconds after the call was made: the longest sync call, and its wait.
_LATE_S: Final = 250
_MOST: Final = 10_000
_UNDER_WAY: Final = ("queued", "running")


class Follower:
    """Tells which calls have ended since the last look.

    The list is in the order of making, not of ending, and a sync call is listed only when it has ended: so each look
    goes back as far as a call can take. Async calls are listed from the start, and are looked at until they have ended.
    """

    def __init__(self, client: Client, app: str, path: str) -> None:
        self._client = client
        self._app = app
        self._path = path
        self._known: dict[str, int] = {}
        self._under_way: set[str] = set()
        self._newest_s = 0
        for call in client.calls(app, 1, path=path):
            self._newest_s = _created_s(call)
        for _ in self._listed():
            pass

    def ended(self) -> list[Record]:
        """The calls that have ended since the last look, in the order of their ends."""
        late = [call for call in map(self._look, sorted(self._under_way)) if call["status"] not in _UNDER_WAY]
        self._under_way -= {call["id"] for call in late}
        return sorted([*late, *self._listed()], key=lambda call: str(call["completed_at"]))

    def _look(self, call_id: str) -> Record:
        return self._client.call(self._app, call_id)

    def _listed(self) -> Iterator[Record]:
        """Calls that were not listed before, and have ended."""
        since = max(self._newest_s - _LATE_S, 0)
        self._known = {call_id: made for call_id, made in self._known.items() if made >= since}
        for call in self._client.calls(self._app, _MOST, path=self._path, from_time=str(since)):
            if call["id"] in self._known:
                continue
            self._known[call["id"]] = made = _created_s(call)
            self._newest_s = max(self._newest_s, made)
            if call["status"] in _UNDER_WAY:
                self._under_way.add(call["id"])
            else:
                yield call


def follow_logs(client: Client, app: str, path: str, output: Format) -> None:
    """Print the logs of calls that end from now on, until interrupted."""
    follower = Follower(client, app, path)
    while True:
        for call in follower.ended():
            _print(call, _log(client, app, call["id"]), output)
        time.sleep(_PAUSE_S)


def _log(client: Client, app: str, call_id: str) -> str:
    try:
        return client.log(app, call_id)
    except ServerError as exc:
        if exc.status != 404:
            raise
        return ""  # it wrote nothing


def _print(call: Record, text: str, output: Format) -> None:
    if output is Format.JSON:
        typer.echo(json.dumps({**call, "log": text}, ensure_ascii=False))
        return
    error = f" {call['error']}" if call.get("error") else ""
    typer.echo(f"{call['completed_at']} {call['id']} {call['path']} {call['status']}{error}")
    for line in text.splitlines():
        typer.echo(f"  {line}")


def _created_s(call: Record) -> int:
    return int(unix_seconds(call["created_at"], "created_at"))
