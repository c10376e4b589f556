"""The results of async calls as answers: what a sync caller would have been sent."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hearth.aio.background import Background
from hearth.aio.clock import Clock, pause
from hearth.contracts.base import HOP_BY_HOP, canonical
from hearth.contracts.stdio.fields import BODILESS
from hearth.models.call import FINAL, SUCCESS, Call
from hearth.models.call_result import CallResult, is_result_token
from hearth.models.errors import CallNotFound, InvalidWait, ResultExpired
from hearth.models.times import format_duration
from hearth.server import errors
from hearth.server.api_v1.request import ApiRequest
from hearth.server.door import is_by_result_token
from hearth.server.targets import OURS, SINGLE, route_fields
from hearth.stores.records.base import RecordStore

MAX_WAIT_S: Final = 60.0
#: Seconds between two looks at the record of a call: first, and at most. Another node may run it.
_FIRST_LOOK_S: Final = 0.025
_LAST_LOOK_S: Final = 0.5
#: Headers of an answer that a function does not set.
_NOT_OF_FUNCTIONS: Final = OURS | HOP_BY_HOP | {"Content-Length", "Fn-Call-Status"}
_SINGLE_FIELDS: Final = frozenset(name.lower() for name in SINGLE)
_JSON: Final = "application/json"

LoadCall = Callable[[], Awaitable[Call]]


class Results:
    """Answers requests for results.

    Args:
        store: Has the records and the results.
        ttl_s: Seconds for which a failure is answered that left no result, because its node died.
    """

    def __init__(self, store: RecordStore, clock: Clock, ttl_s: int) -> None:
        self._store = store
        self._clock = clock
        self._ttl = dt.timedelta(seconds=ttl_s)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End every wait at once, as if its time were over. Idempotent."""
        self._stopping.set()

    async def answer(self, request: ApiRequest, load: LoadCall, *, of_route: bool) -> Response:
        """Return the result of a call, at once or when it has ended.

        Args:
            request: May say for how many seconds to wait, and show a token of the result.
            load: Returns the record of the call.
            of_route: The call is one of a route, not of a fn.

        Raises:
            CallNotFound: There is no such call, or the token belongs to another one.
            InvalidWait: The request asks for no such wait.
            ResultExpired: The result is not kept any more.
        """
        wait_s = _wait_s(request.query("wait"))
        call = await load()
        if is_by_result_token(request.http.scope) and not is_result_token(request.query("token"), call.result_digest):
            raise CallNotFound
        if call.status not in FINAL and wait_s:
            call = await self._ended(call, load, request.http, wait_s)
        if call.status not in FINAL:
            return _not_yet(call)
        return _response(call, await self._result(call), of_route=of_route)

    async def _ended(self, call: Call, load: LoadCall, http: Request, wait_s: float) -> Call:
        """Look at the record until the call has ended, the time is over, the client has left or the node stops."""
        until, look_s = self._clock.monotonic() + wait_s, _FIRST_LOOK_S
        background = Background()
        ends = [background.start(self._stopping.wait()), background.start(_left(http))]
        try:
            while call.status not in FINAL and (left_s := until - self._clock.monotonic()) > 0:
                look = background.start(pause(self._clock, min(look_s, left_s)))
                done, _ = await asyncio.wait([look, *ends], return_when=asyncio.FIRST_COMPLETED)
                if look not in done:
                    break
                call = await load()
                look_s = min(2 * look_s, _LAST_LOOK_S)
        finally:
            await background.cancel()
        return call

    async def _result(self, call: Call) -> CallResult:
        now = self._clock.now()
        found = await self._store.get_result(call.app_name, call.id)
        if found is None and call.status != SUCCESS:  # its node died, or is one of a version that kept no results
            found = CallResult(
                status=call.response_status or 500,
                error="internal server error",
                expires_at=call.completed_at + self._ttl,
            )
        if found is None or found.expires_at <= now:
            raise ResultExpired
        return found


def _not_yet(call: Call) -> Response:
    body = msgspec.json.encode({"call_id": call.id, "status": call.status})
    headers = {"Content-Type": errors.JSON_TYPE, "Retry-After": "1", "Fn-Call-Status": call.status}
    return Response(body, 202, headers=headers)


def _response(call: Call, result: CallResult, *, of_route: bool) -> Response:
    """Return the answer that a sync caller would have been sent, and the status of the call."""
    is_error = bool(result.error)
    body = errors.body_of(result.error, "" if of_route else errors.OF_V2[0]) if is_error else result.body
    given = [(name.lower(), value) for name, value in result.headers if canonical(name) not in _NOT_OF_FUNCTIONS]
    if is_error:
        given.insert(0, ("content-type", errors.JSON_TYPE))
    id_field = "fn_call_id" if of_route else "fn-call-id"
    fields = [(id_field, call.id)]
    if of_route:
        names = {name for name, _ in given}
        added = ((name.decode(), value.decode("latin-1")) for name, value in _of_route(result))
        if is_error:
            fields += [field for field in added if field[0] not in _SINGLE_FIELDS]
        else:
            fields += [field for field in added if field[0] not in names or field[0] not in _SINGLE_FIELDS]
        if result.waited_s >= 0:
            fields.append(("xxx-fxlb-wait", format_duration(result.waited_s)))
    fields += [field for field in given if field[0] != id_field]
    response = Response(b"" if result.status in BODILESS else body, result.status)
    if result.status in BODILESS:
        response.raw_headers = []
    elif of_route and not any(name == "content-type" for name, _ in fields):
        fields.append(("content-type", _JSON))
    # The answer is a function's, and this may be the origin of the API.
    fields += [("fn-call-status", call.status), ("content-security-policy", "sandbox")]
    response.raw_headers += [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in fields
    ]
    return response


def _of_route(result: CallResult) -> list[tuple[bytes, bytes]]:
    headers: dict[str, list[str]] = {}
    for name, value in result.of_route:
        headers.setdefault(name, []).append(value)
    return list(route_fields(headers))


def _wait_s(text: str) -> float:
    if not text:
        return 0.0
    try:
        wait_s = msgspec.json.decode(text, type=float)
    except (msgspec.MsgspecError, ValueError):
        raise InvalidWait from None
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise InvalidWait
    return wait_s


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
