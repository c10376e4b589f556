"""A node of one function's own, with its data in a folder that goes with it: for ``run``, ``test`` and ``dev``."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import structlog
import typer

from hearth import nodes, settings
from hearth.cli.fields import encoded
from hearth.drivers.docker.build import build_image
from hearth.drivers.process.build import build_bundle
from hearth.models.errors import HearthError
from hearth.models.route import (
    DEFAULT,
    DEFAULT_IDLE_TIMEOUT_S,
    DEFAULT_MEMORY_MIB,
    DEFAULT_TIMEOUT_S,
    SYNC,
)
from hearth.projects import FuncFile
from hearth.telemetry import logs

DriverName = Literal["process", "docker"]
APP: Final = "myapp"
#: What a call is seen to have been sent to.
_URL: Final = "http://localhost:8080"
_CALL_LIMIT_S: Final = 300


class LocalError(HearthError):
    """The function cannot be served here; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Called:
    """One call's answer, and what its function wrote to stderr."""

    status: int
    headers: httpx.Headers
    body: bytes
    log: str


class Client:
    """Deploys one function to a node, and calls it."""

    def __init__(self, http: httpx.AsyncClient, app: str = APP) -> None:
        self.http = http
        self._app = app

    async def deploy(self, func: FuncFile, config: dict[str, str] | None = None) -> None:
        """Give the function its route, with more configuration if there is any.

        Raises:
            LocalError: The node refuses.
        """
        address = f"/v1/apps/{self._app}/routes{func.route_path}"
        route = {**func.route(), "config": {**(func.config or {}), **(config or {})}}
        before = await self.http.get(address)
        if before.status_code == 200:
            stored = before.json()["route"]
            if stored.get("cpus") and "cpus" not in route:
                await self.http.delete(address)  # no change of a route takes this limit away
            else:
                route = _as_change(stored, route)
        answer = await self.http.put(address, json={"route": route})
        if answer.status_code != 200:
            raise LocalError(f"{func.file}: {_message(answer)}")

    async def call(self, path: str, method: str, body: bytes, headers: dict[str, str]) -> Called:
        """Call a path of the app, and get its log."""
        answer = await self.http.request(method, f"/r/{self._app}{path}", content=body, headers=encoded(headers))
        log = ""
        if call_id := answer.headers.get("fn_call_id"):
            found = await self.http.get(f"/v1/apps/{self._app}/calls/{call_id}/log", headers={"accept": "text/plain"})
            log = found.text if found.status_code == 200 else ""
        return Called(answer.status_code, answer.headers, answer.content, log)


def build(func: FuncFile, wanted: settings.Settings, driver: DriverName, packages: Sequence[Path] = ()) -> None:
    """Make what the driver runs. Blocks."""
    if driver == "docker":
        build_image(func)
    else:
        build_bundle(func, wanted.bundles, packages)


def driver_for(func: FuncFile, given: DriverName | None) -> DriverName:
    """Processes, unless the function is an image by its nature."""
    return given or ("docker" if func.kind == "docker" else "process")


@contextlib.contextmanager
def temporary_settings(driver: DriverName, **more: Any) -> Iterator[settings.Settings]:
    """Settings of a node that keeps everything in a folder which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="hearth-") as folder:
        yield settings.load(
            node_type="full",
            driver=driver,
            data_dir=Path(folder),
            db_url=f"sqlite3://{folder}/fn.db",
            mq_url="memory://",
            logstore_url="",
            **more,
        )


@contextlib.asynccontextmanager
async def local_node(wanted: settings.Settings) -> AsyncIterator[Client]:
    """A node without a port: requests reach it within this process."""
    async with nodes.open_node(wanted, 0) as node:
        transport = httpx.ASGITransport(app=node.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=_URL, timeout=_CALL_LIMIT_S) as http:
            yield Client(http)


def remote_client(url: str, app: str) -> Client:
    """A client of a node that somebody else runs; to be closed by its user."""
    return Client(httpx.AsyncClient(base_url=url, timeout=_CALL_LIMIT_S), app)


def log_functions_only() -> None:
    """Let this terminal show what functions write as it is, and of the node only what matters."""
    logs.configure("debug")
    known = structlog.get_config()["processors"]
    structlog.configure(processors=[_functions_or_warnings, *known])


def _functions_or_warnings(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if event.get("user_log") or event.get("between_log"):
        typer.echo(event["event"], err=True)
        raise structlog.DropEvent
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


def _as_change(stored: dict[str, Any], route: dict[str, Any]) -> dict[str, Any]:
    """A route as a change of the stored one that leaves nothing of it: there is a route at any moment."""
    return {
        "memory": DEFAULT_MEMORY_MIB,
        "type": SYNC,
        "format": DEFAULT,
        "timeout": DEFAULT_TIMEOUT_S,
        "idle_timeout": DEFAULT_IDLE_TIMEOUT_S,
        **route,
        "config": {**dict.fromkeys(stored.get("config", {}), ""), **route["config"]},
        "headers": {**{name: [] for name in stored.get("headers", {})}, **route.get("headers", {})},
    }


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
