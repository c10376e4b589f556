"""What can be decided once per route, so that a call decides nothing twice."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Hashable, Iterable, Mapping

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.route import DEFAULT, SYNC, HeaderMap, Route, RouteLimits, format_cpus, validate_route
from hearth.protocols import protocol_for
from hearth.protocols.base import CallProtocol
from hearth.telemetry.tracing import Relation, Step, Steps


class CallSpans:
    """The spans of a function's calls."""

    __slots__ = ("end", "hot_exec", "hot_slot", "start", "submit")

    def __init__(self, app: str, path: str) -> None:
        self.submit = Steps(
            Step("agent_submit", app, path),
            Step("agent_submit_global", relation=Relation.ROOT, is_present=False),
            Step("agent_submit_app", app, relation=Relation.ROOT, is_present=False),
        )
        self.hot_slot = Steps(Step("agent_get_slot", app, path), Step("agent_wait_hot", app, path))
        self.start = Steps(Step("agent_call_start", app, path))
        self.hot_exec = Steps(Step("agent_hot_exec", app, path))
        self.end = Steps(Step("agent_call_end", app, path))


class Function:
    """A route, ready to be called.

    Attributes:
        environment: What every container of the route gets (protocols specification 3).
        key: Names the slot queue: equal for two routes only if one container may serve both.
        protocol: The route's format.
        spans: What a call of it takes time for.

    Raises:
        ApiError: The stored route is not valid; the row of the catalogue that fits.
    """

    __slots__ = ("app", "environment", "is_sync", "key", "labels", "protocol", "route", "spans")

    def __init__(self, app: App, route: Route, limits: RouteLimits) -> None:
        validate_route(route, limits)
        self.app = app
        self.route = route
        self.is_sync = route.type == SYNC
        self.protocol: CallProtocol = protocol_for(route.format)
        self.environment = environment(app, route)
        self.labels = {"app": app.name, "path": route.path}
        self.key = slot_key(route, self.environment)
        self.spans = CallSpans(app.name, route.path)

    @classmethod
    def of_call(cls, call: Call, limits: RouteLimits) -> Function:
        """What an accepted call runs, as its route was when it was accepted.

        Raises:
            ApiError: The stored fields are not valid.
        """
        route = Route(
            app_name=call.app_name,
            path=call.path,
            image=call.image,
            memory=call.memory,
            cpu_milli=call.cpu_milli,
            type=call.type,
            format=call.format,
            timeout=call.timeout,
            idle_timeout=call.idle_timeout,
            config=call.config,
        )
        return cls(App(name=call.app_name), route, limits)

    @staticmethod
    def shape_of(call: Call) -> Hashable:
        """Equal for calls whose :meth:`of_call` is the same."""
        return (
            *(call.app_name, call.path, call.image, call.type, call.format),
            *(call.timeout, call.idle_timeout, call.memory, call.cpu_milli),
            frozenset(call.config.items()),
        )

    def record(self, call_id: str, created_at: dt.datetime, *, method: str, url: str, headers: HeaderMap) -> Call:
        """The record of a new call."""
        route = self.route
        return Call(
            id=call_id,
            app_name=route.app_name,
            path=route.path,
            image=route.image,
            type=route.type,
            format=route.format,
            timeout=route.timeout,
            idle_timeout=route.idle_timeout,
            memory=route.memory,
            cpu_milli=route.cpu_milli,
            config=self.environment,
            headers=headers,
            url=url,
            method=method,
            created_at=created_at,
        )

    def __repr__(self) -> str:
        return f"<Function {self.app.name}{self.route.path} {self.route.image} {self.protocol.name}>"


def environment(app: App, route: Route) -> dict[str, str]:
    """The environment common to all formats; later wins: the app's, the route's, then Hearth's own."""
    merged = {
        **app.config,
        **route.config,
        "FN_FORMAT": route.format or DEFAULT,
        "FN_APP_NAME": app.name,
        "FN_PATH": route.path,
        "FN_MEMORY": str(route.memory),
        "FN_TYPE": route.type,
    }
    if route.cpu_milli:
        merged["FN_CPUS"] = format_cpus(route.cpu_milli)
    return merged


def slot_key(route: Route, config: Mapping[str, str]) -> bytes:
    """A digest of everything that shapes a container. Fields are length-prefixed: no two settings share a key."""
    digest = hashlib.blake2b(digest_size=16)
    for text in _key_fields(route, config):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def _key_fields(route: Route, config: Mapping[str, str]) -> Iterable[str]:
    yield from (route.app_name, route.path, route.image, route.format)
    yield from map(str, (route.timeout, route.idle_timeout, route.memory, route.cpu_milli))
    for name in sorted(config):
        yield name
        yield config[name]
