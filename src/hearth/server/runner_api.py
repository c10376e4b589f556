"""The API for runners: /v1/runner (nodes specification 3).

Fn's own requests and answers, and what Hearth's runners need beyond them: leases, which are renewed, released and
settled, and many starts or ends in one request. Every request may be sent again: a runner that lost an answer does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import OrderedDict
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hearth.access.base import (
    NO_IDEMPOTENCY_KEYS,
    NO_SECRET_SOURCE,
    AcceptedCalls,
    AlreadyStarted,
    CallRecords,
    EndedCall,
    IdempotencyKeys,
    SecretSource,
)
from hearth.access.remote import protocol
from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.aio.group_commit import GroupCommit, write_apart
from hearth.async_calls.dispatcher import Dispatcher
from hearth.models.call import ERROR, QUEUED, RUNNING, Call
from hearth.models.errors import (
    CallNotFound,
    DatastoreCannotUpdateCall,
    HearthError,
    InvalidJSON,
    RecordRefused,
    SecretUnavailable,
    StoreUnavailable,
)
from hearth.models.image import Pin
from hearth.models.message import InvalidMessage, decode_call
from hearth.models.times import ZERO, format_time
from hearth.models.token import Token
from hearth.queues.base import Reserved
from hearth.server import errors
from hearth.server.api_v1.request import ApiRequest
from hearth.stores.datastore import Datastore
from hearth.telemetry.logs import get_logger

#: Seconds for which a poll waits.
POLL_S: Final = 30.0
#: A request that is sent again says so, by its number.
ATTEMPT: Final = "hearth-attempt"
_MAX_LIMIT: Final = 1000
#: Payloads in one answer: they are put together in one turn of the event loop.
_MAX_HANDED_BYTES: Final = 16 << 20
#: Calls of which it is remembered that they were accepted, or handed to a runner that knows no leases.
_REMEMBERED: Final = 20_000
_ACCEPTED: Final = {"msg": "enqueued call"}
_STARTED: Final = {"msg": "slingshot: engage"}
_FINISHED: Final = {"msg": "good night, sweet prince"}
_STARTED_TWICE: Final = "the call was handed out twice; it may have run in part"

_log = get_logger(__name__)


class RunnerApi:
    """The operations.

    Args:
        records: This node's own.
        accepted: This node's own.
        datastore: Where records are.
        secrets: The secrets of functions.
        keys: This node's own.
    """

    def __init__(
        self,
        records: CallRecords,
        accepted: AcceptedCalls,
        datastore: Datastore,
        clock: Clock,
        dispatcher: Dispatcher,
        secrets: SecretSource = NO_SECRET_SOURCE,
        keys: IdempotencyKeys = NO_IDEMPOTENCY_KEYS,
    ) -> None:
        self._records = records
        self._accepted = accepted
        self._datastore = datastore
        self._clock = clock
        self._dispatcher = dispatcher
        self._secrets = secrets
        self._keys = keys
        self._accepting: OrderedDict[str, asyncio.Future[None]] = OrderedDict()
        self._plain: OrderedDict[str, Reserved] = OrderedDict()
        self._finishing = GroupCommit(self._finish_many)

    async def close(self) -> None:
        """Wait until all is written."""
        await self._finishing.close()

    # -- the queue ------------------------------------------------------------------------------------------------

    async def enqueue(self, request: ApiRequest) -> dict[str, Any]:
        """Accept an async call; again, if its runner lost the answer."""
        call = _call(await request.body())
        call.status = QUEUED
        known = self._accepting.get(call.id)
        if known is None:
            await self._accept(call, again=request.http.headers.get(ATTEMPT, "1") != "1")
        else:
            await asyncio.shield(known)
        return _ACCEPTED

    async def _accept(self, call: Call, *, again: bool) -> None:
        accepted = self._accepting[call.id] = asyncio.get_running_loop().create_future()
        try:
            if not (again and await self._is_recorded(call)):
                await self._accepted.enqueue(call)
            accepted.set_result(None)
        except BaseException as exc:
            del self._accepting[call.id]
            accepted.set_exception(exc if isinstance(exc, Exception) else HearthError("not accepted"))
            accepted.exception()  # seen, also where nobody else waits
            del accepted  # it holds the error, which holds this frame
            raise
        if len(self._accepting) > _REMEMBERED and next(iter(self._accepting.values())).done():
            self._accepting.popitem(last=False)

    async def _is_recorded(self, call: Call) -> bool:
        try:
            await self._datastore.get_call(call.app_name, call.id)
        except CallNotFound:
            return False
        return True

    async def dequeue(self, request: ApiRequest) -> Response:
        """Wait for calls; none after 30 s. Ends at once when its runner leaves, which then gets none."""
        asked_at = self._clock.monotonic()
        limit, wait_s = _number(request.query("limit"), 0), _number(request.query("wait_s"), POLL_S)
        without = _names(request.query("without"))
        reserved = await self._wait_for_calls(request, min(int(limit), _MAX_LIMIT) or 1, min(wait_s, POLL_S), without)
        if not limit:
            reserved = await self._remember(reserved)
        reserved = self._as_many_as_fit(reserved)
        now = self._clock.monotonic()
        body = protocol.encode_handed(
            reserved,
            waited_s=now - asked_at,
            now=now,
            visibility_s=self._accepted.visibility_s,
            behind=request.query("behind") == "1",
        )
        return Response(body, headers={"Content-Type": errors.JSON_TYPE})

    def _as_many_as_fit(self, reserved: list[Reserved]) -> list[Reserved]:
        """Keep the first calls whose payloads fit one answer, at least one; give back the others."""
        size = 0
        for count, one in enumerate(reserved):
            size += len(one.call.payload)
            if count and size > _MAX_HANDED_BYTES:
                self._dispatcher.give_back(reserved[count:])
                return reserved[:count]
        return reserved

    async def _wait_for_calls(
        self, request: ApiRequest, limit: int, wait_s: float, without: frozenset[str]
    ) -> list[Reserved]:
        background = Background()
        taking = background.start(self._dispatcher.take(limit, wait_s, without))
        leaving = background.start(_left(request.http))
        try:
            await asyncio.wait([taking, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                return await taking
            if taking.done() and not taking.cancelled() and taking.exception() is None:
                self._dispatcher.give_back(taking.result())
            return []
        finally:
            await background.cancel()

    async def _remember(self, reserved: list[Reserved]) -> list[Reserved]:
        """For a runner that knows no leases: what can be run, with its lease kept here until it starts."""
        sound = []
        for one in reserved:
            if one.fault:
                await self._record_fault(one)
                continue
            sound.append(one)
            self._plain[one.call.id] = one
            if len(self._plain) > _REMEMBERED:
                self._plain.popitem(last=False)
        return sound

    async def _record_fault(self, reserved: Reserved) -> None:
        call = reserved.call
        call.started_at = call.completed_at = call.not_before(self._clock.now())
        call.status = RUNNING
        try:
            await self._records.start(call)
        except AlreadyStarted:
            await self._accepted.acknowledge([reserved.lease])
            return
        call.status, call.error, call.dead = ERROR, reserved.fault, call.joins_dead_letters
        await self._records.finish_many([EndedCall(call, b"")])
        await self._accepted.acknowledge([reserved.lease])

    # -- one call's start and end ---------------------------------------------------------------------------------

    async def start(self, request: ApiRequest) -> dict[str, Any]:
        """Compare and swap the record: one runner may run the call."""
        body = await request.body()
        batch = protocol.decode_starts(body)
        if batch is None:
            await self._start_plain(_call(body))
            return _STARTED
        return {"found": list(await asyncio.gather(*[self._start(_call(one)) for one in batch]))}

    async def _start_plain(self, call: Call) -> None:
        """As Fn has it: the message goes now, and a call that is started twice ends as an error."""
        handed = self._plain.pop(call.id, None)
        if handed is not None and await self._accepted.renew([handed.lease]) != [True]:
            raise DatastoreCannotUpdateCall
        found = await self._start(call)
        if found == RUNNING:
            call.status, call.error, call.completed_at = ERROR, _STARTED_TWICE, self._clock.now()
            await self._records.interrupted(call)
        if handed is not None:
            await self._accepted.acknowledge([handed.lease])
        if found:
            raise DatastoreCannotUpdateCall

    async def _start(self, call: Call) -> str:
        """Return how far the call had come; empty if it may run now, or was allowed to before."""
        call.status = RUNNING
        if call.started_at == ZERO:
            call.started_at = call.not_before(self._clock.now())
        try:
            await self._records.start(call)
        except AlreadyStarted as exc:
            return "" if exc.status == RUNNING and await self._is_same(call) else exc.status
        return ""

    async def _is_same(self, call: Call) -> bool:
        """Return whether this very start is stored: its answer was lost, and its runner asks again."""
        stored = await self._datastore.get_call(call.app_name, call.id)
        return stored.status == RUNNING and format_time(stored.started_at) == format_time(call.started_at)

    async def finish(self, request: ApiRequest) -> dict[str, Any]:
        """Store records and logs. A batch is stored before the answer; Fn's single form is answered in any case."""
        body = await request.body()
        try:
            batch = protocol.decode_many_ended(body)
            if batch is None:
                await self._finish_one(*protocol.decode_ended(body))
                return _FINISHED
        except InvalidMessage as exc:
            raise InvalidJSON from exc
        for refusal in await asyncio.gather(*[self._finishing.put(one) for one in batch]):
            if refusal is not None:
                raise RecordRefused(str(refusal)) from refusal
        return _FINISHED

    async def _finish_one(self, ended: EndedCall, interrupted: bool) -> None:
        if interrupted:
            await self._records.interrupted(ended.call)
            return
        try:
            failure: Exception | None = await self._finishing.put(ended)
        except HearthError as exc:
            failure = exc
        if failure is not None:
            _log.error("error inserting call into datastore", call_id=ended.call.id, error=str(failure))

    async def _finish_many(self, ended: list[EndedCall]) -> list[Exception | None]:
        """For each why the store does not take it: they are of several runners, and none is to lose another's."""

        async def finish(some: list[EndedCall]) -> list[Exception | None]:
            await self._records.finish_many(some)
            return [None] * len(some)

        return await write_apart(finish, ended, refused=lambda _, exc: exc)

    # -- secrets --------------------------------------------------------------------------------------------------

    async def secrets(self, request: ApiRequest) -> Response:
        """Return secrets with their values. This is the only request that does, and it needs a runner's token."""
        wanted = _decoded(await request.body(), protocol.WantedSecrets)
        try:
            found = await self._secrets.values(wanted.app_name, wanted.app_id, wanted.names)
        except SecretUnavailable as exc:
            given = protocol.GivenSecrets(unavailable=protocol.Unreadable(exc.name, exc.reason))
        else:
            given = protocol.GivenSecrets(found.values, found.versions)
        headers = {"Content-Type": errors.JSON_TYPE, "Cache-Control": "no-store"}
        return Response(protocol.encode(given), headers=headers)

    # -- tokens ---------------------------------------------------------------------------------------------------

    async def tokens(self, request: ApiRequest) -> Response:
        """Return tokens that callers of a runner have shown, straight from the store, and note their use."""
        digests = _decoded(await request.body(), protocol.WantedTokens).digests
        found = await asyncio.gather(*[self._token(digest) for digest in digests])
        headers = {"Content-Type": errors.JSON_TYPE, "Cache-Control": "no-store"}
        return Response(protocol.encode_tokens(found), headers=headers)

    async def _token(self, digest: str) -> Token | StoreUnavailable | None:
        try:
            token = await self._datastore.find_token(digest)
        except StoreUnavailable as exc:  # of one token: those of other callers are answered
            _log.warning("token not checked", error=str(exc))
            return exc
        now = self._clock.now()
        if token is not None and not token.has_expired(now):
            await self._note_use(token, now.replace(minute=0, second=0, microsecond=0))
        return token

    async def _note_use(self, token: Token, hour: dt.datetime) -> None:
        if token.last_used_at >= hour:
            return
        try:
            await self._datastore.note_token_use(token.id, hour)
        except HearthError as exc:
            _log.debug("use of a token not stored", token_id=token.id, error=str(exc))

    # -- idempotency keys -----------------------------------------------------------------------------------------

    async def keys(self, request: ApiRequest) -> Response:
        """Claim an idempotency key, hold keys for longer, or store the end of a request. Each may be repeated."""
        given = _decoded(await request.body(), protocol.KeyRequest)
        if given.claim is not None:
            answer = protocol.encode_key(await self._keys.claim(given.claim))
        elif given.end is not None:
            try:
                end = protocol.to_key_end(given.end)
            except InvalidMessage as exc:
                raise InvalidJSON from exc
            answer = msgspec.json.encode(protocol.Ended(await self._keys.end(end)))
        else:
            if given.renew:
                await self._keys.renew(given.renew)
            answer = msgspec.json.encode({"msg": "renewed"})
        return Response(answer, headers={"Content-Type": errors.JSON_TYPE, "Cache-Control": "no-store"})

    # -- images ---------------------------------------------------------------------------------------------------

    async def pin(self, request: ApiRequest) -> dict[str, Any]:
        """Store what the image of a function meant when a runner got it."""
        given = _decoded(await request.body(), protocol.Pinned)
        await self._datastore.pin(Pin(given.app_name, given.function, given.image, given.digest))
        return {"msg": "pinned"}

    async def ready(self, request: ApiRequest) -> dict[str, Any]:
        """Return the functions that keep containers ready."""
        found = await self._datastore.kept_ready()
        return {"routes": found.routes, "fns": found.fns}

    # -- cancelled calls ------------------------------------------------------------------------------------------

    async def cancelled(self, request: ApiRequest) -> dict[str, Any]:
        """Return those of a runner's calls that were cancelled."""
        given = _decoded(await request.body(), protocol.CallIds).calls
        return {"calls": sorted(await self._records.cancelled(given))}

    # -- leases ---------------------------------------------------------------------------------------------------

    async def renew(self, request: ApiRequest) -> dict[str, Any]:
        """Keep calls with their runner for longer."""
        leases = _decoded(await request.body(), protocol.Leases).leases
        return {"held": await self._accepted.renew(leases), "visibility_s": self._accepted.visibility_s}

    async def settle(self, request: ApiRequest) -> dict[str, Any]:
        """Forget the messages of calls that have ended."""
        leases = _decoded(await request.body(), protocol.Leases).leases
        return {"held": await self._accepted.acknowledge(leases)}

    async def retry(self, request: ApiRequest) -> dict[str, Any]:
        """Put the next attempt of a call in the place of the one that has ended."""
        try:
            lease, again, delay_s = protocol.decode_retry(await request.body())
        except InvalidMessage as exc:
            raise InvalidJSON from exc
        return {"held": [await self._accepted.retry(lease, again, delay_s)]}

    async def callback(self, request: ApiRequest) -> dict[str, Any]:
        """Queue the call that sends the record of a call to its destination."""
        await self._accepted.call_back(_call(await request.body()))
        return {"msg": "queued"}

    async def release(self, request: ApiRequest) -> dict[str, Any]:
        """Take calls back that were not started."""
        for one in _decoded(await request.body(), protocol.Releases).leases:
            await self._accepted.release(one.lease, one.delay_s)
        return {"msg": "released"}


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _call(body: bytes) -> Call:
    try:
        return decode_call(body)
    except InvalidMessage as exc:
        raise InvalidJSON from exc


def _decoded(body: bytes, kind: type[protocol.T]) -> protocol.T:
    try:
        return protocol.decode(body, kind)
    except InvalidMessage as exc:
        raise InvalidJSON from exc


def _names(text: str) -> frozenset[str]:
    return _decoded(text.encode(), frozenset[str]) if text else frozenset()


def _number(text: str, default: float) -> float:
    try:
        return max(0.0, msgspec.json.decode(text, type=float)) if text else default
    except msgspec.MsgspecError:
        return default
