"""A temporary node for one function, with its data in a temporary folder: for ``run``, ``test`` and ``dev``."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from hearth import nodes, settings
from hearth.cli.client import Credentials
from hearth.cli.connecting import TlsOptions, base_url, connection_options
from hearth.cli.fields import encoded
from hearth.cli.output import note
from hearth.cli.progress import progress
from hearth.cli.route_change import as_change, foreign_config
from hearth.drivers.docker.build import build_image
from hearth.drivers.local.build import build_bundle
from hearth.models.call_auth import OPEN
from hearth.models.errors import HearthError
from hearth.models.function import SYNC
from hearth.models.principal import AuthMode
from hearth.models.route import MAX_SYNC_TIMEOUT_S
from hearth.projects import FuncFile
from hearth.settings import DriverName
from hearth.telemetry import logs

APP: Final = "myapp"
#: What a call is seen to have been sent to.
_URL: Final = "http://localhost:8080"
_CALL_LIMIT_S: Final = 300


class LocalError(HearthError):
    """The function cannot be served here; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Called:
    """One call's answer, and what its function wrote to stderr so far."""

    call_id: str
    status: int
    headers: httpx.Headers
    body: bytes
    log: bytes


class Client:
    """Deploys one function to a node, and calls it."""

    def __init__(self, http: httpx.AsyncClient, app: str = APP, credentials: Credentials | None = None) -> None:
        self.http = http
        self._app = app
        self._credentials = credentials or Credentials()

    async def set_secrets(self, values: Mapping[str, str]) -> None:
        """Store secrets of the app; create it if there is none.

        Raises:
            LocalError: The node refuses.
        """
        if values:
            await self.http.post("/v1/apps", json={"app": {"name": self._app}})  # 409: it exists
        for name, value in values.items():
            answer = await self.http.put(f"/v1/apps/{self._app}/secrets/{name}", json={"value": value})
            if answer.status_code != 200:
                raise LocalError(f"secret {name}: {_message(answer)}")

    async def deploy(self, func: FuncFile, image: str, config: dict[str, str] | None = None) -> None:
        """Give the function its route, with more configuration if there is any. It is open: its caller is its author.

        Raises:
            LocalError: The node refuses.
        """
        address = f"/v1/apps/{self._app}/routes{func.route_path}"
        route = {**func.route(), "image": image, "config": {**(func.config or {}), **(config or {})}, "auth": OPEN}
        route.pop("signature", None)
        before = await self.http.get(address)
        if before.status_code == 200:
            stored = before.json()["route"]
            if stored.get("cpus") and "cpus" not in route:
                await self.http.delete(address)  # no change of a route takes this limit away
            else:
                stale = dict.fromkeys(foreign_config(stored, route), "")
                route = {**as_change(stored, route), "config": {**stale, **route["config"]}}
        answer = await self.http.put(address, json={"route": route})
        if answer.status_code != 200:
            raise LocalError(f"{func.file}: {_message(answer)}")

    async def call(self, path: str, method: str, body: bytes, headers: Iterable[tuple[str, str]]) -> Called:
        """Call a path of the app, and get its log."""
        answer = await self.http.request(method, f"/r/{self._app}{path}", content=body, headers=encoded(headers))
        call_id = answer.headers.get("fn_call_id", "")
        log = await self.log(call_id) if call_id else b""
        return Called(call_id, answer.status_code, answer.headers, answer.content, log)

    async def log(self, call_id: str) -> bytes:
        """Return the log of a call; what its function wrote last may come a moment after its answer."""
        found = await self.http.get(
            f"/v1/apps/{self._app}/calls/{call_id}/log",
            headers={"accept": "text/plain", **self._credentials.headers},
            extensions=self._credentials.extensions(asynchronous=True),
        )
        return found.content if found.status_code == 200 else b""


def build(
    func: FuncFile,
    wanted: settings.Settings,
    driver: DriverName,
    packages: Sequence[Path] = (),
    *,
    follow_outside: bool = False,
) -> str:
    """Build what the driver runs; return a reference that means this build. Blocks."""
    with progress(f"building {func.image()}"):
        if driver == "docker":
            return build_image(func, follow_outside=follow_outside).pinned
        return build_bundle(func, wanted.bundles, packages, follow_outside=follow_outside).pin(func.image())


def answering(func: FuncFile) -> FuncFile:
    """Return the function as one whose caller waits for the answer, also if it is asynchronous when it is deployed."""
    timeout = None if func.timeout is None else min(func.timeout, MAX_SYNC_TIMEOUT_S)
    return dataclasses.replace(func, type=SYNC, timeout=timeout)


def driver_for(func: FuncFile, given: DriverName | None) -> DriverName:
    """Return the driver of a function: processes, unless only an image can run it."""
    return given or ("docker" if func.kind == "docker" else "process")


@contextlib.contextmanager
def temporary_settings(driver: DriverName, **more: Any) -> Iterator[settings.Settings]:
    """Yield settings of a node for this machine only, whose data folder is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="hearth-") as folder:
        yield settings.load(
            auth=AuthMode.LOOPBACK,
            bind="127.0.0.1",
            admin_bind="",
            socket="",
            tls_cert=None,
            tls_key=None,
            tls_client_ca=None,
            oidc_issuer="",
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
    """Yield a client of a node without a port: requests reach it within this process."""
    async with nodes.open_node(wanted, 0) as node:
        transport = httpx.ASGITransport(app=node.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=_URL, timeout=_CALL_LIMIT_S) as http:
            yield Client(http)


def remote_client(url: str, app: str, credentials: Credentials, tls: TlsOptions | None) -> Client:
    """Return a client of another server; the caller closes it."""
    options = connection_options(url, tls, asynchronous=True)
    http = httpx.AsyncClient(base_url=base_url(url), timeout=_CALL_LIMIT_S, **options)
    return Client(http, app, credentials)


def log_functions_only() -> None:
    """Let this terminal show what functions write as it is, and of the node only what matters."""
    logs.configure("debug")
    known = structlog.get_config()["processors"]
    structlog.configure(processors=[_functions_or_warnings, *known])


def _functions_or_warnings(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if event.get("user_log") or event.get("between_log"):
        note(event["event"])
        raise structlog.DropEvent
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
