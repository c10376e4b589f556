"""The invocation front: /r/APP/PATH, raw ASGI, before any framework (protocols specification 1, 6)."""

from __future__ import annotations

import asyncio
import email.utils
import functools
from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from hearth.access.base import DataAccess
from hearth.access.cached import Definitions
from hearth.agent.agent import Agent
from hearth.agent.call import ActiveCall, ClientGone
from hearth.agent.function import Function
from hearth.clock import Clock
from hearth.expiry import Expiries
from hearth.models.call import QUEUED
from hearth.models.errors import AppsMissingName, BodyTooLarge, CallTimeout, InvalidPayload, PathNotFound, ServerBusy
from hearth.models.route import HeaderMap, clean_path
from hearth.models.times import format_duration
from hearth.protocols.base import HOP_BY_HOP, Head, canonical
from hearth.protocols.fields import blank_controls, is_token
from hearth.server import errors
from hearth.server.body import WATCH_AFTER_S, AsgiBody, ClientWatch
from hearth.server.traced import label

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE"})

#: Headers of which an answer has one: the function's replaces what was there.
_SINGLE: Final = frozenset(
    {
        "Content-Type",
        "Content-Length",
        "Date",
        "Location",
        "Etag",
        "Last-Modified",
        "Server",
        "Content-Encoding",
    }
)
#: Headers that only Hearth sets.
_OURS: Final = frozenset({"Fn_call_id", "Xxx-Fxlb-Wait"})
#: Request headers that are no part of the call's header map.
_FRAMING: Final = frozenset({"Host", "Transfer-Encoding", "Trailer"})
#: Headers that a route cannot add: they belong to one answer and its connection.
_NOT_OF_ROUTES: Final = _OURS | HOP_BY_HOP | {"Content-Length"}
_BODILESS: Final = frozenset({204, 304})

#: Headers of an answer that a function does not set.
_NOT_OF_FUNCTIONS: Final = _OURS | HOP_BY_HOP
#: Names up to this length are remembered: functions and clients choose them.
_REMEMBERED_LENGTH: Final = 64

Pairs = list[tuple[str, bytes]]


@functools.lru_cache(maxsize=2048)
def _remembered(raw: bytes) -> str:
    return canonical(raw.decode("latin-1"))


def _name(raw: bytes) -> str:
    """A header's canonical name."""
    return _remembered(raw) if len(raw) <= _REMEMBERED_LENGTH else canonical(raw.decode("latin-1"))


@functools.lru_cache(maxsize=2048)
def _remembered_bytes(name: str) -> bytes:
    return name.encode()


def _line(pair: tuple[str, bytes]) -> tuple[bytes, bytes]:
    name, value = pair
    return (_remembered_bytes(name) if len(name) <= _REMEMBERED_LENGTH else name.encode()), value


class InvokeFront:
    """Answers calls.

    Args:
        access: Takes async calls.
        next_id: Makes the ids of calls.
    """

    def __init__(
        self,
        agent: Agent,
        definitions: Definitions,
        access: DataAccess,
        clock: Clock,
        next_id: Callable[[], str],
    ) -> None:
        self._agent = agent
        self._definitions = definitions
        self._access = access
        self._clock = clock
        self._next_id = next_id
        self._patience = Expiries(clock, WATCH_AFTER_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        app_name, _, rest = scope["path"][3:].partition("/")
        await self.call(app_name, rest, scope, receive, send)

    async def call(self, app_name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with the function of an app and a path, whatever the request's own path is."""
        answer = Answer(send, scope["method"], self._clock)
        try:
            await self._invoke(app_name, path, scope, receive, answer)
        except ClientGone:
            return
        except Exception as exc:
            named = {"id": answer.call_id, "call_id": answer.call_id} if answer.call_id else {}
            with bound_contextvars(action="invoke", app=app_name, route=clean_path(path), **named):
                if answer.started:
                    errors.tell(exc)  # unfinished: the server closes the connection, and the client sees the truncation
                else:
                    await answer.fail(exc)
        else:
            await answer.finish()

    async def _invoke(self, app_name: str, path: str, scope: Scope, receive: Receive, answer: Answer) -> None:
        if not app_name:
            raise AppsMissingName
        if scope["method"] not in METHODS:
            raise PathNotFound.of(scope["path"])
        path = clean_path(path)
        pair = self._definitions.get_nowait(app_name, path)
        if pair is None:
            pair = await self._definitions.get(app_name, path)
        label(scope, app_name, path)
        call_id = self._next_id()
        answer.identify(call_id, pair[1].headers)
        function = self._agent.function(*pair)
        self._agent.check_capacity(function)
        body = AsgiBody(scope, receive)
        if not function.is_sync:
            await self._accept(scope, function, call_id, body, answer)
            return
        call = self._call(scope, function, call_id, body, answer)
        answer.call = call
        with ClientWatch(call.body, receive, self._patience) as watch:
            try:
                await self._agent.submit(call)
            except asyncio.CancelledError:
                watch.settle()
                raise

    def _call(self, scope: Scope, function: Function, call_id: str, body: AsgiBody, answer: Answer) -> ActiveCall:
        headers, url = _request_line(scope)
        return self._agent.new_call(
            function, call_id, method=scope["method"], url=url, headers=headers, body=body, sink=answer
        )

    async def _accept(self, scope: Scope, function: Function, call_id: str, body: AsgiBody, answer: Answer) -> None:
        """Keep an async call; 202 only for what is durable (protocols specification 7)."""
        headers, url = _request_line(scope)
        record = function.record(call_id, self._clock.now(), method=scope["method"], url=url, headers=headers)
        record.status = QUEUED
        record.payload = await _payload(body)
        await self._access.enqueue(record)
        answer.accepted(call_id)


class Answer:
    """The response of one call: a :class:`~hearth.agent.call.ResponseSink` over ASGI.

    Nothing is sent before the first byte of the body, and the last byte not before the call is recorded, so that an
    error can still be told while nothing was sent, and a client that has its answer finds the record.
    """

    __slots__ = (
        "_base",
        "_bodiless",
        "_clock",
        "_head",
        "_remaining",
        "_send",
        "_status",
        "_tail",
        "call",
        "call_id",
        "started",
    )

    def __init__(self, send: Send, method: str, clock: Clock) -> None:
        self.started = False
        self._clock = clock
        self.call_id = ""
        self.call: ActiveCall | None = None
        self._send = send
        self._bodiless = method == "HEAD"
        self._base: Pairs = []
        self._status = 200
        self._head: Pairs = []
        self._remaining = -1
        self._tail = b""

    def identify(self, call_id: str, route_headers: HeaderMap) -> None:
        """The call has an id: from here on errors, too, carry it and the route's headers."""
        self.call_id = call_id
        self._base = [("Fn_call_id", call_id.encode())]
        for spelled, values in route_headers.items():
            name = canonical(spelled)
            if name not in _NOT_OF_ROUTES and is_token(name):
                self._base += [(name, blank_controls(value).encode()) for value in values]

    def accepted(self, call_id: str) -> None:
        """The call will run some time."""
        self._status = 202
        self._tail = b'{"call_id":"%b"}' % call_id.encode()

    def head(self, head: Head) -> None:
        """The function's status and headers, merged with what is there."""
        self._status = status = head.status
        given: Pairs = []
        for name, value in head.headers:
            if name in _NOT_OF_FUNCTIONS:
                continue
            if name == "Content-Length":
                self._remaining = int(value)
                if status in _BODILESS:
                    continue
            given.append((name, value.encode("latin-1", "replace")))
        self._head = given
        if len(self._base) > 1:  # more than the id
            names = {name for name, _ in given if name in _SINGLE}
            self._base = [pair for pair in self._base if pair[0] not in names]
        if status in _BODILESS:
            self._bodiless = True

    async def write(self, data: bytes, *, last: bool) -> None:
        """Some bytes of the body."""
        if self._bodiless:
            return
        if self._remaining > 0:
            self._remaining -= len(data)
            last = last or self._remaining <= 0
        if last:
            self._tail = data
            return
        if not self.started:
            await self._send_head(self._headers())
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def complete(self) -> None:
        """The last bytes wait for the call's record; see :meth:`finish`."""

    async def finish(self) -> None:
        """The call has ended well: send what is held."""
        if not self.started:
            headers = self._headers()
            if not self._bodiless and self._remaining < 0:
                headers.append(("Content-Length", b"%d" % len(self._tail)))
            await self._send_head(headers)
        await self._send({"type": "http.response.body", "body": self._tail, "more_body": False})

    async def fail(self, exc: Exception) -> None:
        """Nothing was sent yet: tell the error, with nothing that the function said."""
        told = errors.answer(exc)
        self._status = told.status
        headers = [pair for pair in self._base if pair[0] not in _SINGLE]
        headers += [(name, value.encode()) for name, value in told.headers.items()]
        headers.append(("Content-Length", b"%d" % len(told.body)))
        if isinstance(exc, ServerBusy | CallTimeout):
            headers += self._wait_header()
        await self._send_head(headers)
        await self._send({"type": "http.response.body", "body": told.body, "more_body": False})

    def _headers(self) -> Pairs:
        headers = [*self._base, *self._wait_header(), *self._head]
        if "Content-Type" not in [name for name, _ in headers]:
            headers.append(("Content-Type", b"application/json"))
        return headers

    def _wait_header(self) -> Pairs:
        if self.call is None:
            return []
        return [("Xxx-Fxlb-Wait", format_duration(self.call.waited_s).encode())]

    async def _send_head(self, headers: Pairs) -> None:
        self.started = True
        lines = [_line(pair) for pair in headers]
        if "Date" not in [name for name, _ in headers]:
            lines.append((b"Date", _date(self._clock.now_ms() // 1000)))
        await self._send({"type": "http.response.start", "status": self._status, "headers": lines})


@functools.lru_cache(maxsize=2)  # once a second, not once a call
def _date(second: int) -> bytes:
    return email.utils.formatdate(second, usegmt=True).encode()


async def _payload(body: AsgiBody) -> bytes:
    pieces: list[bytes] = []
    try:
        while piece := await body.read():
            pieces.append(piece)
    except BodyTooLarge as exc:
        raise InvalidPayload from exc
    return b"".join(pieces)


def _request_line(scope: Scope) -> tuple[HeaderMap, str]:
    """The call's header map, canonical names, and its URL."""
    headers: HeaderMap = {}
    host = ""
    pairs: list[tuple[bytes, bytes]] = scope["headers"]
    for raw_name, raw_value in pairs:
        name = _name(raw_name)
        value = raw_value.decode("latin-1")
        if name not in _FRAMING:
            known = headers.get(name)
            if known is None:
                headers[name] = [value]
            else:
                known.append(value)
        elif name == "Host":
            host = value
    query: bytes = scope["query_string"]
    target = scope["raw_path"].decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")
    return headers, f"{scope['scheme']}://{host}{target}"
