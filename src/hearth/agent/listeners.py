"""Extensions that watch calls (operations specification 8.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hearth.models.call import Call
from hearth.models.errors import ApiError, InternalError
from hearth.telemetry.logs import get_logger

#: Seconds that all listeners together have after a call; one that hangs must not keep the node from stopping.
_AFTER_LIMIT_S: Final = 30.0

_log = get_logger(__name__)


class CallListener:
    """Watches calls, sync and async ones. Override what is of interest."""

    async def before_call(self, call: Call) -> None:
        """The call holds a container and would run now. It waits for this, within its own timeout.

        Whatever this raises keeps the call from running: its record says ``error``. An
        :class:`~hearth.models.errors.ApiError` gives the client its status, anything else a 500.
        """

    async def after_call(self, call: Call) -> None:
        """The call has ended, and its record and log are stored; the end of its answer waits for this.

        Also told of a call whose client has left, and of one that failed before it ran (``started_at`` is then zero).
        Whatever this raises becomes the call's answer, unless the client has been sent something already.
        """


class ListenerRefused(ApiError):
    """A listener's error that a client may see: its status and headers, its text with the hook's name before it."""

    def __init__(self, hook: str, cause: ApiError) -> None:
        super().__init__(f"{hook}: {cause.message}")
        self._cause = cause

    @property
    def code(self) -> int:
        """The listener's."""
        return self._cause.code

    @property
    def headers(self) -> dict[str, str]:
        """The listener's."""
        return self._cause.headers


class ListenerFailed(InternalError):
    """A listener's own failure."""

    def __init__(self, hook: str, cause: Exception) -> None:
        super().__init__(f"{hook}: {str(cause) or type(cause).__name__}")


async def tell_before(listeners: Sequence[CallListener], call: Call) -> None:
    """Ask each listener, in order; the first that raises ends it.

    Raises:
        ListenerRefused: With a listener's status.
        ListenerFailed: With its text.
    """
    for listener in listeners:
        try:
            await listener.before_call(call)
        except Exception as exc:
            raise _named("BeforeCall", exc) from exc


async def tell_after(listeners: Sequence[CallListener], call: Call) -> Exception | None:
    """Tell each listener, in order, up to the first that raises: its error is returned."""
    try:
        async with asyncio.timeout(_AFTER_LIMIT_S):
            for listener in listeners:
                await listener.after_call(call)
    except Exception as exc:
        error = _named("AfterCall", exc)
        _log.error("call listener failed", call_id=call.id, error=str(error), exc_info=exc)
        error.__cause__ = exc
        return error
    return None


def _named(hook: str, exc: Exception) -> Exception:
    return ListenerRefused(hook, exc) if isinstance(exc, ApiError) else ListenerFailed(hook, exc)
