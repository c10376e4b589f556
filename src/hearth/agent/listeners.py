"""Extensions that watch calls (operations specification 8.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hearth.access.base import EndedCall
from hearth.aio.background import Background
from hearth.models.call import Call
from hearth.models.errors import ApiError, InternalError
from hearth.telemetry.logs import get_logger

#: Seconds that all listeners together have after a call; one that hangs must not keep the node from stopping.
_AFTER_LIMIT_S: Final = 30.0

_log = get_logger(__name__)


class CallListener:
    """Watches calls, sync and async ones. Override what you need."""

    async def before_call(self, call: Call) -> None:
        """Watch a call that holds a container and runs next. The call waits for this, within its own timeout.

        Whatever this raises keeps the call from running: its record says ``error``. An
        :class:`~hearth.models.errors.ApiError` gives the client its status, anything else a 500.
        """

    async def after_call(self, call: Call) -> None:
        """Watch a call that has ended, once its record and log are stored; the end of its answer waits for this.

        Called also for a call whose client has left, and for one that failed before it ran (then ``started_at`` is
        zero). Whatever this raises becomes the call's answer, unless the client has been sent something already.
        """


class ListenerRefused(ApiError):
    """A listener's error that a client may see: its status and headers, its text with the hook's name before it."""

    def __init__(self, hook: str, cause: ApiError) -> None:
        super().__init__(f"{hook}: {cause.message}")
        self._cause = cause

    @property
    def code(self) -> int:
        """Return the listener's."""
        return self._cause.code

    @property
    def headers(self) -> dict[str, str]:
        """Return the listener's."""
        return self._cause.headers


class ListenerFailed(InternalError):
    """A listener's own failure."""

    def __init__(self, hook: str, cause: Exception) -> None:
        super().__init__(f"{hook}: {str(cause) or type(cause).__name__}")


class Listeners:
    """The listeners of a node.

    Args:
        listeners: In the order in which they are called.
        store: Stores the end of a call; returns True if it was stored.
    """

    def __init__(self, listeners: Sequence[CallListener], store: Callable[[EndedCall], Awaitable[bool]]) -> None:
        self._listeners = tuple(listeners)
        self._store = store
        self._telling = Background()

    def __repr__(self) -> str:
        return f"<Listeners {len(self._listeners)}>"

    async def before(self, call: Call) -> None:
        """Ask each listener, in order, until one raises.

        Raises:
            ListenerRefused: With a listener's status.
            ListenerFailed: With its text.
        """
        for listener in self._listeners:
            try:
                await listener.before_call(call)
            except Exception as exc:
                raise _named("BeforeCall", exc) from exc

    def after(self, ended: EndedCall) -> asyncio.Task[tuple[bool, Exception | None]]:
        """Store the end of a call, then tell each listener, in order, until one raises; even if its client leaves.

        The task returns True if the end was stored, and the error of a listener, if any.
        """
        return self._telling.run(self._after(ended))

    async def join(self) -> None:
        """Wait until all have heard of the calls that have ended."""
        await self._telling.join()

    async def _after(self, ended: EndedCall) -> tuple[bool, Exception | None]:
        is_stored = await self._store(ended)
        try:
            async with asyncio.timeout(_AFTER_LIMIT_S):
                for listener in self._listeners:
                    await listener.after_call(ended.call)
        except Exception as exc:
            error = _named("AfterCall", exc)
            _log.error("call listener failed", call_id=ended.call.id, error=str(error), exc_info=exc)
            error.__cause__ = exc
            return is_stored, error
        return is_stored, None


def _named(hook: str, exc: Exception) -> Exception:
    return ListenerRefused(hook, exc) if isinstance(exc, ApiError) else ListenerFailed(hook, exc)
