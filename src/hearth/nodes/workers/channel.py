"""The worker's end of its connection to the supervisor: it borrows memory, and takes orders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from hearth.agent.lending import Borrower, Loan
from hearth.aio.background import Background
from hearth.models.function import NOTHING
from hearth.nodes.workers import messages
from hearth.nodes.workers.broker import Lend, Recall
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)

#: An order that is not about memory.
Order = messages.StandIn | messages.Retire


class Channel:
    """Implements ``Lender``. An async context manager: leaving it returns what was lent, if no container holds it.

    Args:
        end: Connected to the supervisor; closed at the end.
        obey: Called with the orders of the supervisor.
    """

    def __init__(self, end: socket.socket, obey: Callable[[Order], Awaitable[None]]) -> None:
        self._end = end
        self._obey = obey
        self._borrower: Borrower | None = None
        self._aims = messages.Aims([])
        self._looks_soon = False
        self._background = Background(_lost)
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Channel:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._end)
        self._background.run(self._listen(reader))
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        if self._borrower is not None and self._borrower.used == NOTHING:
            self._send(messages.Leave())
        await self._background.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def connect(self, borrower: Borrower, cleaned: Callable[[], Awaitable[bool]]) -> None:
        """Begin to lend."""
        self._borrower = borrower
        self._send(messages.Join())
        self._background.run(self._report_cleaned(cleaned))
        self.look()

    def look(self) -> None:
        """Tell the supervisor in the next tick what the borrower needs, if that has changed."""
        if not self._looks_soon and self._borrower is not None:
            self._looks_soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def give_back(self, loan: Loan, *, is_sync: bool) -> None:
        """Give back what was called back for a request of this kind."""
        self._send(messages.GiveBack(loan, is_sync))

    def _look(self) -> None:
        self._looks_soon = False
        assert self._borrower is not None
        if (aims := messages.aims_of(self._borrower)) != self._aims:
            self._aims = aims
            self._send(aims)

    async def _report_cleaned(self, cleaned: Callable[[], Awaitable[bool]]) -> None:
        if await cleaned():
            self._send(messages.Cleaned())

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = messages.decode_of_supervisor(line)
            if isinstance(message, Lend):
                assert self._borrower is not None
                self._borrower.lend(message.loan)
            elif isinstance(message, Recall):
                assert self._borrower is not None
                self._borrower.recall(message.amount, is_sync=message.is_sync)
            else:
                await self._obey(message)

    def _send(self, message: messages.OfWorker) -> None:
        self._writer.write(messages.encode([message]))


def _lost(exc: BaseException) -> None:
    """End this process, to be started again: it would neither borrow nor give back any more."""
    _log.critical("the supervisor is no longer heard", exc_info=exc)
    os.kill(os.getpid(), signal.SIGTERM)
