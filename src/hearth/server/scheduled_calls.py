"""Make the calls of schedules: of a route or a fn of the same app, as it is now."""

from __future__ import annotations

import datetime as dt
from typing import Final
from urllib.parse import quote

import msgspec

from hearth.access.base import Definitions, FnDefinitions
from hearth.access.cache import secret_names
from hearth.contracts.base import canonical
from hearth.models.call import QUEUED, Call
from hearth.models.delivery import of_annotations
from hearth.models.errors import AppsNotFound
from hearth.models.fn_errors import FnNotFound
from hearth.models.function import ASYNC
from hearth.models.route import LIMITS, RouteLimits
from hearth.models.schedule import NAME_HEADER, ORIGIN, TIME_HEADER, Schedule
from hearth.models.secret import FILES
from hearth.models.times import format_time
from hearth.server.api_v1.compile import compile_route
from hearth.server.api_v2.functions import compile_fn
from hearth.server.delays import deliver
from hearth.server.http.shared import INVOKE, ROUTES
from hearth.server.targets import route_fields

_SERVER: Final = "http://localhost"


class ScheduledCalls:
    """Makes calls. Works on every node with a database, also on one that runs none.

    Args:
        definitions: Apps and routes.
        fns: Fns.
        limits: The most that a function may ask for.
        public_url: The beginning of the addresses at which clients call functions.
    """

    def __init__(
        self, definitions: Definitions, fns: FnDefinitions, limits: RouteLimits = LIMITS, public_url: str = ""
    ) -> None:
        self._definitions = definitions
        self._fns = fns
        self._limits = limits
        self._server = public_url.removesuffix("/") or _SERVER

    async def make(self, schedule: Schedule, call_id: str, due: dt.datetime, now: dt.datetime) -> Call:
        """Return the call of a schedule, to be enqueued. No client has to prove anything: an app calls itself.

        Args:
            schedule: The schedule.
            call_id: The id of the call.
            due: The firing time.
            now: The time of the call.

        Raises:
            ApiError: The function does not exist, belongs to another app, or cannot be called.
        """
        app = await self._definitions.get_app(schedule.app_name)
        if app.id != schedule.app_id:
            raise AppsNotFound
        rule = schedule.definition
        if rule.is_of_route:
            route = await self._definitions.get_route(app.name, rule.function)
            spec = compile_route(app, msgspec.structs.replace(route, type=ASYNC), self._limits)
            path = f"{ROUTES}{quote(app.name, safe='')}{quote(route.path)}"
            secrets, as_files = secret_names(app, route), route.secrets_as == FILES
            delivery, fields = route.delivery, route_fields(route.headers)
        else:
            fn = await self._fns.get_fn(rule.function)
            if fn.app_id != app.id:
                raise FnNotFound
            spec = compile_fn(app, fn, self._limits, is_sync=False)
            path, secrets, as_files = f"{INVOKE}{fn.id}", app.secrets, False
            delivery, fields = of_annotations(fn.annotations), ()
        headers = {canonical(name): list(values) for name, values in rule.headers.items()}
        headers |= {NAME_HEADER: [schedule.name], TIME_HEADER: [format_time(due)]}
        call = Call.of(spec, call_id, now, method="POST", url=f"{self._server}{path}", headers=headers)
        call.secrets = sorted(secrets)
        call.secrets_as = FILES if as_files and secrets else call.secrets_as
        call.payload = rule.payload.encode()
        call.status = QUEUED
        call.origin = f"{ORIGIN} {schedule.name}"
        deliver(call, delivery, fields)
        return call
