"""The functions of API v2 on one node: fns on one side, the agent's functions on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from hearth.access.base import NO_SECRET_SOURCE, FnDefinitions, SecretSource
from hearth.access.fn_cache import FnDefinition
from hearth.agent.pool import Pool
from hearth.models.annotations import CONCURRENCY_KEY
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import AppsNotFound, HearthError, SecretUnavailable
from hearth.models.fn import Fn, validate_fn
from hearth.models.fn_errors import FnNotFound
from hearth.models.function import CONCURRENCY, HTTP_STREAM, SYNC, Amount, FunctionRef, FunctionSpec
from hearth.models.image import pinned
from hearth.models.instances import ANNOTATIONS, MAX_INSTANCES_KEY
from hearth.models.route import LIMITS, RouteLimits
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.telemetry.logs import get_logger

#: Fns whose function is kept; compiling one takes microseconds. If a fn was pushed out and then changes, the idle
#: containers of its old version stay until their idle timeout.
_MAX_FNS: Final = 10_000
_FN_ID: Final = "FN_FN_ID"
_FN_NAME: Final = "FN_FN_NAME"
_UNSET: Final = {CONCURRENCY_KEY: "1", MAX_INSTANCES_KEY: "0"}

_log = get_logger(__name__)


class FnFunctions:
    """Compiles fns, and tells the pool which versions are outdated.

    Args:
        fns: Finds fns as they are now.
        limits: The most that a function may ask for.
        secrets: Finds secrets as they are now, or as they were seconds ago.
    """

    def __init__(
        self,
        pool: Pool,
        fns: FnDefinitions,
        limits: RouteLimits = LIMITS,
        secrets: SecretSource = NO_SECRET_SOURCE,
    ) -> None:
        self._pool = pool
        self._fns = fns
        self._limits = limits
        self._secrets = secrets
        self._specs: dict[str, FunctionSpec] = {}

    def __repr__(self) -> str:
        return f"<FnFunctions fns={len(self._specs)}>"

    def of_fn(self, definition: FnDefinition) -> FunctionSpec:
        """Return the function of a fn. From now on this is its present version.

        Raises:
            ApiError: The stored fn is not valid.
        """
        return self._present(definition.app, definition.fn, definition.secrets)

    def detached(self, definition: FnDefinition) -> FunctionSpec:
        """Return the function of a fn for calls that nobody waits for."""
        return compile_fn(definition.app, definition.fn, self._limits, definition.secrets, is_sync=False)

    async def of_call(self, call: Call) -> FunctionSpec:
        """Return the function of an accepted call: its fn as it was then, with secrets as they are now.

        Raises:
            ApiError: The stored fields are not valid, or a secret is not there.
        """
        secrets = NO_SECRETS
        if call.secrets:
            secrets = await self._secrets.values(call.app_name, call.app_id, call.secrets)
        fn = Fn(
            id=call.config.get(_FN_ID, ""),
            name=call.path,
            app_id=call.app_id,
            image=call.image,
            memory=call.memory,
            timeout=call.timeout,
            idle_timeout=call.idle_timeout,
            config=call.config,
            annotations=_annotations(call),
        )
        app = App(name=call.app_name, id=call.app_id, syslog_url=call.syslog_url)
        return compile_fn(app, fn, self._limits, secrets, is_sync=False)

    async def refresh(self, app_name: str) -> None:
        """Look up the fns of an app that were called here again.

        Where a fn is gone, or shapes its containers in another way, or its image was rebuilt under the same name, idle
        containers end now, busy ones after their call.
        """
        for fn_id, spec in list(self._specs.items()):
            if spec.ref.app_name == app_name:
                await self.refresh_fn(fn_id)

    async def refresh_fn(self, fn_id: str) -> bool:
        """Look up one fn again; return false if nothing can be said about it now."""
        try:
            fn = await self._fns.get_fn(fn_id)
            app = await self._fns.get_app_by_id(fn.app_id)
            secrets = await self._secrets.values(app.name, app.id, app.secrets)
            await self._pool.retire_stale(self._present(app, fn, secrets))
        except (AppsNotFound, FnNotFound, SecretUnavailable):
            if (gone := self._specs.pop(fn_id, None)) is not None:
                self._pool.retire(gone)
        except HearthError as exc:
            _log.warning("definition not looked at again", fn_id=fn_id, error=str(exc))
            return False
        return True

    def forget(self, app_name: str, fn_name: str) -> bool:
        """Forget a fn that was deleted; false while something of it is still here, or has just been ended."""
        names = (app_name, fn_name)
        if not self._pool.forget(names):
            return False
        for fn_id in [fn_id for fn_id, spec in self._specs.items() if spec.ref.labels == names]:
            del self._specs[fn_id]
        return True

    def _present(self, app: App, fn: Fn, secrets: SecretValues) -> FunctionSpec:
        spec = compile_fn(app, fn, self._limits, secrets)
        known = self._specs.pop(fn.id, None)
        if known is not None and known.hot_key != spec.hot_key:
            self._pool.retire(known)
        self._pool.present(spec)
        self._specs[fn.id] = spec
        if len(self._specs) > _MAX_FNS:
            del self._specs[next(iter(self._specs))]
        return spec


def compile_fn(
    app: App, fn: Fn, limits: RouteLimits, secrets: SecretValues = NO_SECRETS, *, is_sync: bool = True
) -> FunctionSpec:
    """Return the function that a fn describes, with its secrets.

    Raises:
        ApiError: The stored fn is not valid; the row of the catalogue that fits.
    """
    validate_fn(fn, limits.memory_mib)
    return FunctionSpec(
        ref=FunctionRef(id=fn.id, app_id=app.id, app_name=app.name, name=fn.name),
        image=pinned(fn.image, fn.digest),
        contract=HTTP_STREAM,
        amount=Amount(fn.memory, 0),
        timeout_s=fn.timeout,
        idle_timeout_s=fn.idle_timeout,
        is_sync=is_sync,
        environment=_environment(app, fn),
        container_labels={"app": app.name, "fn": fn.name, **_version(app.annotations | fn.annotations)},
        secrets=secrets,
        concurrency=fn.concurrency,
        syslog_url=app.syslog_url,
        min_instances=fn.instances.min_instances if is_sync else 0,
        max_instances=fn.instances.max_instances or 0,
    )


def _annotations(call: Call) -> dict[str, str]:
    """Return the annotations of the fn that shape the environment and the number of containers of an accepted call."""
    found = {CONCURRENCY_KEY: call.config.get(CONCURRENCY, "1"), MAX_INSTANCES_KEY: str(call.max_instances)}
    return {key: text for key, text in found.items() if text != _UNSET[key]}


def _environment(app: App, fn: Fn) -> dict[str, str]:
    """Return the environment of the fn's containers. Later wins: the app's, the fn's, then Hearth's variables.

    The type is ``sync`` for all, as in Fn.
    """
    own = {
        "FN_FORMAT": HTTP_STREAM,
        "FN_MEMORY": str(fn.memory),
        "FN_TYPE": SYNC,
        "FN_APP_ID": app.id,
        "FN_APP_NAME": app.name,
        _FN_ID: fn.id,
        _FN_NAME: fn.name,
        CONCURRENCY: str(fn.concurrency),
    }
    return {**app.config, **fn.config, **own}


def _version(values: Mapping[str, str]) -> dict[str, str]:
    """Return a label that is another one for other annotations: a change starts new containers.

    A change of their number alone does not.
    """
    shaping = sorted((key, value) for key, value in values.items() if key not in ANNOTATIONS)
    if not shaping:
        return {}
    return {"annotations": hashlib.blake2b(msgspec.json.encode(shaping), digest_size=8).hexdigest()}
