"""One connection of a client: requests in, answers out in the same order.

::

    OPEN --a refusal, or a drain--> LAST --the last answer is sent--> CLOSED
    OPEN --an answer with Connection: close is sent--> CLOSED
    TURNED_AWAY (no descriptor is left, or its client has too many connections)
      --the first bytes, or a second; at once if hardly any descriptor is left--> CLOSED
       any of them --the client leaves--> CLOSED

The head of a request has limited time (that of the first, from the beginning of the connection), and so has a
connection on which nothing happens between two requests. Bodies and answers have no limit.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hearth.agent.call import ClientGone
from hearth.aio.deadlines import Expiries
from hearth.models.errors import RETRY_AFTER_S, ServerBusy
from hearth.server import errors
from hearth.server.errors import JSON_TYPE
from hearth.server.http.asgi import run_asgi
from hearth.server.http.clients import Client
from hearth.server.http.exchange import CONTINUE, HIGH_WATER_BYTES, STATUS_LINES, Arrival, HttpExchange, Progress
from hearth.server.http.flow import Flow
from hearth.server.http.heads import SMALL_HEAD_BYTES, HeldHeads
from hearth.server.http.parsing import Reading, Refused, RequestHead, RequestParser
from hearth.server.http.shared import CALLS, KEEP_ALIVE_S, Handler, Shared

#: Requests that may wait for the answer to the one before: each costs time when its head is read.
MAX_PIPELINED: Final = 200


class Life(enum.Enum):
    """The life of a connection."""

    TURNED_AWAY = "turned away"
    OPEN = "open"
    LAST = "last"  # no further request is read
    CLOSED = "closed"


class HttpConnection(asyncio.Protocol):
    """A connection. A request that cannot be read is refused after the answers to those before it.

    Args:
        shared: What it has in common with the other connections of its server.
        scheme: ``https`` for a connection within TLS.

    Attributes:
        client: The client at the other end; who sets it before the connection is made counts the connection.
    """

    __slots__ = (
        "_answers",
        "_arriving",
        "_counted",
        "_heads",
        "_idle_since",
        "_idle_timer",
        "_last_words",
        "_life",
        "_limit",
        "_parser",
        "_refused_with",
        "_shared",
        "client",
        "dates",
        "flow",
        "transport",
    )

    transport: asyncio.Transport
    flow: Flow

    def __init__(self, shared: Shared, scheme: str = "http") -> None:
        self._shared = shared
        self.dates = shared.dates
        self._life = Life.OPEN
        self._parser = RequestParser(self, scheme)
        self._answers: list[HttpExchange] = []
        self._arriving: HttpExchange | None = None
        self._heads = HeldHeads(shared.heads)
        self.client: Client | None = None
        self._counted: Client | None = None
        self._refused_with = (503, ServerBusy.message)
        self._limit: tuple[Expiries, int] | None = None
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._last_words = b""

    def __repr__(self) -> str:
        return f"<HttpConnection {self._life.value} {self._parser.reading.value} answers={len(self._answers)}>"

    # -- from the event loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # always a stream
        """Begin to wait for a request."""
        self.transport = transport
        self.flow = Flow(transport, self._shared.departures)
        self._shared.connections.add(self)
        end = transport.get_extra_info("socket")
        if end is None or self._shared.descriptors.admit(end.fileno()):
            if self.client is None and not self._enter(transport.get_extra_info("peername")):
                self._turn_away(429, "Too many connections from this address")
            else:
                self._heads.client = self.client
                self._wait(self._shared.head_limit, self._head_is_late)
        else:
            self._life = Life.TURNED_AWAY
            if self._shared.descriptors.are_scarce(end.fileno()):
                self._refuse(503, ServerBusy.message)
            else:
                self._wait(self._shared.refusal_limit, self._close)

    def _enter(self, peer: Any) -> bool:
        """Count it among those of its client; return false if there are too many."""
        self.client = self._counted = self._shared.clients.enter(peer)
        return self.client is not None

    def _turn_away(self, status: int, message: str) -> None:
        """Answer the first bytes with this error, and read nothing more."""
        self._life = Life.TURNED_AWAY
        self._refused_with = (status, message)
        self._wait(self._shared.refusal_limit, self._close)

    def data_received(self, data: bytes) -> None:
        """Read what the client has sent."""
        if self._life is not Life.OPEN and not self._is_read():
            return
        parser = self._parser
        try:
            parser.feed(data)
            if parser.head_bytes:
                self._heads.count(parser.head_bytes)
        except Refused as exc:
            self._refuse(exc.status, exc.message)
        if self._limit is None and (not self._answers or parser.reading is Reading.HEAD):
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what runs for the client."""
        self._life = Life.CLOSED
        self._stop_waiting()
        self._heads.release()
        self._heads.end()
        if self._counted is not None:
            self._shared.clients.leave(self._counted)
            self._counted = None
        self.flow.forget()
        self.flow.let_go()
        self._arriving = None
        self._parser.close()
        answers, self._answers = self._answers, []
        for exchange in answers:
            exchange.leave()
        self._shared.lost(self)

    def pause_writing(self) -> None:
        """Let answers wait."""
        self.flow.hold()

    def resume_writing(self) -> None:
        """Let answers continue."""
        self.flow.let_go()

    # -- from the parser ----------------------------------------------------------------------------------------------

    def request_arrives(self, head: RequestHead, size: int, body: bytes, *, is_whole: bool) -> None:
        """Have a request answered, after those before it."""
        if self._limit is not None:
            self._stop_limit()
        if self._heads.is_partial:
            self._heads.end()
        if size > SMALL_HEAD_BYTES:
            self._heads.keep(head)
        answers = self._answers
        if len(answers) > MAX_PIPELINED:
            raise Refused(429, f"More than {MAX_PIPELINED} requests sent ahead")
        exchange = HttpExchange(
            head=head,
            length=head.length,
            ended=is_whole and not body,
            is_awaited=head.expects_continue and not (is_whole or body),
            keep_alive=head.is_persistent,
            arrival=Arrival.WHOLE if is_whole else Arrival.ARRIVING,
            _wire=self,
            _buffer=body,
        )
        answers.append(exchange)
        if not is_whole:
            self._arriving = exchange
            if len(body) > HIGH_WATER_BYTES:
                self.flow.pause()
        if len(answers) == 1:
            self._begin(exchange)
        else:
            self.flow.pause()

    def body_arrives(self, data: bytes) -> None:
        """Give the newest request some more of its body."""
        if self._arriving is not None:
            self._arriving.add(data)
            if not self._answers:  # the rest of a body whose request was answered
                self._idle_since = self.dates.now()
            if self._arriving.is_full:
                self.flow.pause()

    def request_ends(self) -> None:
        """Complete the newest request."""
        if self._arriving is not None:
            self._arriving.complete()
            self._arriving = None

    # -- from an exchange ---------------------------------------------------------------------------------------------

    def body_is_wanted(self, exchange: HttpExchange) -> None:
        """Ask a client for the body that it holds back."""
        if exchange.is_awaited:
            exchange.is_awaited = False
            self.send(CONTINUE)

    def read_on(self) -> None:
        """Read the client again, if there is room."""
        if len(self._answers) <= 1 and not (self._arriving is not None and self._arriving.is_full):
            self.flow.resume()

    def send(self, *parts: bytes) -> None:
        """Send these bytes, if the client is still there."""
        if not self.transport.is_closing():
            for part in parts:
                self.transport.write(part)

    def answered(self, exchange: HttpExchange) -> None:
        """Go on with the next request, or wait for it."""
        answers = self._answers
        if not answers or answers[0] is not exchange:
            return
        del answers[0]
        if not exchange.keep_alive:
            self._close()
        elif answers:
            self._begin(answers[0])
            self.read_on()
        else:
            if self._life is Life.LAST or self._heads.counted or self.flow.is_paused:
                self._all_answered()
            self._idle_since = self.dates.now()
            if self._idle_timer is None:
                self._watch_idleness()

    # -- answers ------------------------------------------------------------------------------------------------------

    def _begin(self, exchange: HttpExchange) -> None:
        """Have a request answered: a call in a task that is used again, others in one of their own.

        An application may leave context variables behind.
        """
        shared = self._shared
        if shared.calls is not None and exchange.head.path.startswith(CALLS):
            shared.workers.do(self._answer(exchange, shared.calls))
        else:
            shared.tasks.start(self._answer(exchange, None))

    async def _answer(self, exchange: HttpExchange, calls: Handler | None) -> None:
        """Have a request answered by the front of calls, or else by the application."""
        try:
            if calls is not None:
                await calls(exchange)
            else:
                await run_asgi(self._shared.app, exchange, self.transport)
        except ClientGone:
            return
        except Exception as exc:
            await _tell(exc, exchange)
        finally:
            if exchange.progress is not Progress.COMPLETE and self._answers and self._answers[0] is exchange:
                self._close()  # the client sees that the answer is not complete

    # -- its end ------------------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close after the answer that is being made, and say so in it; what waits behind it is not answered."""
        if self._life is Life.CLOSED:
            return
        self._stop_waiting()
        if not self._answers:
            self._close()
            return
        self._life = Life.LAST
        self._answers[0].keep_alive = False

    def _is_read(self) -> bool:
        """Return whether bytes are read although the connection is to end; refuse those of who is turned away."""
        if self._life is Life.TURNED_AWAY:
            self._refuse(*self._refused_with)
        return self._life is Life.LAST and self._arriving is not None

    def _all_answered(self) -> None:
        if self._heads.counted:
            self._heads.release()
        if self._life is Life.LAST:
            self.send(self._last_words)
            self._close()
        elif self.flow.is_paused:
            self.flow.resume()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot be read, after the answers that are under way, and close."""
        if self._life is Life.CLOSED or (self._life is Life.LAST and self._arriving is None):
            return
        self._stop_waiting()
        self._life = Life.LAST
        if self._arriving is not None and not self._withdraw(self._arriving):
            self._close()
            return
        self._last_words = _refusal(status, message)
        if not self._answers:
            self._all_answered()

    def _withdraw(self, exchange: HttpExchange) -> bool:
        """Stop the answer to a request whose body cannot be read; return false if it has started."""
        self._arriving = None
        if not self._answers or self._answers[-1] is not exchange or exchange.started:
            return False
        self._answers.pop()
        exchange.leave()
        return True

    def _close(self) -> None:
        self._life = Life.CLOSED
        self._stop_waiting()
        self.flow.forget()
        self.transport.close()

    # -- limits of time -----------------------------------------------------------------------------------------------

    def _await_head(self) -> None:
        """Limit the time for (the rest of) a head, if the client is to send one. A blank line does not begin one."""
        if self._life is Life.OPEN and self._parser.reading is not Reading.BODY:
            self._wait(self._shared.head_limit, self._head_is_late)

    def _wait(self, limit: Expiries, expire: Callable[[], None]) -> None:
        self._limit = (limit, limit.add(expire))

    def _stop_limit(self) -> None:
        if self._limit is not None:
            limit, key = self._limit
            self._limit = None
            limit.discard(key)

    def _stop_waiting(self) -> None:
        self._stop_limit()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _head_is_late(self) -> None:
        self._limit = None
        if self._answers:  # the head of the request after the one that is being answered
            self._wait(self._shared.head_limit, self._head_is_late)
        elif self._parser.reading is Reading.HEAD:
            self._refuse(408, "Request header timeout")
        else:
            self._close()

    def _watch_idleness(self) -> None:
        """Close the connection once it has been idle for its time.

        The timer is set once for many requests: when it rings, it is set again for what is left of the time.
        """
        self._idle_timer = None
        if self._life is not Life.OPEN:
            return
        now = self.dates.now()
        if self._answers or self._limit is not None:
            self._idle_since = now  # or later
        if now - self._idle_since >= KEEP_ALIVE_S:
            self._close()
        else:
            self._idle_timer = self._shared.clock.call_at(self._idle_since + KEEP_ALIVE_S, self._watch_idleness)


async def _tell(exc: Exception, exchange: HttpExchange) -> None:
    """Answer with an error that an application did not handle, if nothing was sent; else the answer stays cut off."""
    told = errors.answer(exc)
    if not exchange.started:
        headers = [(name.encode(), value.encode()) for name, value in told.headers.items()]
        exchange.begin(told.status, [*headers, (b"content-length", b"%d" % len(told.body))])
        await exchange.end(told.body)


def _refusal(status: int, message: str) -> bytes:
    body = msgspec.json.encode({"error": {"message": message}}) + b"\n"
    retry = b"\r\nretry-after: %d" % RETRY_AFTER_S if status == 503 else b""
    head = b"\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (JSON_TYPE.encode(), len(body))
    return b"".join([STATUS_LINES[status], retry, head, body])
