"""Extensions: additions to a node (operations specification 8)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Protocol, TypeVar

from starlette.types import ASGIApp

from hearth.agent.listeners import CallListener
from hearth.models.errors import StartUpError
from hearth.server.asgi import Front
from hearth.server.endpoints import AppEndpointHandler, EndpointHandler, Endpoints, RouteEndpointHandler
from hearth.server.listeners import AppListener
from hearth.server.middleware import ApiChain, Invoke, Middleware, RootChain
from hearth.settings import API, RUNNER
from hearth.stores.datastore import Datastore
from hearth.telemetry.logs import get_logger

#: Installed packages offer their extensions under this entry-point group.
GROUP: Final = "hearth.extensions"

T = TypeVar("T")

_log = get_logger(__name__)
_registered: dict[str, Extension] = {}


class Extension(Protocol):
    """An addition to a node, known by its name."""

    @property
    def name(self) -> str:
        """Return the unique name; by convention the import path of the package."""

    def setup(self, server: Server) -> Awaitable[None] | None:
        """Add its parts to a node. An exception prevents the start of the node. A coroutine is awaited."""


def register(extension: Extension) -> None:
    """Register an extension under its name, without adding it to a node."""
    _registered[extension.name] = extension


class Server:
    """A node under construction, as its extensions see it. Nothing can be added once the node serves.

    A part that the type of the node does not need is ignored (an API node runs no calls). A part that the extension
    depends on is refused (a runner node serves no API).

    Args:
        datastore: Definitions and records, if the node stores any.
        stack: Closes what is entered on it when the node has stopped.
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
        """Return the store of apps, routes and calls. Changes made here pass no listeners.

        Raises:
            StartUpError: The node is a runner, which has no store.
        """
        if self._datastore is None:
            raise self._lacks("datastore")
        return self._datastore

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a resource of the extension, for example a client; it is left after the last call of the node."""
        return await self._stack.enter_async_context(manager)

    def add_app_listener(self, listener: AppListener) -> None:
        """Watch the operations of the API on apps."""
        self._expect_api("app listener")
        self.app_listeners.append(listener)

    def add_call_listener(self, listener: CallListener) -> None:
        """Watch calls; no effect on an API node, which runs none."""
        self._expect_open()
        if self.node_type != API:
            self.call_listeners.append(listener)

    def add_root_middleware(self, middleware: Middleware) -> None:
        """Surround every request, also calls and unknown paths. The first one that is added is outermost."""
        self._expect_open()
        self._root.append(middleware)

    def add_api_middleware(self, middleware: Middleware) -> None:
        """Surround all paths under /v1, behind the root middleware. The first one that is added is outermost."""
        self._expect_open()
        self._api.append(middleware)

    #: The older name in Fn.
    add_middleware = add_api_middleware

    def add_endpoint(self, method: str, path: str, handler: EndpointHandler, *, public: bool = False) -> None:
        """Serve ``/v1<path>``: to administrators, or to everybody if it is public."""
        self._expect_api("endpoint").add(method, path, handler, public=public)

    def add_app_endpoint(self, method: str, path: str, handler: AppEndpointHandler, *, public: bool = False) -> None:
        """Serve ``/v1/apps/:app<path>``; the handler gets the app, the client 404 if there is none."""
        self._expect_api("endpoint").add_of_app(method, path, handler, public=public)

    def add_route_endpoint(
        self, method: str, path: str, handler: RouteEndpointHandler, *, public: bool = False
    ) -> None:
        """Serve ``/v1/apps/:app/routes/:route<path>``; the handler gets both, the client 404 if one is missing."""
        self._expect_api("endpoint").add_of_route(method, path, handler, public=public)

    # -- for the code that builds the node -----------------------------------------------------------------------------

    async def add_extension(self, extension: Extension) -> None:
        """Let an extension add its parts.

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
        """Add an extension that was registered, or that an installed package offers.

        Raises:
            StartUpError: There is no such extension, or it failed.
        """
        await self.add_extension(find_extension(name))

    @property
    def surrounds_calls(self) -> bool:
        """Function calls pass middleware, so they take the way over ASGI."""
        return bool(self._root)

    def surround(self, calls: ASGIApp, api: ASGIApp, invoke: Invoke, door: Callable[[ASGIApp], ASGIApp]) -> ASGIApp:
        """Return the whole application, with the middlewares around it. Nothing can be added afterwards.

        The door checks all requests but calls, before any middleware sees them.
        """
        self._serves = True
        if not self._root and not self._api:
            return Front(calls, door(api))
        front = RootChain(Front(calls, ApiChain(api, self._api) if self._api else api), self._root, invoke)
        return Front(front, door(front))

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


def find_extension(name: str) -> Extension:
    """Return an extension that was registered, or that an installed package offers.

    Raises:
        StartUpError: There is no such extension, or it cannot be imported.
    """
    return _registered.get(name) or _installed(name)


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
