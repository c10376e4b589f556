"""What an extension may add to a node (operations specification 8)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Protocol, TypeVar

from starlette.types import ASGIApp

from hearth.agent.listeners import CallListener
from hearth.datastore.base import Datastore
from hearth.models.errors import StartUpError
from hearth.server.endpoints import AppEndpointHandler, EndpointHandler, Endpoints, RouteEndpointHandler
from hearth.server.listeners import AppListener
from hearth.server.middleware import ApiChain, Invoke, Middleware, RootChain
from hearth.settings import API, RUNNER
from hearth.telemetry.logs import get_logger

#: Installed packages offer their extensions under this entry-point group.
GROUP: Final = "hearth.extensions"

T = TypeVar("T")

_log = get_logger(__name__)
_registered: dict[str, Extension] = {}


class Extension(Protocol):
    """Something that is added to a node by its name."""

    @property
    def name(self) -> str:
        """Unique: by custom the import path of the package."""

    def setup(self, server: Server) -> Awaitable[None] | None:
        """Add what it has. What this raises keeps the node from starting. A coroutine is awaited."""


def register(extension: Extension) -> None:
    """Make an extension known by its name, without adding it to a node."""
    _registered[extension.name] = extension


class Server:
    """A node that is being put together, as its extensions see it. Nothing can be added once it serves.

    What the type of the node has no use for is left out (an API node runs no calls), or refused where the extension
    would be of no use without it (a runner node serves no API).

    Args:
        datastore: Its definitions and records, if it has any.
        stack: What is entered on it is left when the node has stopped.
    """

    def __init__(self, node_type: str, datastore: Datastore | None, stack: AsyncExitStack) -> None:
        self.node_type = node_type
        self.app_listeners: list[AppListener] = []
        self.call_listeners: list[CallListener] = []
        self.endpoints = Endpoints(datastore) if datastore is not None else None
        self._datastore = datastore
        self._stack = stack
        self._root: list[Middleware] = []
        self._api: list[Middleware] = []
        self._serves = False

    # -- for extensions ---------------------------------------------------------------------------------------------

    @property
    def datastore(self) -> Datastore:
        """Apps, routes and calls. What is done here passes no listeners.

        Raises:
            StartUpError: A runner node has none.
        """
        if self._datastore is None:
            raise self._lacks("datastore")
        return self._datastore

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter what the extension needs, a client say; it is left after the node's last call has ended."""
        return await self._stack.enter_async_context(manager)

    def add_app_listener(self, listener: AppListener) -> None:
        """Watch what the API does with apps."""
        self._expect_api("app listener")
        self.app_listeners.append(listener)

    def add_call_listener(self, listener: CallListener) -> None:
        """Watch calls; without effect on an API node, which runs none."""
        self._expect_open()
        if self.node_type != API:
            self.call_listeners.append(listener)

    def add_root_middleware(self, middleware: Middleware) -> None:
        """Surround every request, calls and unknown paths too. The first that is added is outermost."""
        self._expect_open()
        self._root.append(middleware)

    def add_api_middleware(self, middleware: Middleware) -> None:
        """Surround all that is under /v1, behind the root middleware. The first that is added is outermost."""
        self._expect_open()
        self._api.append(middleware)

    #: Fn's older name.
    add_middleware = add_api_middleware

    def add_endpoint(self, method: str, path: str, handler: EndpointHandler) -> None:
        """Serve ``/v1<path>``."""
        self._expect_api("endpoint").add(method, path, handler)

    def add_app_endpoint(self, method: str, path: str, handler: AppEndpointHandler) -> None:
        """Serve ``/v1/apps/:app<path>``; the handler gets the app, the client 404 if there is none."""
        self._expect_api("endpoint").add_of_app(method, path, handler)

    def add_route_endpoint(self, method: str, path: str, handler: RouteEndpointHandler) -> None:
        """Serve ``/v1/apps/:app/routes/:route<path>``; the handler gets both, the client 404 if one is missing."""
        self._expect_api("endpoint").add_of_route(method, path, handler)

    # -- for whoever builds the node ----------------------------------------------------------------------------------

    async def add_extension(self, extension: Extension) -> None:
        """Have an extension add what it has.

        Raises:
            StartUpError: It failed.
        """
        try:
            if (pending := extension.setup(self)) is not None:
                await pending
        except Exception as exc:
            raise StartUpError(f"Failed to add extension {extension.name}: {str(exc) or type(exc).__name__}") from exc
        _log.info("extension added", extension=extension.name)

    async def add_extension_by_name(self, name: str) -> None:
        """Add one that was registered, or that an installed package offers.

        Raises:
            StartUpError: Nobody knows it, or it failed.
        """
        await self.add_extension(_registered.get(name) or _installed(name))

    def surround(self, front: ASGIApp, invoke: Invoke) -> ASGIApp:
        """The whole application with the middlewares around it; itself if there are none. Nothing is added any more."""
        self._serves = True
        return RootChain(front, self._root, invoke) if self._root or self._api else front

    def surround_api(self, api: ASGIApp) -> ASGIApp:
        """The API with its middlewares; itself if there are none. Only within what :meth:`surround` returns."""
        return ApiChain(api, self._api) if self._api else api

    def _expect_open(self) -> None:
        if self._serves:
            raise StartUpError("nothing can be added to a node that serves")

    def _expect_api(self, what: str) -> Endpoints:
        self._expect_open()
        if self.endpoints is None:
            raise self._lacks(what)
        return self.endpoints

    def _lacks(self, what: str) -> StartUpError:
        return StartUpError(f"a {self.node_type or RUNNER} node serves no /v1, so it takes no {what}")


def _installed(name: str) -> Extension:
    entries = importlib.metadata.entry_points(group=GROUP, name=name)
    if not entries:
        raise StartUpError(f"Extension {name} not registered.")
    try:
        loaded: Any = next(iter(entries)).load()
        extension: Extension = loaded() if isinstance(loaded, type) else loaded
    except Exception as exc:
        raise StartUpError(f"Failed to add extension {name}: {str(exc) or type(exc).__name__}") from exc
    return extension
