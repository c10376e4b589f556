"""The handler of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Handler = TypeVar("Handler", bound=Callable[..., Any])

_registered: list[Callable[..., Any]] = []


def function(handler: Handler) -> Handler:
    """Make this the program's handler: ``python -m hearth_fdk func.py`` serves it. It stays an ordinary function."""
    _registered.append(handler)
    return handler


def take() -> Callable[..., Any] | None:
    """Return the registered handler.

    Raises:
        RuntimeError: There are several.
    """
    if len(_registered) > 1:
        names = ", ".join(handler.__name__ for handler in _registered)
        raise RuntimeError(f"a function has one handler, but @function stands before several: {names}")
    return _registered.pop() if _registered else None
