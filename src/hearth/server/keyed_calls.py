"""Requests with an ``Idempotency-Key``: the first one runs, its repetitions get its answer.

The claim of the key is a row in the database, so that it holds for all nodes. The node whose request holds it renews
the claim while the request runs, and stores the answer before its caller has the end of it. A caller who leaves does
not end such a request: it may come back for the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hearth.access.base import IdempotencyKeys
from hearth.agent.call import ActiveCall, ClientGone
from hearth.agent.outcomes import Stopped
from hearth.agent.results import error_result
from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.contracts.base import Head, ResponseSink
from hearth.models.call import FINAL
from hearth.models.call_result import CallResult, HeaderFields, ResultLimits
from hearth.models.errors import (
    AnswerNotKept,
    ApiError,
    HearthError,
    IdempotencyKeyBusy,
    IdempotencyKeyReused,
    RequestInterrupted,
    ServerBusy,
)
from hearth.models.function import FunctionSpec
from hearth.models.idempotency import (
    DEFAULT_KEY_TTL_S,
    RENEWAL_S,
    Claim,
    KeyEnd,
    KeyState,
    StoredKey,
    checked_key,
    fingerprint,
    key_id,
    later,
)
from hearth.models.times import ZERO
from hearth.server.call_io import CallExchange
from hearth.server.http.exchange import Arrival
from hearth.telemetry.logs import get_logger

#: The header, in the form of a header map, and the one of an answer that is not the first.
KEY: Final = "Idempotency-Key"
REPLAY: Final = "Idempotent-Replay"
#: Seconds between two looks at a key whose request runs: first, and at most. Another node may run it.
_FIRST_LOOK_S: Final = 0.025
_LAST_LOOK_S: Final = 0.5

_log = get_logger(__name__)


class KeyedRequest(msgspec.Struct, frozen=True, eq=False):
    """A request with a key.

    Attributes:
        values: The values of its header.
        spec: The function.
        method: Its method.
        body: Its body.
        of_route: The header fields that the route adds to its answer.
        ttl_s: Seconds for which the answer is kept; ``None``: as everywhere.
        exchange: Where it comes from.
    """

    values: Sequence[str]
    spec: FunctionSpec
    method: str
    body: bytes
    of_route: HeaderFields
    ttl_s: int | None
    exchange: CallExchange


class HeldKey:
    """A key that a request of this node holds, until :meth:`settle`. It collects the answer.

    Attributes:
        call_id: The call that the request becomes.
        is_accepted: The call is in the queue already.
        call: The call, once a sync request has one.
        result: The answer, once an async request has one.
    """

    def __init__(self, keys: KeyedCalls, claim: Claim, stored: StoredKey, of_route: HeaderFields) -> None:
        self.call_id = stored.call_id
        self.is_accepted = stored.is_accepted
        self.call: ActiveCall | None = None
        self.result: CallResult | None = None
        self.id = claim.id
        self.copy: CopyingSink | None = None
        self._keys = keys
        self._claim = claim
        self._of_route = of_route

    def sink(self, client: ResponseSink) -> CopyingSink:
        """Return what passes an answer on to the client, and keeps it."""
        self.copy = CopyingSink(client, self._keys.max_bytes)
        return self.copy

    def accepted(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Take the answer to a request whose call is in the queue."""
        given = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        self.result = self._result(Head(status, given), body)

    async def settle(self, error: Exception | None) -> None:
        """Store how the request has ended. What fails is logged: its caller gets the answer all the same.

        Args:
            error: The error for its caller; ``None`` if it is answered.
        """
        self._keys.drop(self)
        end = self._end(error)
        try:
            is_ours = await self._keys.store.end(end)
        except HearthError as exc:
            _log.error("answer to a request with an idempotency key not stored", call_id=self.call_id, error=str(exc))
        else:
            if not is_ours:
                _log.warning("an idempotency key was lost before its request ended", call_id=self.call_id)
        self._keys.wake(self.id)

    def abandon(self) -> None:
        """Hold the key no longer: nobody can tell how its request has ended. No effect on one that is settled."""
        self._keys.drop(self)

    def _end(self, error: Exception | None) -> KeyEnd:
        state, result = self._outcome(error)
        if result is not None and len(result.body) > self._keys.max_bytes:
            state, result = KeyState.TOO_LARGE, None
        return KeyEnd(id=self.id, call_id=self.call_id, ttl_s=self._claim.ttl_s, state=state, result=result)

    def _outcome(self, error: Exception | None) -> tuple[KeyState | None, CallResult | None]:
        """Return the state of the key and the answer to keep."""
        if not self._claim.is_sync:
            if error is None:
                return KeyState.DONE, self.result
            return None if isinstance(error, ApiError | ClientGone) else KeyState.ACCEPTING, None
        call = self.call
        if call is None or call.record.started_at == ZERO or call.record.status not in FINAL:
            return None, None  # its function has seen nothing of it
        if isinstance(error, Stopped):
            return KeyState.INTERRUPTED, None
        if error is not None:
            limits = ResultLimits(self._claim.ttl_s, self._keys.max_bytes)
            return KeyState.DONE, msgspec.structs.replace(error_result(call.record, error, limits), of_route=())
        assert self.copy is not None
        return KeyState.DONE, self._result(self.copy.given or Head(200, ()), self.copy.body)

    def _result(self, head: Head, body: bytes) -> CallResult:
        return CallResult(
            status=head.status,
            headers=tuple(head.headers),
            body=body,
            of_route=self._of_route,
            waited_s=-1.0 if self.call is None else self.call.waited_s,
            expires_at=later(self._keys.clock.now(), self._claim.ttl_s),
        )


class CopyingSink:
    """A :class:`ResponseSink` that passes an answer on to a client, who may leave, and keeps it.

    Args:
        client: The client.
        limit: Bytes of a body to keep; of a larger one, enough to see that it is.

    Attributes:
        given: The head of the answer; ``None`` before, and for formats without.
    """

    __slots__ = ("_client", "_is_gone", "_limit", "_pieces", "_size", "given")

    def __init__(self, client: ResponseSink, limit: int) -> None:
        self.given: Head | None = None
        self._client = client
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_gone = False

    @property
    def started(self) -> bool:
        """True once the client has been sent something."""
        return self._client.started

    def head(self, head: Head) -> None:
        """Keep the head, and pass it on."""
        self.given = head
        self._client.head(head)

    def answer(self, head: Head, body: bytes) -> None:
        """Keep a whole answer, and pass it on."""
        self.given = head
        self._keep(body)
        self._client.answer(head, body)

    async def write(self, data: bytes, *, last: bool) -> None:
        """Keep some bytes of the body, and pass them on while the client is there."""
        self._keep(data)
        if self._is_gone:
            return
        try:
            await self._client.write(data, last=last)
        except ClientGone:
            self._is_gone = True

    def complete(self) -> None:
        """Pass on that the answer is complete."""
        self._client.complete()

    @property
    def body(self) -> bytes:
        """Return the body, cut where it exceeds the limit."""
        return b"".join(self._pieces)

    def _keep(self, data: bytes) -> None:
        if self._size <= self._limit:
            self._pieces.append(data)
            self._size += len(data)


class KeyedCalls:
    """The keys that requests of this node hold, and wait for.

    Args:
        store: The keys of all nodes.
        max_bytes: The largest body of an answer that is kept.
    """

    def __init__(self, store: IdempotencyKeys, clock: Clock, max_bytes: int) -> None:
        self.store = store
        self.clock = clock
        self.max_bytes = max_bytes
        self._held: dict[str, HeldKey] = {}
        self._waits: dict[str, set[asyncio.Future[None]]] = {}
        self._background = Background()
        self._renewing: asyncio.Task[None] | None = None
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<KeyedCalls held={len(self._held)} waiting={len(self._waits)}>"

    async def close(self) -> None:
        """Stop renewing claims."""
        await self._background.cancel()

    def stop(self) -> None:
        """End the waits of repeated requests: another node may have the answer. Idempotent."""
        self._is_stopping = True
        for name in list(self._waits):
            self.wake(name)

    async def claim(self, request: KeyedRequest, call_id: str) -> HeldKey | StoredKey:
        """Hold the key of a request, or wait for the answer to the first request with it.

        Args:
            request: The request.
            call_id: The call that it becomes, if it is the first one.

        Returns:
            The key, held by this request, or with the stored answer.

        Raises:
            IdempotencyKeyInvalid: The key has the wrong form.
            IdempotencyKeyReused: The key belongs to another request.
            IdempotencyKeyBusy: The first request has not ended within the timeout of the function.
            AnswerNotKept: The answer was too large.
            RequestInterrupted: The node of the first request died.
            ClientGone: The client has left.
        """
        spec = request.spec
        claim = Claim(
            id=key_id(spec.ref, checked_key(request.values)),
            app_name=spec.ref.app_name,
            call_id=call_id,
            fingerprint=fingerprint(request.method, request.body, is_sync=spec.is_sync),
            is_sync=spec.is_sync,
            ttl_s=request.ttl_s or DEFAULT_KEY_TTL_S,
        )
        until, look_s = self.clock.monotonic() + spec.timeout_s, _FIRST_LOOK_S
        while True:
            stored = await self.store.claim(claim)
            if stored.is_held:
                return self._hold(HeldKey(self, claim, stored, request.of_route))
            if (answered := self._answered(claim, stored)) is not None:
                return answered
            left_s = until - self.clock.monotonic()
            if left_s <= 0:
                raise IdempotencyKeyBusy
            if self._is_stopping:
                raise ServerBusy
            await self._wait(claim.id, min(look_s, left_s), request.exchange)
            look_s = min(2 * look_s, _LAST_LOOK_S)

    def drop(self, held: HeldKey) -> None:
        """Renew a claim no longer."""
        if self._held.get(held.id) is held:
            del self._held[held.id]

    def wake(self, name: str) -> None:
        """Let the requests look that wait for a key."""
        for woken in self._waits.pop(name, ()):
            _wake(woken)

    def _hold(self, held: HeldKey) -> HeldKey:
        self._held[held.id] = held
        if self._renewing is None or self._renewing.done():
            self._renewing = self._background.run(self._renew())
        return held

    def _answered(self, claim: Claim, stored: StoredKey) -> StoredKey | None:
        """Return a key with its answer; ``None`` if its request has not ended."""
        if stored.fingerprint != claim.fingerprint:
            raise IdempotencyKeyReused
        if stored.state is KeyState.TOO_LARGE:
            raise AnswerNotKept(self.max_bytes, stored.call_id)
        if stored.state is KeyState.INTERRUPTED:
            raise RequestInterrupted(stored.call_id)
        return None if stored.result is None else stored

    async def _wait(self, name: str, seconds: float, exchange: CallExchange) -> None:
        """Wait some seconds, or until a request of this node that held the key has ended."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waits.setdefault(name, set())
        waiting.add(woken)
        timer = self.clock.call_at(self.clock.monotonic() + seconds, _wake, woken)
        task: asyncio.Task[Any] | None = asyncio.current_task()
        exchange.watcher = task
        try:
            if exchange.arrival is Arrival.GONE:
                raise ClientGone
            await woken
        except asyncio.CancelledError:
            if exchange.arrival is Arrival.GONE and task is not None:
                task.uncancel()
                raise ClientGone from None
            raise
        finally:
            exchange.watcher = None
            timer.cancel()
            waiting.discard(woken)
            if not waiting and self._waits.get(name) is waiting:
                del self._waits[name]

    async def _renew(self) -> None:
        """Renew all claims while there are any."""
        while self._held:
            await pause(self.clock, RENEWAL_S)
            held = [(one.id, one.call_id) for one in self._held.values()]
            if not held:
                return
            try:
                await self.store.renew(held)
            except HearthError as exc:
                _log.warning("idempotency keys not renewed", keys=len(held), error=str(exc))


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
