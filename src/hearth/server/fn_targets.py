"""The fns that requests name: ``POST /invoke/FN_ID``, and ``/t/APP/SOURCE`` through a trigger."""

from __future__ import annotations

from hearth.access.fn_cache import CachedFns, FnDefinition
from hearth.agent.agent import Agent
from hearth.models.delivery import of_annotations
from hearth.models.errors import ApiError, PathMalformed, PathNotFound
from hearth.models.fn_errors import MethodNotAllowed, NeverFits
from hearth.models.function import FunctionSpec
from hearth.server.api_v2.functions import FnFunctions
from hearth.server.call_gates import CallGates
from hearth.server.http.parsing import RequestHead
from hearth.server.http.shared import INVOKE, TRIGGERS
from hearth.server.targets import Target, Targets
from hearth.telemetry.series import Histogram


class FnTargets(Targets):
    """Finds fns.

    Args:
        functions: Compiles fns to functions.
    """

    def __init__(
        self,
        agent: Agent,
        functions: FnFunctions,
        gates: CallGates,
        fns: CachedFns,
        durations: Histogram,
        max_held_bytes: int,
    ) -> None:
        super().__init__(agent, gates, durations, max_held_bytes)
        self._functions = functions
        self._fns = fns

    async def find(self, head: RequestHead, names: tuple[str, str] | None) -> Target:
        """Return the fn that a path names."""
        path, is_plain = head.path, head.path.startswith(INVOKE)
        try:
            definition = await (self._invoked(head) if is_plain else self._triggered(head))
        except ApiError:
            self.known.pop(path, None)  # it may hold secrets
            raise
        known = self.known.get(path)
        if known is not None and known.definition is definition:
            return known
        durations = self._durations.series(*definition.labels)
        gate = self._gates.of_fn(definition.app, definition.fn)
        delivery = of_annotations(definition.fn.annotations)
        trigger_id = definition.trigger_id
        return self.keep(path, Target(definition, (), durations, gate, is_plain, trigger_id, delivery=delivery))

    async def _invoked(self, head: RequestHead) -> FnDefinition:
        fn_id = head.path.removeprefix(INVOKE)
        if not fn_id or "/" in fn_id:
            raise PathNotFound.of(f"{head.method} {head.path}")
        if head.method != "POST":
            raise MethodNotAllowed(head.method, head.path)
        if "\0" in fn_id:
            raise PathMalformed
        return await self._fns.by_id(fn_id)

    async def _triggered(self, head: RequestHead) -> FnDefinition:
        app_name, _, source = head.path.removeprefix(TRIGGERS).partition("/")
        if not app_name:
            raise PathNotFound.of(f"{head.method} {head.path}")
        if "\0" in head.path:
            raise PathMalformed
        return await self._fns.by_source(app_name, f"/{source}")

    def specs(self, target: Target) -> tuple[FunctionSpec, FunctionSpec | None]:
        """Compile a fn. Only calls by id can be detached."""
        definition = target.definition
        assert isinstance(definition, FnDefinition)
        detached = self._functions.detached(definition) if target.is_plain else None
        return self._functions.of_fn(definition), detached

    def misfit(self) -> ApiError:
        """Return the error of a fn that never fits this node."""
        return NeverFits()

    def log_fields(self, head: RequestHead, names: tuple[str, str] | None) -> dict[str, str]:
        """Return the path: it has an id, or the names of an app and a source."""
        return {"path": head.path}
