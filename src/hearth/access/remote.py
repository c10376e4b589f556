"""The stored world as a runner sees it: over HTTP, through an API node (nodes specification 2)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from hearth.access import wire
from hearth.access.api_node import ApiNode
from hearth.access.base import AlreadyStarted, DataAccess, EndedCall
from hearth.access.delivery import Delivery
from hearth.access.spool import Spool
from hearth.batch import GroupCommit
from hearth.clock import Clock
from hearth.models.app import App
from hearth.models.call import QUEUED, Call
from hearth.models.errors import ApiNodeAway, AppsNotFound, InternalError
from hearth.models.message import encode_call
from hearth.models.route import Route
from hearth.queues.base import VISIBILITY_TIMEOUT_S, Reserved
from hearth.telemetry.tracing import span

_POLL_S: Final = 30.0
#: An answer to a poll may come so much later.
_POLL_SLACK_S: Final = 10.0
_DEFINITION_S: Final = 10.0
_LEASES_S: Final = 10.0


class RemoteAccess(DataAccess):
    """Definitions, records and accepted calls of an API node. Use :meth:`open`.

    An API node that is away costs no record: ends of calls are kept here until it is back, up to a limit.
    """

    def __init__(self, node: ApiNode, delivery: Delivery, clock: Clock) -> None:
        self._node = node
        self._delivery = delivery
        self._clock = clock
        self._visibility_s = VISIBILITY_TIMEOUT_S
        self._starting = GroupCommit(self._start_many, max_batch=100)
        self._admitted = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, base: str, clock: Clock, *, token: str, connect_s: float, spool: Path, spool_bytes: int
    ) -> AsyncIterator[RemoteAccess]:
        """Connect when first asked; leaving it delivers what it can of what is kept here.

        Raises:
            StartUpError: The spool cannot be had.
        """
        kept = await Spool.open(spool, spool_bytes)
        try:
            async with ApiNode(base, clock, token=token, connect_s=connect_s) as node:
                async with Delivery(node, kept, clock) as delivery:
                    access = cls(node, delivery, clock)
                    try:
                        yield access
                    finally:
                        await access._starting.close()
        finally:
            await kept.close()

    @property
    def has_room(self) -> bool:
        """Whether calls may be taken on: their ends could be kept if the API node went away."""
        return self._delivery.has_room

    async def check(self) -> None:
        """Whether calls belong here: the API node has let this runner in once, and their ends can be kept.

        One that is away later makes no difference: all its runners would be taken out at once, although they serve.

        Raises:
            ApiError: It does not know the secret, or was never there.
            InternalError: What ended here fills the spool.
        """
        if not self._admitted:
            nothing = wire.encode(wire.Leases([]))  # asks neither queue nor database
            await self._node.ask("POST", "runner/settle", wire.reader_of_held(0), nothing, attempts=1)
            self._admitted = True
        if not self.has_room:
            raise InternalError("the spool is full, or its disk fails")

    async def get_app(self, name: str) -> App:
        """The app, asked for anew."""
        with span("hybrid_client_get_app", name):
            return await self._node.ask(
                "GET", f"apps/{_segment(name)}", lambda data: wire.decode_app(data, name), total_s=_DEFINITION_S
            )

    async def get_route(self, app_name: str, path: str) -> Route:
        """The route, asked for anew."""
        where = f"apps/{_segment(app_name)}/routes/{_path(path)}"
        with span("hybrid_client_get_route", app_name, path):
            return await self._node.ask(
                "GET", where, lambda data: wire.decode_route(data, app_name, path), total_s=_DEFINITION_S
            )

    async def finish_many(self, ended: list[EndedCall]) -> None:
        """There, or here until the API node is back."""
        with span("hybrid_client_end"):
            await self._delivery.finish(ended)

    @property
    def visibility_s(self) -> float:
        """As the API node last said."""
        return self._visibility_s

    async def enqueue(self, call: Call) -> None:
        """Have the API node accept it."""
        with span("hybrid_client_enqueue", call.app_name, call.path):
            # Not PUT: the client would send that a second time by itself, and the API node could not tell.
            await self._node.ask("POST", "runner/async", wire.read_done, encode_call(call))

    async def dequeue(self, limit: int) -> list[Reserved]:
        """Poll until there is something. One that is cancelled leaves its connection: the API node gives to others."""
        await self._delivery.wait_for_room()
        while not (reserved := await self._poll(limit)):
            pass
        return reserved

    async def _poll(self, limit: int) -> list[Reserved]:
        asked_at = self._clock.monotonic()
        with span("hybrid_client_dequeue"):
            reserved, visibility_s = await self._node.ask(
                "GET",
                f"runner/async?limit={limit}&wait_s={_POLL_S}",
                lambda data: wire.decode_handed(data, asked_at),
                attempts=1,
                total_s=_POLL_S + _POLL_SLACK_S,
            )
        self._visibility_s = visibility_s or self._visibility_s
        return reserved

    async def start(self, call: Call) -> None:
        """Many at once, if many start at once."""
        with span("hybrid_client_start", call.app_name, call.path):
            found = await self._starting.put(call)
        if found not in ("", QUEUED):
            raise AlreadyStarted(found)

    async def settle(self, leases: list[str]) -> list[bool]:
        """Later, if the API node is away."""
        return await self._delivery.settle(leases)

    async def renew(self, leases: list[str]) -> list[bool]:
        """Renew the leases."""
        body = wire.encode(wire.Leases(leases))
        return await self._node.ask("POST", "runner/renew", wire.reader_of_held(len(leases)), body, total_s=_LEASES_S)

    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        """Give the message back."""
        body = wire.encode(wire.Releases([wire.Release(lease, delay_s)]))
        await self._node.ask("POST", "runner/release", wire.read_done, body, attempts=2, total_s=_LEASES_S)

    async def interrupted(self, call: Call) -> None:
        """Have the API node complete the record, if it still says running."""
        body = wire.encode_ended(EndedCall(call, b""), interrupted=True)
        await self._node.ask("POST", "runner/finish", wire.read_done, body)

    async def _start_many(self, calls: list[Call]) -> Sequence[str]:
        body = wire.encode_starts([_encode_start(call) for call in calls])
        found = await self._node.ask("POST", "runner/start", lambda data: wire.decode(data, wire.Found).found, body)
        if len(found) != len(calls):
            raise ApiNodeAway
        return found


def _encode_start(call: Call) -> bytes:
    """What the record needs of it."""
    return encode_call(msgspec.structs.replace(call, payload=b"", config={}, headers={}))


def _segment(name: str) -> str:
    """A name in a path. The two that mean a folder there are no names."""
    if name in (".", ".."):
        raise AppsNotFound
    return quote(name, safe="")


def _path(path: str) -> str:
    if path == "/":
        return "%2F"
    return "/".join(quote(part, safe="") for part in path.split("/")[1:])
