"""The schedules of an app: /v1/apps/:app/schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from starlette.responses import Response

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action, is_allowed
from hearth.models.errors import (
    ApiError,
    InvalidSchedule,
    SchedulesAlreadyExists,
    SchedulesMissingNew,
)
from hearth.models.schedule import Schedule, definition_of, schedule_of, text_of, validate_schedule_name
from hearth.models.timing import refuse_past
from hearth.schedules.scheduler import MakeCall
from hearth.server.api_v1.encode import schedule_json
from hearth.server.api_v1.request import ApiRequest
from hearth.server.audit import concerns
from hearth.server.bodies import first_value, lowered
from hearth.server.errors import JSON_TYPE
from hearth.stores.datastore import Datastore


class Runner(Protocol):
    """Fires schedules. A :class:`~hearth.schedules.scheduler.Scheduler` is one."""

    def wake(self) -> None:
        """Take note of a change."""

    async def run_now(self, schedule: Schedule) -> str:
        """Call the function of a schedule; return the id of the call."""


class Schedules:
    """The operations on schedules.

    Args:
        datastore: Stores them.
        next_id: Returns a new id.
        make_call: Makes the call of a schedule: one for which there can be none is refused.
        runner: Fires them.
    """

    def __init__(
        self, datastore: Datastore, clock: Clock, next_id: Callable[[], str], make_call: MakeCall, runner: Runner
    ) -> None:
        self._datastore = datastore
        self._clock = clock
        self._next_id = next_id
        self._make_call = make_call
        self._runner = runner

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return an app's schedules by name."""
        found = await self._datastore.list_schedules(request.app)
        shown = [self._shown(request, schedule) for schedule in found]
        return {"message": "Successfully listed schedules", "schedules": shown}

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """Return a schedule."""
        schedule = await self._datastore.get_schedule(request.app, request.schedule)
        return {"message": "Successfully loaded schedule", "schedule": self._shown(request, schedule)}

    async def create(self, request: ApiRequest) -> dict[str, Any]:
        """Create a schedule."""
        given = _given(await request.body())
        name = text_of(given, "name")
        concerns(request.http.scope, app=request.app, name=name)
        schedule = await self._put(request.app, name, given, is_new=True)
        return {"message": "Schedule successfully created", "schedule": self._shown(request, schedule)}

    async def put(self, request: ApiRequest) -> dict[str, Any]:
        """Create a schedule, or give an existing one another definition."""
        given = _given(await request.body())
        if text_of(given, "name") not in ("", request.schedule):
            raise InvalidSchedule("name: it cannot be changed")
        schedule = await self._put(request.app, request.schedule, given, is_new=False)
        return {"message": "Schedule successfully stored", "schedule": self._shown(request, schedule)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Delete a schedule. Calls that it has made stay."""
        await self._datastore.remove_schedule(request.app, request.schedule)
        return {"message": "Schedule deleted"}

    async def run(self, request: ApiRequest) -> Response:
        """Call the function of a schedule now, whether it is enabled or not."""
        schedule = await self._datastore.get_schedule(request.app, request.schedule)
        call_id = await self._runner.run_now(schedule)
        body = msgspec.json.encode({"call_id": call_id})
        return Response(body, 202, headers={"Content-Type": JSON_TYPE})

    async def _put(self, app_name: str, name: str, given: dict[str, Any], *, is_new: bool) -> Schedule:
        validate_schedule_name(name)
        now, new_id = self._clock.now(), self._next_id()
        wanted = definition_of(given, now)

        def change(app_id: str, stored: Schedule | None) -> Schedule:
            if is_new and stored is not None:
                raise SchedulesAlreadyExists
            if stored is None or stored.definition.timing != wanted.timing:  # a time in the past may stay
                refuse_past(wanted.timing, now)
            return schedule_of(wanted, app_name, app_id, name, stored, new_id, now)

        app = await self._datastore.get_app(app_name)
        probe = Schedule(app_name=app_name, app_id=app.id, name=name, id=new_id, definition=wanted, anchor=now)
        try:
            await self._make_call(probe, new_id, now, now)
        except ApiError as exc:
            field = "route" if wanted.is_of_route else "fn_id"
            raise InvalidSchedule(f"{field}: {exc.message}") from exc
        stored = await self._datastore.put_schedule(app_name, name, change)
        self._runner.wake()
        return stored

    def _shown(self, request: ApiRequest, schedule: Schedule) -> dict[str, Any]:
        shows_values = is_allowed(request.principal, Action.CONFIG_READ, schedule.app_name)
        return schedule_json(schedule, self._clock.now(), shows_values=shows_values)


def _given(body: bytes) -> dict[str, Any]:
    """Return the fields of the ``schedule`` of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
        SchedulesMissingNew: It has no schedule.
    """
    value = lowered(first_value(body)).get("schedule")
    if value is None:
        raise SchedulesMissingNew
    return lowered(value)
