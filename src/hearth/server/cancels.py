"""Cancels accepted calls: at once in the record, then where they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from hearth.access.local import LocalAcceptedCalls
from hearth.agent.outcomes import fail, status_of
from hearth.agent.results import error_result
from hearth.aio.clock import Clock
from hearth.models.call import Call
from hearth.models.call_result import ResultLimits
from hearth.models.errors import CallCancelled, HearthError
from hearth.stores.records.base import RecordStore
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


class Cancels:
    """Cancels calls. The record decides: of a cancel and an end, the first one stays.

    Args:
        store: The records.
        clock: Tells when a call ends.
        ttl_s: Seconds for which the result of a cancelled call is kept.
        accepted: Has the messages of accepted calls; ``None`` where nobody takes them.
        end_here: Ends a call that runs on this node. Other nodes look for theirs.
    """

    def __init__(
        self,
        store: RecordStore,
        clock: Clock,
        ttl_s: int,
        accepted: LocalAcceptedCalls | None = None,
        end_here: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._accepted = accepted
        self._clock = clock
        self._limits = ResultLimits(ttl_s=ttl_s)
        self._end_here = end_here

    async def cancel(self, load: Callable[[], Awaitable[Call]]) -> Call:
        """End a call as cancelled, and return its record.

        Args:
            load: Returns the record of the call as it is now.

        Raises:
            CallNotFound: There is no such call.
            CallEnded: It has ended.
        """
        found = await load()
        call = await self._store.cancel_call(found.app_name, found.id, self._ended)
        self._end_here(call.id)
        if self._accepted is not None:
            await self._discard(self._accepted, call)
        return call

    async def _discard(self, accepted: LocalAcceptedCalls, call: Call) -> None:
        try:
            if call.on_failure:
                await accepted.call_back(call)
            await accepted.discard(call.id)
        except HearthError as exc:  # the node that takes the message finds that the call has ended
            _log.warning("message of a cancelled call not deleted", call_id=call.id, error=str(exc))

    def _ended(self, stored: Call) -> Call:
        error = CallCancelled()
        call = msgspec.structs.replace(stored, response_status=status_of(error))
        call.completed_at = call.not_before(self._clock.now())
        fail(call, b"", error)
        call.result = error_result(call, error, self._limits)
        return call
