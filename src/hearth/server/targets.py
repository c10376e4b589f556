"""The functions that requests name: what is the same for all calls of one is found with one look-up."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from hearth.access.cache import CachedDefinitions, Definition
from hearth.access.fn_cache import FnDefinition
from hearth.agent.agent import Agent
from hearth.agent.shares import Share
from hearth.contracts import contract_for
from hearth.contracts.base import HOP_BY_HOP, Contract, Head, Headers, canonical
from hearth.contracts.stdio.fields import blank_controls, is_token
from hearth.models.call import HeaderMap
from hearth.models.delivery import NO_RULES, Delivery
from hearth.models.errors import ApiError, AppsMissingName, BodyTooLarge, PathMalformed, PathNotFound, ServerBusy
from hearth.models.function import FunctionSpec
from hearth.models.route import clean_path
from hearth.server.api_v1.functions import Functions
from hearth.server.call_gates import CallGates, Gate
from hearth.server.http.parsing import RequestHead
from hearth.server.http.shared import ROUTES
from hearth.telemetry.series import Histogram, Spread

Fields = Sequence[tuple[bytes, bytes]]
#: Beginnings of answers that are kept for a function: up to a kilobyte each, for thousands of functions.
_MOST_STARTS: Final = 4

#: The methods with which routes are called.
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE"})

#: Headers of which an answer has one: the function's replaces what was there.
SINGLE: Final = frozenset(
    {
        "Content-Type",
        "Content-Length",
        "Date",
        "Location",
        "Etag",
        "Last-Modified",
        "Server",
        "Content-Encoding",
    }
)
#: Headers that only Hearth sets.
#: With the last two, a page of a function could hold a window of the dashboard, or stand between it and the node.
OURS: Final = frozenset({"Fn_call_id", "Xxx-Fxlb-Wait", "Cross-Origin-Opener-Policy", "Service-Worker-Allowed"})
#: Headers that a route cannot add: they belong to one answer and its connection.
_NOT_OF_ROUTES: Final = OURS | HOP_BY_HOP | {"Content-Length"}
#: Functions whose constant parts are kept.
_MAX_TARGETS: Final = 10_000


class Starts(msgspec.Struct, eq=False):
    """The beginnings of a function's answers as they were composed last.

    Attributes:
        head: The head of the last answer; contracts return the same one for the same bytes.
        start: The beginning of that answer.
        known: Beginnings by the status and the header fields of the function.
    """

    head: Head | None = None
    start: bytes = b""
    known: dict[tuple[object, ...], bytes] = msgspec.field(default_factory=dict)

    def keep(self, key: tuple[object, ...], start: bytes) -> None:
        """Keep one more."""
        if len(self.known) >= _MOST_STARTS:
            self.known.clear()
        self.known[key] = start


class Target(msgspec.Struct, eq=False):
    """A function that can be called.

    Attributes:
        definition: Its app and route, or fn. The target is to be found again when they are not fresh any more.
        fields: The header fields that the route adds to each answer.
        durations: Takes how long requests last.
        gate: Checks the callers; ``None`` if everybody may call.
        is_plain: Its calls are no HTTP requests of clients to it: headers pass as they are, and they may be detached.
        trigger_id: The trigger that its path names; empty: none.
        spec: The function, once it was compiled.
        detached: The same for calls that nobody waits for; ``None`` if there are none.
        delivery: The rules for its async calls.
        checks_head: Looks at the head of a request before it becomes a call; ``None`` if every head will do.
        most_bytes: The most that a body may have; ``None`` if it is not held in memory, and its app has no such quota.
        most_detached_bytes: The same for a call that nobody waits for.
        quota_bytes: The quota of its app.
        share: The share of its app, once the route was compiled.
        counted: The same, if a quota limits the number of its calls.
        fits: Whether this node can ever run it.
        starts: The beginnings of its answers.
    """

    definition: Definition | FnDefinition
    fields: Fields
    durations: Spread
    gate: Gate | None = None
    is_plain: bool = False
    trigger_id: str = ""
    spec: FunctionSpec | None = None
    detached: FunctionSpec | None = None
    delivery: Delivery = NO_RULES
    checks_head: Callable[[str, Headers], None] | None = None
    most_bytes: int | None = None
    most_detached_bytes: int = 0
    quota_bytes: int | None = None
    share: Share | None = None
    counted: Share | None = None
    fits: bool = False
    starts: Starts = msgspec.field(default_factory=Starts)

    def explain(self, exc: Exception) -> Exception:
        """Return the error that a client sees: that of the quota, if a body exceeds the quota of its app."""
        if isinstance(exc, BodyTooLarge) and exc.limit == self.quota_bytes and self.share is not None:
            return self.share.oversized(exc)
        return exc


class Targets(abc.ABC):
    """Finds functions by requests.

    Args:
        gates: Finds the gates of functions.
        durations: Of requests, by app and function.
        max_held_bytes: Of a body that is held in memory.

    Attributes:
        known: Targets by the path of a request that names them as they are stored.
    """

    def __init__(self, agent: Agent, gates: CallGates, durations: Histogram, max_held_bytes: int) -> None:
        self.known: dict[str, Target] = {}
        self._agent = agent
        self._gates = gates
        self._durations = durations
        self._max_held_bytes = max_held_bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} known={len(self.known)}>"

    @abc.abstractmethod
    async def find(self, head: RequestHead, names: tuple[str, str] | None) -> Target:
        """Return the target of a request.

        Args:
            head: The head of the request.
            names: The app and the path of the function, if the path of the request does not say them.

        Raises:
            ApiError: There is no such function, or it asks for a proof that nobody knows.
        """

    @abc.abstractmethod
    def specs(self, target: Target) -> tuple[FunctionSpec, FunctionSpec | None]:
        """Compile a target: for calls whose clients wait, and for those that nobody waits for.

        Raises:
            ApiError: What is stored is not valid.
        """

    @abc.abstractmethod
    def misfit(self) -> ApiError:
        """Return the error of a function that never fits this node."""

    @abc.abstractmethod
    def log_fields(self, head: RequestHead, names: tuple[str, str] | None) -> dict[str, str]:
        """Return what identifies the function of a request in log lines."""

    def compile(self, target: Target) -> FunctionSpec:
        """Compile a target.

        Raises:
            ApiError: What is stored is not valid.
        """
        spec, detached = self.specs(target)
        try:
            self._agent.check_capacity(spec)
        except ServerBusy:
            target.fits = False
        else:
            target.fits = True
        contract = contract_for(spec.contract)
        target.checks_head = None if type(contract).check is Contract.check else contract.check
        is_held = contract.holds_body or not spec.is_sync or (target.gate is not None and target.gate.checks_body)
        self._limit(target, spec, is_held=is_held)
        target.detached = detached
        target.spec = spec
        return spec

    def _limit(self, target: Target, spec: FunctionSpec, *, is_held: bool) -> None:
        """Let the quotas of the app of a target be in force, and note those that concern its requests."""
        share = target.share = self._agent.pool.set_quotas(spec, target.definition.app.quotas)
        quota = target.quota_bytes = share.quotas.request_bytes
        target.most_detached_bytes = self._max_held_bytes if quota is None else min(quota, self._max_held_bytes)
        target.most_bytes = target.most_detached_bytes if is_held else quota
        target.counted = share if share.limits_calls else None

    def keep(self, key: str, target: Target) -> Target:
        """Keep a target, and return it."""
        if len(self.known) >= _MAX_TARGETS:
            self.known.clear()
        self.known[key] = target
        return target


class RouteTargets(Targets):
    """Finds routes.

    Args:
        functions: Compiles routes to functions.
    """

    def __init__(
        self,
        agent: Agent,
        functions: Functions,
        gates: CallGates,
        definitions: CachedDefinitions,
        durations: Histogram,
        max_held_bytes: int,
    ) -> None:
        super().__init__(agent, gates, durations, max_held_bytes)
        self._functions = functions
        self._definitions = definitions

    async def find(self, head: RequestHead, names: tuple[str, str] | None) -> Target:
        """Return the route with the names in a path, or with others."""
        app_name, path = names or route_names(head.path)
        if not app_name:
            raise AppsMissingName
        if head.method not in METHODS:
            raise PathNotFound.of(head.path)
        path = clean_path(path)
        key = f"{ROUTES}{app_name}{path}"
        definition = self._definitions.get_nowait(app_name, path)
        if definition is None:
            if "\0" in app_name or "\0" in path:
                raise PathMalformed
            try:
                definition = await self._definitions.get(app_name, path)
            except ApiError:
                self.known.pop(key, None)  # it may hold secrets
                raise
        known = self.known.get(key)
        if known is not None and known.definition is definition:
            return known
        gate = self._gates.of(definition)
        fields = route_fields(definition.route.headers)
        durations = self._durations.series(app_name, path)
        return self.keep(key, Target(definition, fields, durations, gate, delivery=definition.route.delivery))

    def specs(self, target: Target) -> tuple[FunctionSpec, FunctionSpec | None]:
        """Compile a route. A sync one also runs calls that nobody waits for, if their clients prefer so."""
        definition = target.definition
        assert isinstance(definition, Definition)
        app, route, secrets = definition.app, definition.route, definition.secrets
        return self._functions.of_route(app, route, secrets), self._functions.detached(app, route, secrets)

    def misfit(self) -> ApiError:
        """Return the error of a route that never fits this node."""
        return ServerBusy(retry_after=False)

    def log_fields(self, head: RequestHead, names: tuple[str, str] | None) -> dict[str, str]:
        """Return the names of the app and of the route."""
        app_name, path = names or route_names(head.path)
        return {"app": app_name, "route": clean_path(path)}


def route_names(path: str) -> tuple[str, str]:
    """Return the app and the path of the function that the path of a request names."""
    app_name, _, path = path[len(ROUTES) :].partition("/")
    return app_name, path


def route_fields(headers: HeaderMap) -> Fields:
    """Return the header fields that a route adds to each of its answers."""
    fields: list[tuple[bytes, bytes]] = []
    for spelled, values in headers.items():
        name = canonical(spelled)
        if name in _NOT_OF_ROUTES or not is_token(name):
            continue
        if len(values) > 1 and name in SINGLE:  # Fn's CLI splits a value at its semicolons
            values = ["; ".join([value.strip() for value in values])]
        fields += [(name.lower().encode(), blank_controls(value).encode()) for value in values]
    return fields
