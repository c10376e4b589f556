"""Partial updates: how a PATCH meets what is stored (API specification 1.6)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import msgspec

from hearth.models.app import App
from hearth.models.errors import AppsNameImmutable, RoutesPathImmutable
from hearth.models.route import HeaderMap, Route


class AppPatch(msgspec.Struct, kw_only=True):
    """Changes to an app. ``config`` is ``None`` where the client sent none; an empty value deletes its key."""

    name: str = ""
    config: dict[str, str] | None = None


class RoutePatch(msgspec.Struct, kw_only=True):
    """Changes to a route. Zero values mean "leave unchanged"; maps are ``None`` where the client sent none.

    A ``cpu_milli`` of 0 leaves the CPU limit unchanged, like every other zero.
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


#: Route fields that a patch sets whole when it has a non-zero value for them.
_SCALARS = ("image", "memory", "cpu_milli", "type", "format", "timeout", "idle_timeout")


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
    """The app after the patch; ``updated_at`` moves only if something changed.

    Raises:
        AppsNameImmutable: The patch names another app.
    """
    if patch.name and patch.name != app.name:
        raise AppsNameImmutable
    config = merge_config(app.config, patch.config)
    if config == app.config:
        return app
    return msgspec.structs.replace(app, config=config, updated_at=now)


def apply_route_patch(route: Route, patch: RoutePatch, now: dt.datetime) -> Route:
    """The route after the patch, not yet validated; ``updated_at`` moves only if something changed.

    Raises:
        RoutesPathImmutable: The patch names another path.
    """
    if patch.path and patch.path != route.path:
        raise RoutesPathImmutable
    changes = {name: value for name in _SCALARS if (value := getattr(patch, name))}
    changes["config"] = merge_config(route.config, patch.config)
    changes["headers"] = merge_headers(route.headers, patch.headers)
    merged = msgspec.structs.replace(route, **changes)
    return route if merged == route else msgspec.structs.replace(merged, updated_at=now)


def new_route(app_name: str, patch: RoutePatch, now: dt.datetime) -> Route:
    """The route that a client's first description makes: its values over the defaults, not yet validated."""
    given = {name: value for name in _SCALARS if (value := getattr(patch, name))}
    return Route(
        app_name=app_name,
        path=patch.path,
        **given,
        config=dict(patch.config or {}),
        headers=merge_headers({}, patch.headers),
        created_at=now,
        updated_at=now,
    )
