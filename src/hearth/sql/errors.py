"""Translate what databases and their drivers raise. No other module knows an error of a driver."""

from __future__ import annotations

import sqlite3
import sys
from typing import Final

import sqlalchemy as sa

from hearth.models.errors import StoreRefused, StoreUnavailable

#: SQLSTATEs and MySQL's numbers of a transaction that the server rolled back because of another one.
_CONFLICTS: Final = ("40001", "40P01", 1205, 1213)
#: ... of a row whose key exists
_DUPLICATES: Final = ("23505", 1062)
#: ... and of a server that refuses the user or the database of the address.
_HOPELESS: Final = ("28000", "28P01", "3D000", 1044, 1045, 1049, 1698)


class Conflict(StoreUnavailable):
    """The server rolled the transaction back because it met another one. Repeating it is safe."""


def failures() -> tuple[type[Exception], ...]:
    """Return what a database may raise, for an ``except`` clause: it is evaluated only when something was raised.

    The drivers and the network raise some errors past SQLAlchemy.
    """
    found: list[type[Exception]] = [sa.exc.SQLAlchemyError, sqlite3.Error, OSError]
    if (asyncpg := sys.modules.get("asyncpg")) is not None:  # otherwise its errors cannot have been raised
        # InternalClientError: a connection that the server has ended, but that is not closed yet
        found += [asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError]
    if (asyncmy := sys.modules.get("asyncmy")) is not None:
        found.append(asyncmy.errors.Error)
    return tuple(found)


def translated(exc: Exception) -> StoreUnavailable | StoreRefused:
    """Return what to raise for one of :func:`failures`: ``StoreRefused`` if the database rejects the data."""
    kind: type[StoreUnavailable | StoreRefused]
    kind = StoreRefused if _is_refused(exc) else Conflict if code(exc) in _CONFLICTS else StoreUnavailable
    return kind(f"database: {reason(exc)}")


def is_duplicate(exc: BaseException) -> bool:
    """Return whether the database rejected a row because its key exists."""
    return code(exc) in _DUPLICATES


def is_hopeless(exc: BaseException) -> bool:
    """Return whether waiting for the server cannot help: it answers, and refuses the user or the database."""
    return code(exc) in _HOPELESS


def is_busy(exc: BaseException) -> bool:
    """Return whether SQLite did nothing because somebody else uses the file just now."""
    cause = getattr(exc, "orig", None) or exc
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY


def reason(exc: BaseException) -> str:
    """Return the driver's own message, without the statement and its parameters."""
    cause = getattr(exc, "orig", None) or exc
    return str(cause) or type(cause).__name__


def code(exc: BaseException) -> str | int | None:
    """Return MySQL's error number, or the SQLSTATE."""
    cause = getattr(exc, "orig", None) or exc
    if cause.args and isinstance(cause.args[0], int):
        return cause.args[0]
    state = getattr(cause, "sqlstate", None)
    return None if state is None else str(state)


def _is_refused(exc: Exception) -> bool:
    kinds: tuple[type[Exception], ...] = (sqlite3.DataError, sqlite3.IntegrityError)
    if (asyncmy := sys.modules.get("asyncmy")) is not None:
        kinds += (asyncmy.errors.DataError, asyncmy.errors.IntegrityError)
    state = code(exc)  # asyncpg tells errors of data by their SQLSTATE only
    return isinstance(exc, kinds) or (isinstance(state, str) and state.startswith(("22", "23")))
