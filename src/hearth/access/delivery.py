"""Tells the API node how calls ended: at once where it answers, else later, from the spool, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from hearth.access import wire
from hearth.access.api_node import ApiNode
from hearth.access.base import EndedCall
from hearth.access.spool import ENDED, SETTLE, Item, Spool
from hearth.batch import write_apart
from hearth.clock import Clock, pause
from hearth.models.errors import ApiError, HearthError, StoreRefused
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger

#: A call's client waits for its record. An API node that takes longer gets it from the spool.
_PATIENCE_S: Final = 2.0
_MAX_ITEMS: Final = 500
_MAX_BYTES: Final = 4 << 20
#: Statuses that say that the record is at fault. Any other is a matter of the API node, or of the secret, which
#: somebody will mend.
_OF_RECORD: Final = frozenset({400, 413, 422})
_FIRST_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 1.0
#: Seconds for what is left at the end.
_LAST_TRY_S: Final = 10.0

_spooled = metrics.gauge("hearth_runner_spooled")
_refused = metrics.counter("hearth_runner_records_refused")
_log = get_logger(__name__)


class Delivery:
    """Ends of calls, on their way to the API node. An async context manager.

    While something is in the spool everything goes there: a call's end comes before its message is settled.

    Args:
        spool: Opened already; closed by whoever opened it.
    """

    def __init__(self, node: ApiNode, spool: Spool, clock: Clock) -> None:
        self._node = node
        self._spool = spool
        self._clock = clock
        self._due = asyncio.Event()
        self._room = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Delivery:
        self._changed()
        self._loop = asyncio.get_running_loop().create_task(self._for_ever())
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        try:
            async with asyncio.timeout(_LAST_TRY_S):
                while self._spool.items:
                    await self._deliver(attempts=1)
        except (HearthError, TimeoutError):
            _log.warning("ends of calls are kept; start a runner with this data folder", items=self._spool.items)

    @property
    def has_room(self) -> bool:
        """Whether the ends of further calls could be kept."""
        return self._spool.has_room

    async def wait_for_room(self) -> None:
        """Wait until they could."""
        while not self._spool.has_room:
            self._room.clear()
            await self._room.wait()

    async def finish(self, ended: Sequence[EndedCall]) -> None:
        """Have records and logs stored, there or, for the time being, here.

        Raises:
            StoreRefused: The API node cannot store them, however often it is asked.
            StoreUnavailable: Neither there nor here.
        """
        items = [wire.encode_ended(one) for one in ended]
        if not self._spool.items:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    for batch in _batches(items):
                        await self._post(batch, attempts=2)
            except (ApiError, TimeoutError) as exc:
                if isinstance(exc, ApiError) and exc.code in _OF_RECORD:
                    raise StoreRefused(f"{exc.code}: {exc.message}") from exc
                _log.warning("API node away, ends of calls are kept here", calls=len(ended), error=str(exc))
            else:
                return
        await self._keep([(ENDED, item) for item in items])

    async def settle(self, leases: list[str]) -> list[bool]:
        """Have calls' messages forgotten, after their ends are stored."""
        if not self._spool.items:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await self._post_leases(leases, attempts=2)
            except (ApiError, TimeoutError) as exc:
                _log.warning("API node away, settled calls are kept here", calls=len(leases), error=str(exc))
        await self._keep([(SETTLE, lease.encode()) for lease in leases])
        return [True] * len(leases)

    async def _keep(self, items: list[tuple[int, bytes]]) -> None:
        try:
            await self._spool.put(items)
        finally:
            self._changed()

    def _changed(self) -> None:
        _spooled.set(self._spool.items)
        if self._spool.items or self._spool.is_broken:
            self._due.set()
        else:
            self._due.clear()
        if self._spool.has_room:
            self._room.set()

    async def _for_ever(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._due.wait()
            trouble = await _trouble(self._deliver(attempts=1))
            # Nobody else would find out: while the disk is in trouble no work is let in whose end would be kept.
            trouble = await _trouble(self._spool.recover()) or trouble
            self._changed()
            if trouble is None:
                pause_s = _FIRST_PAUSE_S
                continue
            _log.warning("ends of calls cannot be told or kept", items=self._spool.items, error=str(trouble))
            await pause(self._clock, pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    async def _deliver(self, *, attempts: int) -> None:
        """The oldest items, in order: first ends, then leases, for an end must never come after its lease is gone."""
        if not (items := await self._spool.first(_MAX_ITEMS, _MAX_BYTES)):
            return
        await self._deliver_ended([item for item in items if item[1] == ENDED], attempts)
        if leases := [item[2].decode() for item in items if item[1] == SETTLE]:
            await self._post_leases(leases, attempts=attempts)
        await self._spool.remove(items)
        self._changed()

    async def _deliver_ended(self, items: list[Item], attempts: int) -> None:
        async def post(some: list[Item]) -> list[None]:
            await self._post([item[2] for item in some], attempts=attempts)
            return [None] * len(some)

        if items:
            await write_apart(post, items, refused=_drop, is_refusal=_is_of_record)

    async def _post(self, items: Sequence[bytes], *, attempts: int) -> None:
        body = wire.encode_many_ended(items)
        await self._node.ask("POST", "runner/finish", wire.read_done, body, attempts=attempts)

    async def _post_leases(self, leases: list[str], *, attempts: int) -> list[bool]:
        body = wire.encode(wire.Leases(leases))
        return await self._node.ask("POST", "runner/settle", wire.reader_of_held(len(leases)), body, attempts=attempts)


def _is_of_record(exc: Exception) -> bool:
    return isinstance(exc, ApiError) and exc.code in _OF_RECORD


def _drop(_: Item, exc: Exception) -> None:
    assert isinstance(exc, ApiError)
    _refused.add()
    _log.error("end of a call refused by the API node, dropped", code=exc.code, error=exc.message)


async def _trouble(work: Awaitable[None]) -> HearthError | None:
    try:
        await work
    except HearthError as exc:
        return exc
    return None


def _batches(items: list[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = [[]]
    size = 0
    for item in items:
        if batches[-1] and size + len(item) > _MAX_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += len(item)
    return batches
