"""What databases raise, as the rest of Hearth knows it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

from hearth.models.errors import StoreRefused, StoreUnavailable

#: SQLSTATEs and MySQL's numbers of a transaction that was undone because of another one.
_CONFLICTS: Final = ("40001", "40P01", 1205, 1213)
#: ... of a row whose key is there already
_DUPLICATES: Final = ("23505", 1062)
#: ... and of a server that will never let us in: what is wrong is the address.
_HOPELESS: Final = ("28000", "28P01", "3D000", 1044, 1045, 1049, 1698)


class Conflict(StoreUnavailable):
    """The transaction was undone because it met another one; to repeat it is safe."""


def failures() -> tuple[type[Exception], ...]:
    """What a database may raise: for an ``except``, which asks only when something was raised.

    The drivers and the network raise some of theirs past SQLAlchemy: while a connection is made, and to who uses it.
    """
    found: list[type[Exception]] = [sa.exc.SQLAlchemyError, OSError]
    if (asyncpg := sys.modules.get("asyncpg")) is not None:  # else nothing of it was raised
        # the last one of a connection to which the server said farewell, and which has not closed yet
        found += [asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError]
    if (asyncmy := sys.modules.get("asyncmy")) is not None:
        found.append(asyncmy.errors.Error)
    return tuple(found)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what the database raises as a ``StoreUnavailable``, or as ``StoreRefused`` if it does not like the data."""
    try:
        yield
    except failures() as exc:
        kind = StoreRefused if _is_refused(exc) else Conflict if code(exc) in _CONFLICTS else StoreUnavailable
        raise kind(f"database: {told(exc)}") from exc


def _is_refused(exc: BaseException) -> bool:
    # asyncpg's own errors of data come as plain ones; their SQLSTATE is of class 22
    state, refused = code(exc), isinstance(exc, sa.exc.DataError | sa.exc.IntegrityError)
    if (asyncmy := sys.modules.get("asyncmy")) is not None:
        refused = refused or isinstance(exc, asyncmy.errors.DataError | asyncmy.errors.IntegrityError)
    return refused or (isinstance(state, str) and state.startswith(("22", "23")))


def is_duplicate(exc: BaseException) -> bool:
    """Whether a row was not stored because there is one with its key."""
    return code(exc) in _DUPLICATES


def is_hopeless(exc: BaseException) -> bool:
    """Whether waiting for the server is in vain: it answers, and refuses us."""
    return code(exc) in _HOPELESS


def told(exc: BaseException) -> str:
    """The driver's own words, without the statement and its parameters."""
    cause = getattr(exc, "orig", None) or exc
    return str(cause) or type(cause).__name__


def code(exc: BaseException) -> str | int | None:
    """MySQL's number, or the SQLSTATE."""
    cause = getattr(exc, "orig", None) or exc
    if cause.args and isinstance(cause.args[0], int):
        return cause.args[0]
    state = getattr(cause, "sqlstate", None)
    return None if state is None else str(state)
