"""hearth routes."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final

import typer

from hearth.cli.apps import Key, Property, show_config, value_of
from hearth.cli.fields import App, Config, Limit, Path, entry, header_lists, pairs
from hearth.cli.output import Format, ListFormat, ListOutput, Output, Yes, confirmed, say, show_list, show_property
from hearth.cli.session import session

routes = typer.Typer(no_args_is_help=True, help="Create, list, update and delete routes.")
config = typer.Typer(no_args_is_help=True, help="Manage the configuration of a route; it overrides that of the app.")
routes.add_typer(config, name="config")

Image = Annotated[str, typer.Option("--image", "-i", help="Image or bundle to run.", show_default=False)]
Memory = Annotated[int, typer.Option("--memory", "-m", min=0, help="Memory in MiB.", show_default=False)]
Cpus = Annotated[str, typer.Option("--cpus", help="CPU limit, such as 0.5 or 500m.", show_default=False)]
Type = Annotated[str, typer.Option("--type", "-t", help="sync or async.", show_default=False)]
FunctionFormat = Annotated[
    str, typer.Option("--format", help="default, http, json or http-stream.", show_default=False)
]
Timeout = Annotated[int, typer.Option("--timeout", min=0, help="Time limit of a call in seconds.", show_default=False)]
IdleTimeout = Annotated[
    int, typer.Option("--idle-timeout", min=0, help="Seconds that an idle container is kept.", show_default=False)
]
Concurrency = Annotated[
    int,
    typer.Option(
        "--concurrency", min=0, help="Calls that one container runs at once (http-stream).", show_default=False
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--headers", metavar="K=V;V", help="Header of every answer; K= deletes it. Can be repeated.", show_default=False
    ),
]


Auth = Annotated[
    str,
    typer.Option("--auth", help="What callers show: open, token, signed, or default.", show_default=False),
]
Signed = Annotated[
    str,
    typer.Option(
        "--signature",
        metavar="STYLE:SECRET[:HEADER]",
        help="Signature of callers (github, stripe or generic), and the secret that is its key.",
        show_default=False,
    ),
]
Tolerance = Annotated[
    int,
    typer.Option(
        "--signature-tolerance",
        min=0,
        help="Seconds by which the time of a signature may differ.",
        show_default=False,
    ),
]


Retry = Annotated[
    str,
    typer.Option(
        "--retry",
        metavar="K=V,K=V",
        help="Retries of async calls: attempts, backoff_s, factor, max_s, jitter, on (error+timeout+status_5xx+"
        "interrupted); none removes them.",
        show_default=False,
    ),
]
ResultTtl = Annotated[
    int,
    typer.Option("--result-ttl", min=0, help="Seconds for which results of async calls are kept.", show_default=False),
]
Expires = Annotated[
    int | None,
    typer.Option(
        "--expires", min=0, help="Seconds in which an async call has to start; 0: any number.", show_default=False
    ),
]
IdempotencyTtl = Annotated[
    int | None,
    typer.Option(
        "--idempotency-ttl",
        min=0,
        help="Seconds for which answers to an Idempotency-Key are kept; 0: the default of the node.",
        show_default=False,
    ),
]
DeadLetterRule = Annotated[
    str,
    typer.Option(
        "--dead-letters",
        metavar="yes|no|default",
        help="Keep async calls that fail; default: those of routes with --retry.",
        show_default=False,
    ),
]
MaxQueued = Annotated[
    int | None,
    typer.Option("--max-queued", min=0, help="Async calls that may be queued; 0: any number.", show_default=False),
]
MaxConcurrentAsync = Annotated[
    int | None,
    typer.Option(
        "--max-concurrent-async",
        min=0,
        help="Async calls that run at one time on one node; 0: any number.",
        show_default=False,
    ),
]
MinInstances = Annotated[
    int | None,
    typer.Option("--min-instances", min=0, help="Containers that each node keeps ready; 0: none.", show_default=False),
]
MaxInstances = Annotated[
    int | None,
    typer.Option(
        "--max-instances", min=0, help="Containers that each node may have; 0: any number.", show_default=False
    ),
]

OnSuccess = Annotated[
    str,
    typer.Option(
        "--on-success",
        metavar="URL|APP/ROUTE",
        help="Destination of the records of async calls that succeed; none removes it.",
        show_default=False,
    ),
]
OnFailure = Annotated[
    str,
    typer.Option(
        "--on-failure",
        metavar="URL|APP/ROUTE",
        help="Destination of the records of async calls that end in another way; none removes it.",
        show_default=False,
    ),
]

#: The values of the rule for dead letters, by what is typed.
_KEPT: Final = {"yes": True, "no": False, "default": None}


@routes.command()
def create(
    ctx: typer.Context,
    app: App,
    path: Path,
    image_argument: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Image or bundle to run, instead of --image.")
    ] = "",
    image: Image = "",
    memory: Memory = 0,
    cpus: Cpus = "",
    type: Type = "",
    format: FunctionFormat = "",
    timeout: Timeout = 0,
    idle_timeout: IdleTimeout = 0,
    concurrency: Concurrency = 0,
    min_instances: MinInstances = None,
    max_instances: MaxInstances = None,
    config: Config = None,
    headers: Headers = None,
    auth: Auth = "",
    signature: Signed = "",
    tolerance: Tolerance = 0,
    retry: Retry = "",
    result_ttl: ResultTtl = 0,
    dead_letters: DeadLetterRule = "",
    expires: Expires = None,
    idempotency_ttl: IdempotencyTtl = None,
    max_queued: MaxQueued = None,
    max_concurrent_async: MaxConcurrentAsync = None,
    on_success: OnSuccess = "",
    on_failure: OnFailure = "",
) -> None:
    """Create a route; options that are not given get the defaults of the server.

    Examples:
        hearth routes create shop /cart ghcr.io/me/cart:1.0
        hearth routes create shop /mail me/mail:2 --type async --timeout 60
    """
    fields = _fields(image or image_argument, memory, cpus, type, format, timeout, idle_timeout, config, headers)
    if concurrency:
        fields["concurrency"] = concurrency
    fields |= _access(auth, signature, tolerance) | _delivery(retry, result_ttl, dead_letters, on_success, on_failure)
    fields |= _integers(
        expires_s=expires,
        idempotency_ttl_s=idempotency_ttl,
        max_queued=max_queued,
        max_concurrent_async=max_concurrent_async,
        min_instances=min_instances,
        max_instances=max_instances,
    )
    if "image" not in fields:
        raise typer.BadParameter("name what it runs: hearth routes create APP PATH IMAGE", param_hint="IMAGE")
    made = session(ctx).client().create_route(app, {"path": path if path.startswith("/") else f"/{path}", **fields})
    say(f"{made['path']} created with {made['image']}")


@routes.command("list")
@routes.command("ls", hidden=True)
def list_routes(
    ctx: typer.Context,
    app: App,
    image: Annotated[str, typer.Option("--image", "-i", help="Only routes with this image.")] = "",
    n: Limit = 100,
    output: ListOutput = ListFormat.TABLE,
) -> None:
    """List the routes of an app.

    Examples:
        hearth routes list shop
        hearth routes list shop --image ghcr.io/me/cart:1.0
    """
    client = session(ctx).client()
    found = list(client.routes(app, n, image))
    show_list(
        found,
        output,
        ["PATH", "IMAGE", "ENDPOINT"],
        lambda route: [route["path"], route["image"], f"{client.url}/r/{app}{route['path']}"],
    )


@routes.command("inspect")
@routes.command("i", hidden=True)
@routes.command("get", hidden=True)
def inspect_route(ctx: typer.Context, app: App, path: Path, property: Property = "") -> None:
    """Show a route, or one of its properties, as JSON.

    Examples:
        hearth routes inspect shop /cart
        hearth routes inspect shop /cart timeout
    """
    show_property(session(ctx).client().route(app, path), property)


@routes.command()
def update(
    ctx: typer.Context,
    app: App,
    path: Path,
    image: Image = "",
    memory: Memory = 0,
    cpus: Cpus = "",
    type: Type = "",
    format: FunctionFormat = "",
    timeout: Timeout = 0,
    idle_timeout: IdleTimeout = 0,
    concurrency: Concurrency = 0,
    min_instances: MinInstances = None,
    max_instances: MaxInstances = None,
    config: Config = None,
    headers: Headers = None,
    auth: Auth = "",
    signature: Signed = "",
    tolerance: Tolerance = 0,
    retry: Retry = "",
    result_ttl: ResultTtl = 0,
    dead_letters: DeadLetterRule = "",
    expires: Expires = None,
    idempotency_ttl: IdempotencyTtl = None,
    max_queued: MaxQueued = None,
    max_concurrent_async: MaxConcurrentAsync = None,
    on_success: OnSuccess = "",
    on_failure: OnFailure = "",
) -> None:
    """Update a route; options that are not given stay as they are.

    Examples:
        hearth routes update shop /cart --memory 256 --timeout 10
        hearth routes update shop /cart --headers 'Cache-Control=no-store'
    """
    changes = _fields(image, memory, cpus, type, format, timeout, idle_timeout, config, headers)
    if concurrency:
        changes["concurrency"] = concurrency
    changes |= _access(auth, signature, tolerance) | _delivery(retry, result_ttl, dead_letters, on_success, on_failure)
    changes |= _integers(
        expires_s=expires,
        idempotency_ttl_s=idempotency_ttl,
        max_queued=max_queued,
        max_concurrent_async=max_concurrent_async,
        min_instances=min_instances,
        max_instances=max_instances,
    )
    session(ctx).client().update_route(app, path, changes)
    say(f"{app} {path} updated")


@routes.command()
def delete(ctx: typer.Context, app: App, path: Path, force: Yes = False) -> None:
    """Delete a route; the records of its calls stay.

    Examples:
        hearth routes delete shop /cart
    """
    confirmed(f"Delete route {path} of {app}?", force)
    session(ctx).client().delete_route(app, path)
    say(f"{app} {path} deleted")


@config.command("set")
def set_value(ctx: typer.Context, app: App, path: Path, key: Key, value: Annotated[str, typer.Argument()]) -> None:
    """Set a configuration value.

    Examples:
        hearth routes config set shop /cart COLOUR green
    """
    session(ctx).client().update_route(app, path, {"config": entry(key, value)})
    say(f"{app} {path} {key} updated")


@config.command("unset")
@config.command("delete", hidden=True)
def unset_value(ctx: typer.Context, app: App, path: Path, key: Key) -> None:
    """Delete a configuration value.

    Examples:
        hearth routes config unset shop /cart COLOUR
    """
    session(ctx).client().update_route(app, path, {"config": {key: ""}})
    say(f"{app} {path} {key} removed")


@config.command("get")
def get_value(ctx: typer.Context, app: App, path: Path, key: Key) -> None:
    """Print a configuration value.

    Examples:
        hearth routes config get shop /cart COLOUR
    """
    say(value_of(session(ctx).client().route(app, path), key))


@config.command("list")
def list_values(ctx: typer.Context, app: App, path: Path, output: Output = Format.TABLE) -> None:
    """List the configuration.

    Examples:
        hearth routes config list shop /cart
    """
    show_config(session(ctx).client().route(app, path).get("config", {}), output)


def _fields(
    image: str,
    memory: int,
    cpus: str,
    type_name: str,
    format_name: str,
    timeout: int,
    idle_timeout: int,
    config: list[str] | None,
    headers: list[str] | None,
) -> dict[str, Any]:
    """Return the fields that were given."""
    fields = {
        "image": image,
        "memory": memory,
        "cpus": cpus,
        "type": type_name,
        "format": format_name,
        "timeout": timeout,
        "idle_timeout": idle_timeout,
        "config": pairs(config),
        "headers": header_lists(headers),
    }
    return {name: value for name, value in fields.items() if value}


def _delivery(retry: str, result_ttl: int, dead_letters: str, on_success: str, on_failure: str) -> dict[str, Any]:
    """Return the rules for async calls that were given.

    Raises:
        typer.BadParameter: A rule has no value, or not one of its values.
    """
    fields: dict[str, Any] = {"result_ttl_s": result_ttl} if result_ttl else {}
    if dead_letters and dead_letters not in _KEPT:
        raise typer.BadParameter("must be yes, no or default", param_hint="--dead-letters")
    fields |= {"dead_letters": _KEPT[dead_letters]} if dead_letters else {}
    destinations = {"on_success": on_success, "on_failure": on_failure}
    fields |= {name: None if value == "none" else value for name, value in destinations.items() if value}
    if retry == "none":
        return {**fields, "retry": None}
    policy: dict[str, Any] = {}
    for pair in filter(None, retry.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not value:
            raise typer.BadParameter(f"{pair!r}: must be K=V", param_hint="--retry")
        policy[name.strip()] = value.split("+") if name.strip() == "on" else _number(value.strip())
    return {**fields, "retry": policy} if policy else fields


def _integers(**given: int | None) -> dict[str, int | None]:
    """Return the numbers among the rules that were given; 0 removes one."""
    return {name: value or None for name, value in given.items() if value is not None}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _access(auth: str, signature: str, tolerance: int) -> dict[str, Any]:
    """Return what was given of the proof that callers show.

    Raises:
        typer.BadParameter: The signature has no style or no secret.
    """
    fields: dict[str, Any] = {"auth": auth} if auth else {}
    if not signature:
        if tolerance:
            raise typer.BadParameter("goes with --signature", param_hint="--signature-tolerance")
        return fields
    style, _, rest = signature.partition(":")
    secret, _, header = rest.partition(":")
    if not style or not secret:
        raise typer.BadParameter(f"{signature!r}: must be STYLE:SECRET[:HEADER]", param_hint="--signature")
    optional = {"header": header, "tolerance": tolerance}
    given = {name: value for name, value in optional.items() if value}
    return {**fields, "signature": {"style": style, "secret": secret, **given}}
