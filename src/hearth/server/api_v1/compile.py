"""Compile routes, and calls that were accepted earlier, to functions that the agent runs.

A route has no id of its own. Its function is identified by the id of its app and the path, so that an app that is
deleted and created again shares no container, counter or suspicion with its predecessor.
"""

from __future__ import annotations

from collections.abc import Mapping

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.function import (
    CONCURRENCY,
    DEFAULT,
    HTTP_STREAM,
    MAX_CONCURRENCY,
    SYNC,
    Amount,
    FunctionRef,
    FunctionSpec,
)
from hearth.models.image import pinned
from hearth.models.instances import Instances
from hearth.models.route import Route, RouteLimits, format_cpus, validate_route
from hearth.models.secret import FILES, NO_SECRETS, SecretValues


def compile_route(app: App, route: Route, limits: RouteLimits, secrets: SecretValues = NO_SECRETS) -> FunctionSpec:
    """Return the function that a route describes, with its secrets.

    Raises:
        ApiError: The stored route is not valid; the row of the catalogue that fits.
    """
    validate_route(route, limits)
    ref = FunctionRef(id=f"{app.id or app.name}{route.path}", app_id=app.id, app_name=app.name, name=route.path)
    return FunctionSpec(
        ref=ref,
        image=pinned(route.image, route.digest),
        contract=route.format,
        amount=Amount(route.memory, route.cpu_milli),
        timeout_s=route.timeout,
        idle_timeout_s=route.idle_timeout,
        is_sync=route.type == SYNC,
        environment=_environment(app, route, ref),
        container_labels={"app": app.name, "path": route.path},
        secrets=secrets,
        secrets_as_files=route.secrets_as == FILES and bool(secrets.values),
        concurrency=route.concurrency,
        syslog_url=app.syslog_url,
        min_instances=route.instances.min_instances,
        max_instances=route.instances.max_instances or 0,
    )


def compile_call(call: Call, limits: RouteLimits, secrets: SecretValues = NO_SECRETS) -> FunctionSpec:
    """Return the function that an accepted call runs: its route as it was when the call was accepted.

    Its secrets have the values that they have now.

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
        secrets_as=call.secrets_as,
        concurrency=concurrency_of(call),
        instances=Instances(max_instances=call.max_instances or None),
    )
    app = App(name=call.app_name, id=call.app_id, syslog_url=call.syslog_url)
    return compile_route(app, route, limits, secrets)


def concurrency_of(call: Call) -> int:
    """Return how many calls one container ran at once when a call was accepted: its environment says that."""
    text = call.config.get(CONCURRENCY, "") if call.format == HTTP_STREAM else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_CONCURRENCY)) else 1


def _environment(app: App, route: Route, ref: FunctionRef) -> dict[str, str]:
    """Return the environment of every container. Later wins: the app's, the route's, then Hearth's variables."""
    merged: Mapping[str, str] = {**app.config, **route.config}
    own = {
        "FN_FORMAT": route.format or DEFAULT,
        "FN_APP_NAME": app.name,
        "FN_PATH": route.path,
        "FN_MEMORY": str(route.memory),
        "FN_TYPE": route.type,
    }
    if route.cpu_milli:
        own["FN_CPUS"] = format_cpus(route.cpu_milli)
    if route.format == HTTP_STREAM:
        own |= {"FN_FN_ID": ref.id, "FN_APP_ID": ref.app_id, CONCURRENCY: str(route.concurrency)}
    return {**merged, **own}
