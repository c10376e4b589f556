"""Transactions as the stores use them: bounded in time, errors translated, repeated where the server undid them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hearth.sql.engine import WRITES
from hearth.sql.failures import Conflict, translated

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds that a transaction may take; a server that hangs is one that failed.
_LIMIT_S: Final = 30.0
#: Times that a transaction is tried which met another one.
_TRIES: Final = 5


class Transactions:
    """Reads and writes on one engine.

    Nothing that failed in the middle is sent again: whether it was done, only the database knows. What the server
    itself undid is another matter, see :func:`repeated`.
    """

    def __init__(self, engine: AsyncEngine, *, limit_s: float = _LIMIT_S) -> None:
        self.engine = engine
        self._writer = engine.execution_options(**WRITES)
        self._limit_s = limit_s

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return self.engine.dialect.name

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection that only reads."""
        with translated():
            async with asyncio.timeout(self._limit_s), self.engine.connect() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """The same limit and errors for what is sent past these connections."""
        with translated():
            async with asyncio.timeout(self._limit_s):
                yield

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, undone by an error."""
        with translated():
            async with asyncio.timeout(self._limit_s), self._writer.begin() as connection:
                yield connection


def repeated(write: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Repeat a transaction that the server undid because of another one. It has left nothing behind."""

    @functools.wraps(write)
    async def tried(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(Conflict):
                return await write(*args, **kwargs)
        return await write(*args, **kwargs)

    return tried
