"""``/metrics`` and ``/stats`` of a node with several workers, as one of them serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.server.forwarding import Worker

_METRICS: Final = "/metrics"
_STATS: Final = "/stats"
_HEAD: Final = b"# HELP "


class Sums:
    """An application whose metrics and counts are those of all workers.

    Args:
        app: Answers as the one worker that this is.
        others: The other workers, by number.
        token: Shown to them.
    """

    def __init__(self, app: ASGIApp, others: Mapping[int, Worker], token: str) -> None:
        self._app = app
        self._others = others
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in (_METRICS, _STATS):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        own: list[bytes] = []

        async def catch(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                own.append(message.get("body", b""))

        await self._app(scope, receive, catch)
        assert start is not None
        body = b"".join(own)
        if start["status"] == 200:
            body = await self._whole(scope["path"], body)
        headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    async def _whole(self, path: str, own: bytes) -> bytes:
        answers = await asyncio.gather(*[worker.get(path, self._token) for worker in self._others.values()])
        found = {0: own} | {number: got for number, got in zip(self._others, answers, strict=True) if got is not None}
        if path == _STATS:
            return msgspec.json.encode(add_stats([msgspec.json.decode(one) for one in found.values()]))
        return await asyncio.to_thread(join_metrics, found)  # it can be much


def add_stats(all_stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of the counts of several workers, and of those of each function."""
    total: dict[str, Any] = {}
    for stats in all_stats:
        for name, value in stats.items():
            if isinstance(value, Mapping):
                total[name] = add_stats([total.get(name, {}), value])
            else:
                total[name] = total.get(name, 0) + value
    return total


def join_metrics(texts: Mapping[int, bytes]) -> bytes:
    """Return one exposition with the series of several workers, each with a label ``worker``.

    They are not added up: the counters of a worker that starts again begin at zero, and in a sum that would look as if
    all had.
    """
    families: dict[bytes, list[bytes]] = {}
    for number, text in texts.items():
        label = b'worker="%d"' % number
        for family in (b"\n" + text).split(b"\n" + _HEAD)[1:]:
            head, kind, *series = family.rstrip(b"\n").split(b"\n")
            lines = families.setdefault(head.partition(b" ")[0], [_HEAD + head, kind])
            lines += _labelled(series, label)
    return b"".join(b"\n".join(lines) + b"\n" for lines in families.values())


def _labelled(series: Iterable[bytes], label: bytes) -> list[bytes]:
    found = []
    for line in series:
        name, brace, rest = line.partition(b"{")
        if brace and b" " not in name:
            found.append(name + b"{" + label + (b"" if rest.startswith(b"}") else b",") + rest)
        else:
            name, _, value = line.partition(b" ")
            found.append(name + b"{" + label + b"} " + value)
    return found
