"""The ``http-stream`` contract: HTTP/1.1 over a socket that the function listens on, as today's kits of Fn do."""

from __future__ import annotations

from hearth.contracts.base import CallInput, Exchange, ExchangeCall, Head
from hearth.contracts.http_stream.answer import NO_LIMITS, Limits, StreamDecoder, remembered
from hearth.contracts.http_stream.exchange import SocketExchange
from hearth.contracts.http_stream.request import compose
from hearth.contracts.stdio.codec import Encoder, InvalidOutput
from hearth.contracts.stdio.exchange import StdioContract
from hearth.contracts.stdio.http import REMEMBERED_BYTES, AnswerHead, HttpEncoder, as_response, head_end
from hearth.drivers.base import Container
from hearth.models.function import HTTP_STREAM


class StreamEncoder(HttpEncoder):
    """Writes one request; streams its body."""

    __slots__ = ()

    def __init__(self, call: CallInput) -> None:
        self._head = compose(call, b"")
        self._left = call.content_length


class HttpStreamContract(StdioContract):
    """HTTP/1.1 over a socket of a hot container.

    Args:
        limits: The largest answers that are passed on.
    """

    name = HTTP_STREAM
    hot = True
    listens = True

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self._limits = limits
        # a function tends to begin its answers in the same way
        self._last: tuple[bytes, bool, AnswerHead, Head | None] | None = None

    whole_input = staticmethod(compose)

    def whole_answer(self, call: CallInput, data: bytes) -> tuple[Head, bytes] | None:
        """Return the answer, if these bytes are exactly one of a function that ran, on a connection that goes on."""
        last = self._last
        if last is not None and last[1] is call.is_plain and data.startswith(last[0]):
            block, _, answer, head = last
            end = len(block)
        else:
            end = head_end(data, 0)
            if not 0 < end <= min(self._limits.head_bytes, REMEMBERED_BYTES):
                return None
            block = data[:end]
            try:
                answer, head = remembered(block, call.is_plain)
            except InvalidOutput:
                return None
            self._last = block, call.is_plain, answer, head
        size = len(data) - end
        if head is None or answer.closes or answer.size != size or size > self._limits.body_bytes:
            return None
        return head, data[end:]

    def encoder(self, call: CallInput) -> Encoder:
        """Make the writer of one call's input."""
        return StreamEncoder(call)

    def decoder(self, call: CallInput) -> StreamDecoder:
        """Make the reader of one call's answer."""
        return StreamDecoder(is_plain=call.is_plain, limits=self._limits)

    def exchange(
        self, call: ExchangeCall, container: Container, *, fresh: bool, on_probation: bool = False
    ) -> Exchange:
        """Make the exchange of one call."""
        return SocketExchange(self, call, container, fresh=fresh, keeps=not on_probation)

    def log_form(self, head: Head, body: bytes) -> bytes:
        """Return the client's answer as a response of HTTP."""
        return as_response(head, body)
