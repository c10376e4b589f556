"""Fns and triggers as the API node has them now: the answers of its API v2."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from hearth.access.remote.client import ApiClient
from hearth.access.remote.protocol import decode, decode_app
from hearth.models.annotations import Annotations, compact, without_endpoints
from hearth.models.app import App
from hearth.models.errors import AppsNotFound
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnNotFound, TriggerNotFound
from hearth.models.message import InvalidMessage
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.models.times import ZERO, format_time, parse_time
from hearth.models.trigger import Trigger

_Annotations = dict[str, msgspec.Raw]


class _Common(msgspec.Struct, kw_only=True):
    id: str
    name: str
    annotations: _Annotations = {}
    created_at: str = format_time(ZERO)
    updated_at: str = format_time(ZERO)

    def common(self) -> dict[str, Any]:
        """Return the fields that all have."""
        return {
            "id": self.id,
            "name": self.name,
            "annotations": _annotations(self.annotations),
            "created_at": _time(self.created_at),
            "updated_at": _time(self.updated_at),
        }


class _App(_Common):
    config: dict[str, str] = {}
    syslog_url: str = ""
    shape: str = ""
    secrets: tuple[str, ...] = ()
    auth: str = ""
    quotas: Quotas = NO_QUOTAS


class _Fn(_Common):
    app_id: str
    image: str
    memory: int
    timeout: int
    idle_timeout: int
    config: dict[str, str] = {}
    shape: str = ""
    digest: str = ""


class _Trigger(_Common):
    app_id: str
    fn_id: str
    type: str
    source: str


class _Fns(msgspec.Struct):
    items: list[_Fn]


class RemoteFns:
    """Fns and triggers as the API node has them now."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get_app(self, name: str) -> App:
        """Return the app from the API node."""
        with self._client.span("hybrid_client_get_app", name):
            where = f"apps/{_segment(name, AppsNotFound)}"
            return await self._client.ask("GET", where, lambda data: decode_app(data, name))

    async def get_app_by_id(self, app_id: str) -> App:
        """Return the app from the API node."""
        with self._client.span("hybrid_client_get_app"):
            return await self._client.ask("GET", f"/v2/apps/{_segment(app_id, AppsNotFound)}", _read_app)

    async def get_fn(self, fn_id: str) -> Fn:
        """Return the fn from the API node."""
        with self._client.span("hybrid_client_get_fn"):
            return await self._client.ask("GET", f"/v2/fns/{_segment(fn_id, FnNotFound)}", _read_fn)

    async def get_fn_named(self, app_id: str, name: str) -> Fn:
        """Return the fn of an app from the API node."""
        query = f"app_id={quote(app_id, safe='')}&name={quote(name, safe='')}"
        with self._client.span("hybrid_client_get_fn"):
            for fn in await self._client.ask("GET", f"/v2/fns?{query}", _read_fns):
                return fn
        raise FnNotFound

    async def get_trigger_by_source(self, app_id: str, kind: str, source: str) -> Trigger:
        """Return the trigger from the API node."""
        place = "/".join(quote(part, safe="") for part in source.split("/"))
        app = _segment(app_id, TriggerNotFound)
        where = f"/v2/runner/apps/{app}/triggerBySource/{quote(kind, safe='')}/{place}"
        with self._client.span("hybrid_client_get_trigger"):
            return await self._client.ask("GET", where, _read_trigger)


def _read_app(data: bytes) -> App:
    found = decode(data, _App)
    return App(
        **found.common(),
        config=found.config,
        syslog_url=found.syslog_url,
        shape=found.shape,
        secrets=found.secrets,
        auth=found.auth,
        quotas=found.quotas,
    )


def _read_fn(data: bytes) -> Fn:
    return _to_fn(decode(data, _Fn))


def _read_fns(data: bytes) -> Sequence[Fn]:
    return [_to_fn(found) for found in decode(data, _Fns).items]


def _to_fn(found: _Fn) -> Fn:
    return Fn(
        **found.common(),
        app_id=found.app_id,
        image=found.image,
        memory=found.memory,
        timeout=found.timeout,
        idle_timeout=found.idle_timeout,
        config=found.config,
        shape=found.shape,
        digest=found.digest,
    )


def _read_trigger(data: bytes) -> Trigger:
    found = decode(data, _Trigger)
    return Trigger(**found.common(), app_id=found.app_id, fn_id=found.fn_id, type=found.type, source=found.source)


def _annotations(given: _Annotations) -> Annotations:
    return without_endpoints({key: compact(bytes(value).decode()) for key, value in given.items()})


def _time(text: str) -> dt.datetime:
    try:
        return parse_time(text)
    except ValueError as exc:
        raise InvalidMessage(str(exc)) from exc


def _segment(name: str, missing: type[Exception]) -> str:
    """Encode a name or an id for a path. Nothing has the name of a folder in a path, or a slash in its name."""
    if name in ("", ".", "..") or "/" in name:
        raise missing
    return quote(name, safe="")
