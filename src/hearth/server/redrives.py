"""Redrives: new calls made of dead letters, of their functions as these are now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from hearth.access.base import AcceptedCalls, Definitions, FnDefinitions
from hearth.access.cache import secret_names
from hearth.aio.clock import Clock
from hearth.models.call import QUEUED, Call
from hearth.models.delivery import of_annotations
from hearth.models.destination import CALLBACK, callback_again
from hearth.models.errors import ApiError, DeadLetterUnreadable, QuotaExceeded, TooManyQueued
from hearth.models.function import ASYNC
from hearth.models.route import RouteLimits
from hearth.models.secret import ENV, FILES
from hearth.server.api_v1.compile import compile_route
from hearth.server.api_v2.functions import compile_fn
from hearth.server.delays import deliver
from hearth.server.targets import route_fields
from hearth.stores.records.base import DeadLetterFilter, RecordStore
from hearth.telemetry.logs import get_logger

#: Headers of a request that were about its time, and of the attempts of its call.
_NOT_AGAIN: Final = frozenset({"Fn-Delay", "Fn-Not-Before", "Fn-Attempt"})
#: Dead letters that are redriven or removed in one request, and read at a time.
MOST: Final = 1000
PAGE: Final = 100

_log = get_logger(__name__)


@dataclasses.dataclass(slots=True)
class Redriven:
    """The outcome of a redrive of many.

    Attributes:
        calls: How many new calls were accepted.
        skipped: How many dead letters stay: their functions are gone, or their messages cannot be read.
        next_cursor: Where the next request goes on; empty: there are no more.
    """

    calls: int = 0
    skipped: int = 0
    next_cursor: str = ""


class Redrives:
    """Makes new calls of dead letters. Each becomes one call, however often a redrive is repeated.

    The id of the new call is stored first, then the call is accepted, then the dead letter removed: a redrive that ends
    in between is repeated with the same id, and a call runs once under one id.

    Args:
        store: The dead letters.
        definitions: Finds apps and routes.
        fns: Finds fns.
        accepted: Accepts the new calls.
        clock: Tells when a call is made.
        next_id: Returns a new id.
        limits: The most that a function may ask for.
    """

    def __init__(
        self,
        store: RecordStore,
        definitions: Definitions,
        fns: FnDefinitions,
        accepted: AcceptedCalls,
        clock: Clock,
        next_id: Callable[[], str],
        limits: RouteLimits,
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._fns = fns
        self._accepted = accepted
        self._clock = clock
        self._next_id = next_id
        self._limits = limits

    async def redrive(self, app_name: str, call_id: str) -> str:
        """Make a new call of a dead letter, and return its id.

        Raises:
            DeadLetterNotFound: There is none.
            DeadLetterUnreadable: Its message could not be read.
            ApiError: Its function is gone or not valid, or a quota leaves no room.
        """
        letter, payload = await self._store.get_dead_letter(app_name, call_id)
        if letter.call.unreadable:
            raise DeadLetterUnreadable
        record = await self._renewed(letter.call)
        record.id = await self._store.claim_dead_letter(app_name, call_id, record.id)
        record.payload = payload
        await self._accepted.enqueue(record)
        await self._store.remove_dead_letter(app_name, call_id)
        _log.info("dead letter redriven", call_id=call_id, new_call_id=record.id, app_name=app_name)
        return record.id

    async def redrive_many(self, which: DeadLetterFilter) -> Redriven:
        """Redrive up to ``MOST`` dead letters, newest first.

        Raises:
            QuotaExceeded: A quota leaves no room for the first of them.
        """
        done = Redriven(next_cursor=which.cursor)
        while done.calls + done.skipped < MOST:
            page = page_behind(which, done.next_cursor)
            letters = await self._store.get_dead_letters(page)
            for letter in letters:
                try:
                    await self.redrive(which.app_name, letter.call.id)
                    done.calls += 1
                except (QuotaExceeded, TooManyQueued):
                    if not done.calls:
                        raise
                    return done
                except ApiError as exc:
                    done.skipped += 1
                    _log.info("dead letter not redriven", call_id=letter.call.id, error=str(exc))
                done.next_cursor = letter.cursor
            if len(letters) < page.per_page:
                done.next_cursor = ""
                break
        return done

    async def _renewed(self, dead: Call) -> Call:
        """Return a new call with the request of one that failed, of its function as that is now."""
        app = await self._definitions.get_app(dead.app_name)
        if dead.format == CALLBACK:
            return callback_again(dead, app.id, self._next_id(), self._clock.now())
        fields: Iterable[tuple[bytes, bytes]] = ()
        if dead.path.startswith("/"):
            route = await self._definitions.get_route(dead.app_name, dead.path)
            spec = compile_route(app, msgspec.structs.replace(route, type=ASYNC), self._limits)
            secrets, as_files = secret_names(app, route), route.secrets_as == FILES
            rules, fields = route.delivery, route_fields(route.headers)
        else:
            fn = await self._fns.get_fn_named(app.id, dead.path)
            spec = compile_fn(app, fn, self._limits, is_sync=False)
            secrets, as_files, rules = app.secrets, False, of_annotations(fn.annotations)
        headers = {name: values for name, values in dead.headers.items() if name not in _NOT_AGAIN}
        now = self._clock.now()
        record = Call.of(spec, self._next_id(), now, method=dead.method, url=dead.url, headers=headers)
        record.status, record.priority, record.trigger_id = QUEUED, dead.priority, dead.trigger_id
        record.origin = f"redrive {dead.id}"
        record.secrets, record.secrets_as = sorted(secrets), FILES if as_files and secrets else ENV
        deliver(record, rules, fields)
        return record


def page_behind(which: DeadLetterFilter, cursor: str) -> DeadLetterFilter:
    """Return the filter of the page behind a cursor."""
    return dataclasses.replace(which, per_page=PAGE, cursor=cursor)
