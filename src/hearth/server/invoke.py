"""The front of function calls: from a request to its answer (protocols specification 1, 6).

It stands before any framework. Routes are called as /r/APP/PATH, fns as /invoke/FN_ID and /t/APP/SOURCE.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final
from urllib.parse import quote

import msgspec
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from hearth.access.base import AcceptedCalls
from hearth.access.cache import CachedDefinitions
from hearth.access.fn_cache import CachedFns
from hearth.agent.agent import Agent
from hearth.agent.call import ActiveCall, ClientGone
from hearth.agent.shares import Share
from hearth.aio.clock import Clock
from hearth.aio.deadlines import Expiries, TimeLimit
from hearth.contracts.base import HOP_BY_HOP, Composed, Head, canonical
from hearth.contracts.stdio.fields import BODILESS
from hearth.models.call import QUEUED, Call, HeaderMap
from hearth.models.call_result import new_result_token
from hearth.models.destination import DEPTH
from hearth.models.errors import CallTimeout, ReplayedError, RequestBodyTimeout, ServerBusy
from hearth.models.fn_errors import NeverFits
from hearth.models.function import FunctionSpec
from hearth.models.idempotency import StoredKey
from hearth.models.times import ZERO, format_duration
from hearth.server import errors
from hearth.server.api_v1.functions import Functions
from hearth.server.api_v2.functions import FnFunctions
from hearth.server.asgi_calls import AsgiExchange
from hearth.server.call_gates import CallGates
from hearth.server.call_io import CallExchange, beginning, read_all
from hearth.server.delays import deliver
from hearth.server.fn_targets import FnTargets
from hearth.server.http.exchange import Arrival, HttpExchange, compose_start
from hearth.server.http.parsing import RequestHead
from hearth.server.http.shared import ROUTES, Handler
from hearth.server.keyed_calls import KEY, REPLAY, HeldKey, KeyedCalls, KeyedRequest
from hearth.server.targets import METHODS, OURS, SINGLE, Fields, RouteTargets, Starts, Target, Targets, route_names
from hearth.server.traced import label
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.tracing import Tracing

#: Default limit on a body that is held in memory.
DEFAULT_MAX_HELD_BYTES: Final = 16 << 20

#: Request headers that are no part of the header map of a call.
_FRAMING: Final = frozenset({"Host", "Transfer-Encoding", "Trailer"})
#: Headers of an answer that a function does not set.
_NOT_OF_FUNCTIONS: Final = OURS | HOP_BY_HOP
_SINGLE_FIELDS: Final = frozenset(name.lower().encode() for name in SINGLE)
_WAIT: Final = b"xxx-fxlb-wait"
#: The rest of a head whose beginning is known: the id of the call, the length of the body, the wait.
_START_OF_ROUTE: Final = b"%%b\r\nfn_call_id: %%b\r\ncontent-length: %%d\r\n%b: %%b" % _WAIT
_INVOKE_TYPE: Final = "Fn-Invoke-Type"
_DETACHED: Final = ["detached"]
_RESPOND_ASYNC: Final = "respond-async"
_LENGTH: Final = b"content-length"
_DEFAULT_TYPE: Final = (b"content-type", b"application/json")
#: Those of a request whose function is not known; nothing is added to them.
_NO_STARTS: Final = Starts()
#: Names of header fields up to this length are remembered: clients and functions choose them.
_REMEMBERED_LENGTH: Final = 64

#: Names the app and the route of a request, once it is known that they exist.
Label = Callable[[str, str], None]

_log = get_logger(__name__)


class Answer(msgspec.Struct, eq=False):
    """A :class:`~hearth.contracts.base.ResponseSink`: collects an answer, and sends it.

    Nothing is sent before the first byte of the body, and the last byte not before the call is recorded. So an error
    can still be reported while nothing was sent, and a client that has its answer finds the record.

    A struct, because its constructor takes no call of Python's.

    Attributes:
        exchange: Where it is sent.
        is_bodiless: Its body is not sent.
        starts: The beginnings of answers that were composed before. A function tends to begin all of them alike.
        call: The call that it answers, once it was made.
        call_id: The id of the call, once it is known that there is such a function.
        of_route: The header fields of its route.
        status: Its status.
        given: The header fields of the function.
        remaining: Bytes of the body that the function has announced and not written; negative if it has not said.
        is_streamed: Some of its body was handed over before the end.
        tail: The bytes of the body that are held until the call is recorded.
        whole: The head of an answer in one piece, which is composed when the call has ended.
    """

    #: The name of the field with the id of the call.
    id_field: ClassVar[bytes] = b"fn_call_id"
    #: It says how long the call waited, and has the type of JSON if the function gave none.
    is_of_route: ClassVar[bool] = True

    exchange: CallExchange
    is_bodiless: bool
    starts: Starts
    call: ActiveCall | None = None
    call_id: str = ""
    of_route: Fields = ()
    status: int = 200
    given: Fields = ()
    remaining: int = -1
    is_streamed: bool = False
    tail: bytes = b""
    whole: Head | None = None

    @property
    def started(self) -> bool:
        """The client was sent something: the status can no longer change."""
        return self.exchange.started

    def accept(self) -> None:
        """Answer that the call will run at some time."""
        self.status = 202
        self.tail = b'{"call_id":"%b"}' % self.call_id.encode()

    def replay(self, stored: StoredKey) -> None:
        """Take the stored answer to an earlier request.

        Raises:
            ReplayedError: The answer was an error.
        """
        result, self.call_id = stored.result, stored.call_id
        assert result is not None
        if result.error:
            raise ReplayedError(result.status, result.error, (*result.headers, (REPLAY, "true")))
        self.of_route = [(name.encode(), value.encode()) for name, value in result.of_route]
        self.head(Head(result.status, result.headers))
        if not self.is_bodiless:
            self.tail = result.body
        fields = [(REPLAY.lower().encode(), b"true")]
        if self.is_of_route and result.waited_s >= 0:
            fields.append((_WAIT, format_duration(result.waited_s).encode()))
        self.located(fields)

    def located(self, fields: Fields) -> None:
        """Add header fields to the answer that says where the result will be."""
        self.given = [*self.given, *fields]

    def head(self, head: Head) -> None:
        """Take the function's status and headers."""
        self.status = status = head.status
        given = self.given = []
        for name, value in head.headers:
            if name in _NOT_OF_FUNCTIONS:
                continue
            if name == "Content-Length":
                self.remaining = int(value)
                if status in BODILESS:
                    continue
            field_name = _remembered_field(name) if len(name) <= _REMEMBERED_LENGTH else _lower(name)
            given.append((field_name, value.encode("latin-1", "replace")))
        if status in BODILESS:
            self.is_bodiless = True

    def answer(self, head: Head, body: bytes) -> None:
        """Take a whole answer, which waits until the call is recorded."""
        if self.is_bodiless:
            self.head(head)
        else:
            self.whole, self.tail = head, body

    async def write(self, data: bytes, *, last: bool) -> None:
        """Send some bytes of the body; hold the last ones until the call is recorded."""
        if self.is_bodiless:
            return
        if self.remaining > 0:
            self.remaining -= len(data)
            last = last or self.remaining <= 0
        if last:
            self.tail = data
            return
        if not self.is_streamed:
            self.is_streamed = True
            self.exchange.begin(self.status, self._fields())
        await self.exchange.write(data)

    def complete(self) -> None:
        """Do nothing: the last bytes wait for the record of the call; see :meth:`finish`."""

    async def finish(self) -> None:
        """Send what is held: the call has ended well."""
        exchange = self.exchange
        if self.whole is not None:
            self.head(self.whole)
            if self.is_bodiless:
                self.tail = b""
        if not self.is_streamed:
            fields = self._fields()
            if not self.is_bodiless and self.remaining < 0:
                fields.append((b"content-length", b"%d" % len(self.tail)))
            exchange.begin(self.status, fields)
        await exchange.end(self.tail)

    async def fail(self, exc: Exception) -> None:
        """Report an error, with nothing that the function said. Nothing was sent yet."""
        told = errors.answer(exc, self.exchange.head.path)
        fields = [field for field in self.of_route if field[0] not in _SINGLE_FIELDS]
        if self.call_id:
            fields.insert(0, (self.id_field, self.call_id.encode()))
        fields += [(_lower(name), value.encode()) for name, value in told.headers.items()]
        fields.append((b"content-length", b"%d" % len(told.body)))
        call = self.call
        has_waited = isinstance(exc, ServerBusy | CallTimeout) or (call is not None and call.record.started_at != ZERO)
        if call is not None and has_waited and self.is_of_route:
            fields.append((_WAIT, format_duration(call.waited_s).encode()))
        self.exchange.begin(told.status, fields)
        await self.exchange.end(told.body)

    def finish_whole(self, head: Head) -> bool:
        """Send an answer in one piece: the call has ended well. Return false if that takes its fields, or waits."""
        starts = self.starts
        start = starts.start if starts.head is head else self._start(head)
        if not start:
            return False
        tail = self.tail
        if self.is_of_route and self.call is not None:
            start = _START_OF_ROUTE % (
                start,
                self.call_id.encode(),
                len(tail),
                format_duration(self.call.waited_s).encode(),
            )
        else:
            start = b"%b\r\n%b: %b\r\ncontent-length: %d" % (start, self.id_field, self.call_id.encode(), len(tail))
        return self.exchange.send_known(start, tail)

    def _start(self, head: Head) -> bytes:
        """Return the beginning of an answer with this head; empty if it has to be composed of its fields."""
        starts = self.starts
        key = (head.status, *[field for field in head.headers if field[0] != "Content-Length"])
        start = starts.known.get(key)
        if start is None:
            self.head(head)
            start = b""
            if not self.is_bodiless:
                start = compose_start(self.status, [field for field in self._lasting() if field[0] != _LENGTH])
            starts.keep(key, start)
        starts.head, starts.start = head, start
        return start

    def _fields(self) -> list[tuple[bytes, bytes]]:
        return self._own() + self._lasting()

    def _own(self) -> list[tuple[bytes, bytes]]:
        """Return the fields that tell of this call."""
        fields = [(self.id_field, self.call_id.encode())]
        if self.is_of_route and self.call is not None:
            fields.append((_WAIT, format_duration(self.call.waited_s).encode()))
        return fields

    def _lasting(self) -> list[tuple[bytes, bytes]]:
        """Return the fields of the route and of the function."""
        given, of_route = self.given, self.of_route
        if not self.is_of_route:
            return [field for field in given if field[0] != self.id_field]
        fields = list(given)
        if of_route:
            names = {name for name, _ in given}
            kept = [field for field in of_route if field[0] not in names or field[0] not in _SINGLE_FIELDS]
            fields = kept + fields
        if self.status not in BODILESS and b"content-type" not in [name for name, _ in fields]:
            fields.append(_DEFAULT_TYPE)
        return fields


class FnAnswer(Answer):
    """The answer to a call of a fn."""

    id_field: ClassVar[bytes] = b"fn-call-id"
    is_of_route: ClassVar[bool] = False

    def accept(self) -> None:
        """Answer that the call will run at some time."""
        self.status = 202

    async def fail(self, exc: Exception) -> None:
        """Report an error. What never fits is no call."""
        if isinstance(exc, NeverFits):
            self.call_id = ""
        await Answer.fail(self, exc)


class InvokeFront:
    """Answers calls.

    Args:
        functions: Compile routes to functions.
        gates: Find out who may call functions.
        accepted: Takes async calls.
        next_id: Makes the ids of calls.
        tracing: Times the requests that come from the server itself.
        max_bytes: Of the body of a request that comes from the server itself; ``None`` for any.
        max_held_bytes: Of a body that is held in memory.
        has_room: Whether there is room for what a call leaves behind; if not, clients are to go elsewhere.
        fns: Fns, and what compiles them to functions; ``None`` if there are none.
        keyed: Answers requests that are repeated with their ``Idempotency-Key``; ``None`` to ignore that header.
    """

    def __init__(
        self,
        agent: Agent,
        functions: Functions,
        gates: CallGates,
        definitions: CachedDefinitions,
        accepted: AcceptedCalls,
        clock: Clock,
        next_id: Callable[[], str],
        *,
        tracing: Tracing | None = None,
        max_bytes: int | None = None,
        max_held_bytes: int = DEFAULT_MAX_HELD_BYTES,
        has_room: Callable[[], bool] = lambda: True,
        fns: tuple[CachedFns, FnFunctions] | None = None,
        keyed: KeyedCalls | None = None,
    ) -> None:
        self._agent = agent
        self._keyed = keyed
        self._accepted = accepted
        self._clock = clock
        self._now = clock.monotonic
        self._next_id = next_id
        self._tracing = tracing or Tracing(Metrics())
        self._durations = self._tracing.histogram("serve_http")
        self._max_held_bytes = max_held_bytes
        self._routes = RouteTargets(agent, functions, gates, definitions, self._durations, max_held_bytes)
        self._fns: Targets = self._routes
        if fns is not None:
            cached, compiled = fns
            self._fns = FnTargets(agent, compiled, gates, cached, self._durations, max_held_bytes)
        self._max_bytes = max_bytes
        self._has_room = has_room
        self._shares_heads = not agent.has_listeners
        self._body_limits: dict[float, Expiries] = {}

    @property
    def handler(self) -> Handler:
        """Answers the calls that come from the server itself."""
        return self._serve_traced if self._tracing.exports else self.serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call that comes over ASGI."""
        path = scope["path"]
        names = route_names(path) if path.startswith(ROUTES) else None
        await self.serve(AsgiExchange(scope, receive, send), names, functools.partial(label, scope))

    async def call(self, app_name: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with the function of an app and a path, whatever the path of the request is."""
        await self.serve(AsgiExchange(scope, receive, send), (app_name, path), functools.partial(label, scope))

    async def serve(
        self, exchange: CallExchange, names: tuple[str, str] | None = None, marked: Label | None = None
    ) -> None:
        """Answer a call.

        Args:
            exchange: The request.
            names: The app and the path of a route; ``None`` for a request whose path has them, or names a fn.
            marked: Labels the span of the request; ``None`` for a request that is timed here.
        """
        began = time.perf_counter()
        head = exchange.head
        if names is not None or head.path.startswith(ROUTES):
            targets: Targets = self._routes
            answer = Answer(exchange, head.method == "HEAD", _NO_STARTS)
        else:
            targets = self._fns
            answer = FnAnswer(exchange, head.method == "HEAD", _NO_STARTS)
        target: Target | None = None
        admitted: Share | None = None
        held: HeldKey | None = None
        replayed: StoredKey | None = None
        try:
            if names is None:
                most = self._max_bytes
                if most is not None and (exchange.length is None or exchange.length > most):
                    exchange.limit(most)
                target = targets.known.get(head.path)
            if not self._has_room():
                raise ServerBusy
            method = head.method
            if (
                target is None
                or target.definition.until <= self._now()
                or method not in METHODS
                or (target.is_plain and method != "POST")
            ):
                target = None
                target = await targets.find(head, names)
            if marked is not None:
                marked(*target.definition.labels)
            answer.call_id, answer.of_route, answer.starts = self._next_id(), target.fields, target.starts
            spec = target.spec or targets.compile(target)
            if not target.fits:
                raise targets.misfit()
            if target.gate is None and self._shares_heads:
                notes: _Notes | None = head.notes
                if notes is None:
                    notes = head.notes = _Notes(*_header_map(head), {})
                headers, url, composed = notes.headers, notes.url, notes.composed
            else:  # a gate takes the proof out of the headers, and a listener sees all of a call
                (headers, url), composed = _header_map(head), None
            most = target.most_bytes
            located = False
            if target.is_plain:
                if target.detached is not None and headers.get(_INVOKE_TYPE) == _DETACHED:
                    spec, most, located = target.detached, target.most_detached_bytes, True
            elif (preferences := headers.get("Prefer")) is not None and _prefers_async(preferences):
                if target.detached is not None:
                    spec, most, located = target.detached, target.most_detached_bytes, True
                else:
                    located = not spec.is_sync
            if most is not None and (exchange.length is None or exchange.length > most):
                exchange.limit(most)
            body: bytes | None = None
            if target.gate is not None:
                body = await target.gate.admit(exchange, headers, lambda: self._whole(exchange, spec.timeout_s))
            if target.checks_head is not None:
                target.checks_head(url, headers)
            if KEY in headers and self._keyed is not None:
                if body is None:
                    exchange.limit(target.most_detached_bytes)
                    body = await self._whole(exchange, spec.timeout_s)
                call_id, answer.call_id = answer.call_id, ""  # an error here is one of no call
                keyed = await self._keyed.claim(_keyed_request(headers, target, spec, method, body, exchange), call_id)
                if isinstance(keyed, HeldKey):
                    held, answer.call_id = keyed, keyed.call_id
                else:
                    replayed = keyed
            if replayed is not None:
                answer.replay(replayed)
            elif spec.is_sync:
                if body is None:
                    body = exchange.whole()
                if body is None:
                    body = await self._begin(exchange, spec.timeout_s)
                if target.counted is not None:
                    target.counted.admit(self._now())
                    admitted = target.counted
                sink = answer if held is None else held.sink(answer)
                call = answer.call = self._agent.new_call(
                    spec, answer.call_id, method=method, url=url, headers=headers, body=exchange, sink=sink
                )
                call.is_plain, call.composed = target.is_plain, composed
                call.record.trigger_id = target.trigger_id
                if body:
                    call.kept_body.append(body)
                task = exchange.watcher = call.task = asyncio.current_task(self._agent.loop)
                if held is not None:
                    held.call, exchange.watcher = call, None
                try:
                    if exchange.arrival is Arrival.GONE:
                        raise ClientGone
                    await self._agent.submit(call)
                except asyncio.CancelledError:
                    if exchange.arrival is Arrival.GONE and task is not None:
                        task.uncancel()
                        raise ClientGone from None
                    raise
                finally:
                    exchange.watcher = call.task = None
            else:
                if target.counted is not None:
                    target.counted.accept(self._now())
                own = {name: [*values] for name, values in headers.items()}
                if DEPTH in own and exchange.client:
                    del own[DEPTH]  # only this node itself counts
                record = Call.of(spec, answer.call_id, self._clock.now(), method=method, url=url, headers=own)
                record.trigger_id = target.trigger_id
                deliver(record, target.delivery, target.fields)
                token = ""
                if located:
                    token, record.result_digest = new_result_token()
                if held is not None and held.is_accepted:
                    answer.accept()  # an earlier request has put it into the queue, and only that knows its token
                else:
                    await self._accept(record, exchange, body, answer)
                    if located:
                        answer.located(_location(record, spec, token, applied=not target.is_plain))
                if held is not None:
                    held.accepted(answer.status, answer.given, answer.tail)
            if held is not None:
                await held.settle(None)
        except ClientGone as exc:
            if held is not None:
                await held.settle(exc)
            return
        except Exception as exc:
            if held is not None:
                await held.settle(exc)
            await self._report(exc if target is None else target.explain(exc), answer, targets.log_fields(head, names))
        else:
            if answer.whole is None or not answer.finish_whole(answer.whole):
                await answer.finish()
        finally:
            if held is not None:
                held.abandon()
            if admitted is not None:
                admitted.leave()
            answer.call = None  # its sink is the answer: neither would be freed before the garbage collector runs
            if marked is None:
                durations = self._durations.series() if target is None else target.durations
                durations.observe(time.perf_counter() - began)

    async def _serve_traced(self, exchange: HttpExchange) -> None:
        with self._tracing.serving(exchange.head.path, exchange.head.headers) as span:
            await self.serve(exchange, None, span.label)

    async def _report(self, exc: Exception, answer: Answer, named: dict[str, str]) -> None:
        """Tell the client of an error, if it was not sent anything; else only the log."""
        if answer.call_id:
            named |= {"id": answer.call_id, "call_id": answer.call_id}
        with bound_contextvars(action="invoke", **named):
            if answer.started:
                errors.tell(exc)  # the answer stays cut off: the server closes the connection
            else:
                await answer.fail(exc)

    async def _whole(self, exchange: CallExchange, limit_s: float) -> bytes:
        """Return the whole body, before the time of the call begins."""
        body = exchange.whole()
        return await self._begin(exchange, limit_s, read_all) if body is None else body

    async def _begin(
        self, exchange: CallExchange, limit_s: float, read: Callable[[CallExchange], Awaitable[bytes]] = beginning
    ) -> bytes:
        """Return the beginning of the body, before the time of the call begins."""
        task = asyncio.current_task()
        assert task is not None
        limits = self._body_limits.get(limit_s)
        if limits is None:
            limits = self._body_limits[limit_s] = Expiries(self._clock, limit_s)
        try:
            with TimeLimit(limits, task):
                return await read(exchange)
        except TimeoutError:
            raise RequestBodyTimeout(limit_s) from None

    async def _accept(self, record: Call, exchange: CallExchange, body: bytes | None, answer: Answer) -> None:
        """Keep an async call, whose body may be known; 202 only for what is durable (protocols specification 7)."""
        record.status = QUEUED
        record.payload = await read_all(exchange) if body is None else body
        await self._accepted.enqueue(record)
        _log.debug("call accepted and queued", call_id=record.id, app_name=record.app_name, path=record.path)
        answer.accept()


def _keyed_request(
    headers: HeaderMap, target: Target, spec: FunctionSpec, method: str, body: bytes, exchange: CallExchange
) -> KeyedRequest:
    of_route = tuple((name.decode(), value.decode()) for name, value in target.fields)
    return KeyedRequest(headers[KEY], spec, method, body, of_route, target.delivery.idempotency_ttl_s, exchange)


def _prefers_async(values: list[str]) -> bool:
    """Return whether a client prefers an answer at once (RFC 7240, 4.1)."""
    return any(
        preference.partition(";")[0].strip().lower() == _RESPOND_ASYNC
        for value in values
        for preference in value.split(",")
    )


def _location(record: Call, spec: FunctionSpec, token: str, *, applied: bool) -> Fields:
    """Return the header fields that say where the result of a call will be."""
    where = f"/v2/fns/{spec.ref.id}" if spec.ref.is_fn else f"/v1/apps/{quote(record.app_name, safe='')}"
    fields = [(b"location", f"{where}/calls/{record.id}/result?token={token}".encode())]
    return [*fields, (b"preference-applied", _RESPOND_ASYNC.encode())] if applied else fields


class _Notes(msgspec.Struct, frozen=True, eq=False):
    """The parts that calls with the same head share. None of them changes it.

    Attributes:
        headers: Their header map.
        url: Their URL.
        composed: The parts that contracts remember, see :class:`~hearth.contracts.base.CallInput`.
    """

    headers: HeaderMap
    url: str
    composed: dict[str, Composed]


def _header_map(head: RequestHead) -> tuple[HeaderMap, str]:
    """Return the header map of a call, canonical names, and its URL."""
    headers: HeaderMap = {}
    host = ""
    for raw_name, raw_value in head.headers:
        name = _remembered_name(raw_name) if len(raw_name) <= _REMEMBERED_LENGTH else _canonical(raw_name)
        value = raw_value.decode("latin-1")
        if name not in _FRAMING:
            known = headers.get(name)
            if known is None:
                headers[name] = [value]
            else:
                known.append(value)
        elif name == "Host":
            host = value
    return headers, f"{head.scheme}://{host}{head.target}"


def _canonical(raw: bytes) -> str:
    return canonical(raw.decode("latin-1"))


_remembered_name = functools.lru_cache(maxsize=2048)(_canonical)


def _lower(name: str) -> bytes:
    return name.lower().encode()


_remembered_field = functools.lru_cache(maxsize=2048)(_lower)
