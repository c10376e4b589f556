"""An accepted async call in place of a client: its payload is the body, and its answer joins its log."""

from __future__ import annotations

from typing import Final

from hearth.agent.call import CallLog
from hearth.aio.clock import next_turn
from hearth.contracts.base import Contract, Head

#: Pieces in which a payload is read: each is converted in one turn of the event loop.
_PIECE_BYTES: Final = 64 * 1024


class StoredBody:
    """A :class:`RequestBody` that is here already: an accepted call's payload."""

    __slots__ = ("_data", "_position", "length")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self.length: int | None = len(data)

    @property
    def ended(self) -> bool:
        """True once every byte has been read."""
        return self._position == len(self._data)

    async def read(self) -> bytes:
        """Return the next piece; between two of them others have their turn, for a format may convert each."""
        if self._position:
            await next_turn()
        piece = self._data[self._position : self._position + _PIECE_BYTES]
        self._position += len(piece)
        return piece


class LogSink:
    """A :class:`ResponseSink` for a call that nobody waits for: the answer joins its log, and is kept as its result.

    Args:
        limit: Bytes of body to keep: the log would cut the rest.
        result_limit: Bytes of a body that is kept as a result; of a larger one, enough to see that it is.

    Attributes:
        given: The head of the answer; ``None`` until there is one, and for formats without.
    """

    __slots__ = ("_body", "_contract", "_limit", "_log", "_size", "given")

    def __init__(self, log: CallLog, contract: Contract, limit: int, result_limit: int) -> None:
        self._log = log
        self._contract = contract
        self._limit = max(limit, result_limit)
        self.given: Head | None = None
        self._body: list[bytes] = []
        self._size = 0

    @property
    def started(self) -> bool:
        """False: there is no client."""
        return False

    def head(self, head: Head) -> None:
        """Keep it for the log."""
        self.given = head

    def answer(self, head: Head, body: bytes) -> None:
        """Write a whole answer in the form that its format gives it."""
        self.given = head
        self._body = [body]
        self._log.write(self._contract.log_form(head, body))

    async def write(self, data: bytes, *, last: bool) -> None:
        """Log the output of a cold function as it comes, an answer when it is whole."""
        if not self._contract.hot:
            self._log.write(data)
        if self._size <= self._limit:
            self._body.append(data)
            self._size += len(data)

    def complete(self) -> None:
        """Write the answer of a hot function in the form that its format gives it; that of a cold one is there."""
        if self._contract.hot and self.given is not None:
            self._log.write(self._contract.log_form(self.given, self.body))

    @property
    def body(self) -> bytes:
        """Return the body, cut where it exceeds both limits."""
        return b"".join(self._body)
