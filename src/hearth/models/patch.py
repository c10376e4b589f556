"""Partial updates: applying a PATCH to what is stored (API specification 1.6)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec

from hearth.models.annotations import Annotations, merge_annotations
from hearth.models.app import App
from hearth.models.call import HeaderMap
from hearth.models.call_auth import INHERITED, Signature
from hearth.models.delivery import NO_RULES, DeliveryChanges
from hearth.models.errors import AppsNameImmutable, RoutesPathImmutable
from hearth.models.instances import ANY_NUMBER, InstanceChanges
from hearth.models.quotas import QuotaChanges
from hearth.models.route import Route


class AppPatch(msgspec.Struct, kw_only=True):
    """Changes to an app. ``config`` is ``None`` where the client sent none; an empty value deletes its key.

    ``secrets`` replaces the list, ``syslog_url`` the address; ``None`` leaves them unchanged.
    ``auth`` "default" goes back to that of the node. ``quotas`` are the quotas that change.
    """

    name: str = ""
    config: dict[str, str] | None = None
    secrets: tuple[str, ...] | None = None
    annotations: Annotations | None = None
    syslog_url: str | None = None
    auth: str = ""
    quotas: QuotaChanges = msgspec.field(default_factory=dict)


class RoutePatch(msgspec.Struct, kw_only=True):
    """Changes to a route. Zero values mean "leave unchanged"; maps are ``None`` where the client sent none.

    A ``cpu_milli`` of 0 leaves the CPU limit unchanged, like every other zero. ``secrets`` and ``signature`` are
    replaced whole. ``auth`` "default" goes back to that of the app. ``instances`` and ``delivery`` are the bounds
    and the rules that change. ``digest`` is what ``image`` stands for, and changes with it: no client sends it.
    """

    path: str = ""
    image: str = ""
    memory: int = 0
    cpu_milli: int = 0
    headers: dict[str, list[str] | None] | None = None
    type: str = ""
    format: str = ""
    timeout: int = 0
    idle_timeout: int = 0
    config: dict[str, str] | None = None
    secrets: tuple[str, ...] | None = None
    secrets_as: str = ""
    auth: str = ""
    signature: Signature | None = None
    concurrency: int = 0
    instances: InstanceChanges = msgspec.field(default_factory=dict)
    delivery: DeliveryChanges = msgspec.field(default_factory=dict)
    digest: str = ""


#: Route fields that a patch sets whole when it has a non-zero value for them.
_SCALARS = (
    *("image", "memory", "cpu_milli", "type", "format", "timeout", "idle_timeout", "secrets_as", "signature"),
    "concurrency",
)


def merge_config(stored: Mapping[str, str], changes: Mapping[str, str] | None) -> dict[str, str]:
    """Apply changes to a config map: ``""`` deletes a key, other values set it, absent keys stay."""
    merged = dict(stored)
    for key, value in (changes or {}).items():
        if value == "":
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def merge_headers(stored: HeaderMap, changes: Mapping[str, list[str] | None] | None) -> HeaderMap:
    """Apply changes to a header map: no values delete a header, values replace its list.

    Names match case-insensitively; the spelling given last is kept.
    """
    merged = {name: list(values) for name, values in stored.items()}
    for name, values in (changes or {}).items():
        folded = name.lower()
        for known in [known for known in merged if known.lower() == folded]:
            del merged[known]
        if values:
            merged[name] = list(values)
    return merged


def apply_app_patch(app: App, patch: AppPatch, now: dt.datetime) -> App:
    """Return the app after the patch; ``updated_at`` moves only if something changed, or a syslog URL is given.

    Raises:
        AppsNameImmutable: The patch names another app.
    """
    if patch.name and patch.name != app.name:
        raise AppsNameImmutable
    config = merge_config(app.config, patch.config)
    secrets = app.secrets if patch.secrets is None else patch.secrets
    annotations = merge_annotations(app.annotations, patch.annotations)
    syslog_url = app.syslog_url if patch.syslog_url is None else patch.syslog_url
    auth = _auth(patch.auth, app.auth)
    merged = msgspec.structs.replace(
        app,
        config=config,
        secrets=secrets,
        annotations=annotations,
        syslog_url=syslog_url,
        auth=auth,
        quotas=app.quotas.changed(patch.quotas),
    )
    if merged == app and patch.syslog_url is None:
        return app
    return msgspec.structs.replace(merged, updated_at=now)


def apply_route_patch(route: Route, patch: RoutePatch, now: dt.datetime) -> Route:
    """Return the route after the patch, not yet validated; ``updated_at`` moves only if something changed.

    Raises:
        RoutesPathImmutable: The patch names another path.
    """
    if patch.path and patch.path != route.path:
        raise RoutesPathImmutable
    changes = {name: value for name in _SCALARS if (value := getattr(patch, name))}
    if patch.image:
        changes["digest"] = patch.digest
    changes["config"] = merge_config(route.config, patch.config)
    changes["headers"] = merge_headers(route.headers, patch.headers)
    if patch.secrets is not None:
        changes["secrets"] = patch.secrets
    changes["auth"] = _auth(patch.auth, route.auth)
    changes["instances"] = route.instances.changed(patch.instances)
    changes["delivery"] = route.delivery.changed(patch.delivery)
    merged = msgspec.structs.replace(route, **changes)
    return route if merged == route else msgspec.structs.replace(merged, updated_at=now)


def new_route(app_name: str, patch: RoutePatch, now: dt.datetime) -> Route:
    """Return the route that a client's first description creates: its values over the defaults, not yet validated."""
    given = {name: value for name in _SCALARS if (value := getattr(patch, name))}
    return Route(
        app_name=app_name,
        path=patch.path,
        **given,
        digest=patch.digest,
        config=dict(patch.config or {}),
        headers=merge_headers({}, patch.headers),
        secrets=patch.secrets or (),
        auth=_auth(patch.auth),
        instances=ANY_NUMBER.changed(patch.instances),
        delivery=NO_RULES.changed(patch.delivery),
        created_at=now,
        updated_at=now,
    )


def _auth(change: str, stored: str = "") -> str:
    return "" if change == INHERITED else change or stored
