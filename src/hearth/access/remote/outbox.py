"""Sends ends of calls to the API node: at once if it answers, else later from the spool, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from hearth.access.base import EndedCall, EndRefused
from hearth.access.remote import protocol
from hearth.access.remote.client import ApiClient
from hearth.access.remote.spool import ACKNOWLEDGED, ENDED, Item, Spool
from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.aio.group_commit import write_apart
from hearth.models.errors import ApiError, HearthError, StoreRefused
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Seconds that the client of a call waits for the API node. After that, the record goes to the spool.
_PATIENCE_S: Final = 2.0
#: Seconds for a batch from the spool, for which no client waits.
_SEND_S: Final = 60.0
_MAX_ITEMS: Final = 500
_MAX_BYTES: Final = 4 << 20
#: Statuses of a record that the API node refuses. Any other is a fault of the node or of the secret, which an operator
#: corrects.
_OF_RECORD: Final = frozenset({400, 413, 422})
_FIRST_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 1.0
#: Seconds to deliver what is left when the node stops.
_LAST_TRY_S: Final = 10.0

_log = get_logger(__name__)


class Outbox:
    """The ends of calls on their way to the API node. An async context manager.

    While the spool has items, all ends go there: the end of a call arrives before its message is acknowledged.

    Args:
        spool: Open; its opener closes it.
    """

    def __init__(self, client: ApiClient, spool: Spool, clock: Clock, metrics: Metrics) -> None:
        self._spooled = metrics.gauge("hearth_runner_spooled")
        self._refused = metrics.counter("hearth_runner_records_refused")
        self._client = client
        self._spool = spool
        self._clock = clock
        self._due = asyncio.Event()
        self._room = asyncio.Event()
        self._background = Background(lambda exc: _log.error("ends of calls are no longer delivered", exc_info=exc))

    async def __aenter__(self) -> Outbox:
        self._changed()
        self._background.run(self._deliver_always())
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._background.cancel()
        try:
            async with asyncio.timeout(_LAST_TRY_S):
                while self._spool.items:
                    await self._deliver()
        except (HearthError, TimeoutError):
            _log.warning("ends of calls are kept; start a runner with this data folder", items=self._spool.items)

    @property
    def has_room(self) -> bool:
        """True if the spool can keep the ends of further calls."""
        return self._spool.has_room

    async def wait_for_room(self) -> None:
        """Wait until :attr:`has_room`."""
        while not self._spool.has_room:
            self._room.clear()
            await self._room.wait()

    async def finish(self, ended: Sequence[EndedCall]) -> None:
        """Store records and logs at the API node, or in the spool while it is away.

        Raises:
            EndRefused: The API node never stores this end.
            StoreRefused: The API node never stores one of these ends.
            StoreUnavailable: Neither the API node nor the spool stores them.
        """
        items = [protocol.encode_ended(one) for one in ended]
        if not self._spool.items:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    for batch in _batches(items):
                        await self._post(batch, attempts=2)
            except (ApiError, TimeoutError) as exc:
                if isinstance(exc, ApiError) and exc.code in _OF_RECORD:
                    raise self._refusal(exc, len(ended)) from exc
                _log.warning("API node away, ends of calls are kept here", calls=len(ended), error=str(exc))
            else:
                return
        await self._keep([(ENDED, item) for item in items])

    async def acknowledge(self, leases: list[str]) -> list[bool]:
        """Delete the messages of calls, after their ends are stored."""
        if not self._spool.items:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await self._post_leases(leases, attempts=2)
            except (ApiError, TimeoutError) as exc:
                _log.warning("API node away, acknowledgements are kept here", calls=len(leases), error=str(exc))
        await self._keep([(ACKNOWLEDGED, lease.encode()) for lease in leases])
        return [True] * len(leases)

    async def _keep(self, items: list[tuple[int, bytes]]) -> None:
        try:
            await self._spool.put(items)
        finally:
            self._changed()

    def _changed(self) -> None:
        self._spooled.set(self._spool.items)
        if self._spool.items or self._spool.is_broken:
            self._due.set()
        else:
            self._due.clear()
        if self._spool.has_room:
            self._room.set()

    async def _deliver_always(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._due.wait()
            failure = await _failure_of(self._deliver())
            # Only this notices that the disk works again: while it fails, the node takes no new work.
            failure = await _failure_of(self._spool.recover()) or failure
            self._changed()
            if failure is None:
                pause_s = _FIRST_PAUSE_S
                continue
            _log.warning("ends of calls can be neither delivered nor kept", items=self._spool.items, error=str(failure))
            await pause(self._clock, pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    async def _deliver(self) -> None:
        """Deliver the oldest items: ends first, then leases, so that an end never arrives after its lease has gone."""
        if not (items := await self._spool.first(_MAX_ITEMS, _MAX_BYTES)):
            return
        if ended := [item for item in items if item[1] == ENDED]:
            await write_apart(self._post_items, ended, refused=self._drop, is_refusal=_is_of_record)
        if leases := [item[2].decode() for item in items if item[1] == ACKNOWLEDGED]:
            await self._post_leases(leases, attempts=1)
        await self._spool.remove(items)
        self._changed()

    async def _post_items(self, items: list[Item]) -> list[None]:
        await self._post([item[2] for item in items], attempts=1)
        return [None] * len(items)

    async def _post(self, items: Sequence[bytes], *, attempts: int) -> None:
        body = protocol.encode_many_ended(items)
        await self._client.ask("POST", "runner/finish", protocol.read_done, body, attempts=attempts, limit_s=_SEND_S)

    async def _post_leases(self, leases: list[str], *, attempts: int) -> list[bool]:
        body = protocol.encode(protocol.Leases(leases))
        read = protocol.reader_of_held(len(leases))
        return await self._client.ask("POST", "runner/settle", read, body, attempts=attempts, limit_s=_SEND_S)

    def _refusal(self, exc: ApiError, count: int) -> StoreRefused:
        if count > 1:  # each is sent alone next, which shows whose it is
            return StoreRefused(f"{exc.code}: {exc.message}")
        self._refused.add()
        return EndRefused(f"{exc.code}: {exc.message}")

    def _drop(self, _: Item, exc: Exception) -> None:
        assert isinstance(exc, ApiError)
        self._refused.add()
        _log.error("end of a call refused by the API node, dropped", code=exc.code, error=exc.message)


def _is_of_record(exc: Exception) -> bool:
    return isinstance(exc, ApiError) and exc.code in _OF_RECORD


async def _failure_of(work: Awaitable[None]) -> HearthError | None:
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
