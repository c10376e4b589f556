"""Run a node in the foreground: its listener, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from starlette.types import ASGIApp

from hearth.aio.clock import SystemClock
from hearth.nodes.build import open_node
from hearth.nodes.descriptors import raise_limit
from hearth.nodes.listening import Listener, open_listeners
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.nodes.tls import NodeTls, load_tls, tls_files
from hearth.server.door import open_only
from hearth.server.http.server import HttpServer
from hearth.settings import Settings
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

#: Seconds for the answers of calls that were aborted at the end of the grace period.
_AFTER_GRACE_S: Final = 15
#: Routes of running calls that a log line names.
_NAMED: Final = 5
#: Objects created between two collections of the youngest generation.
_YOUNG: Final = 50_000

#: Returns what makes the TLS contexts of a listener's connections; ``None`` for those without TLS.
Contexts = Callable[[Listener], Callable[[], ssl.SSLContext] | None]

_log = get_logger(__name__)


def whole_front(app: ASGIApp, listener: Listener) -> ASGIApp:
    """Return the application of a node for one of its listeners."""
    return app if listener.serves_control else open_only(app)


def _no_more(node: Node, server: HttpServer, context: Contexts) -> None:
    """Do nothing: the node has all its listeners."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The listeners of a node, and what they serve.

    Attributes:
        listeners: Opens its listeners.
        front: Returns the application of a listener.
        began: Called when the node accepts requests, with its server and what makes TLS contexts for a listener.
        id_port: A port that no other node of this machine has, for ids; ``None``: that of the first listener.
    """

    listeners: Callable[[Settings], AbstractContextManager[Sequence[Listener]]] = open_listeners
    front: Callable[[Node, Listener], ASGIApp] = lambda node, listener: whole_front(node.app, listener)
    began: Callable[[Node, HttpServer, Contexts], None] = _no_more
    id_port: int | None = None


async def serve(
    settings: Settings,
    announce: Callable[[Node, Sequence[Listener]], None],
    options: Options | None = None,
    place: Place | None = None,
) -> None:
    """Run a node in the foreground until SIGINT or SIGTERM; a second signal forces the end.

    Args:
        settings: The settings of the node.
        announce: Called with the node and its listeners when it accepts requests. The first is for function calls.
        options: Parts that only code can provide.
        place: How the node is reached, if not as the settings say.

    Raises:
        StartUpError: The node cannot start.
    """
    raise_limit()
    place = place or Place()
    with place.listeners(settings) as listeners:
        await _serve(settings, listeners, announce, options or Options(), place)
    _log.info("server stopped")


async def _serve(
    settings: Settings,
    listeners: Sequence[Listener],
    announce: Callable[[Node, Sequence[Listener]], None],
    options: Options,
    place: Place,
) -> None:
    port = place.id_port or listeners[0].socket.getsockname()[1]
    async with _telemetry(settings, port, options) as telemetry:
        init = telemetry.tracing.span("server_init").begin()
        metrics = telemetry.metrics
        async with (
            _tls(settings, telemetry) as tls,
            HttpServer(
                SystemClock(),
                head_timeout_s=settings.header_timeout_s,
                refused=metrics.counter("hearth_connections_refused").series(),
                failed_handshakes=metrics.counter("hearth_tls_handshakes_failed").series(),
                max_client_connections=settings.max_client_connections,
                max_client_heads=settings.max_client_heads,
                refused_clients=metrics.counter("hearth_client_connections_refused").series(),
                refused_heads=metrics.counter("hearth_client_heads_refused").series(),
            ) as server,
            open_node(settings, port, dataclasses.replace(options, telemetry=telemetry)) as node,
        ):
            if tls is not None:
                node.readiness.add_warnings(tls.warnings)
            ending = _Ending(node, server, settings)
            if node.shutdown is not None:
                node.shutdown.stop = ending.halt
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, ending.halt)

            def context(listener: Listener) -> Callable[[], ssl.SSLContext] | None:
                return tls.contexts(is_admin=listener.is_admin) if tls is not None and listener.has_tls else None

            for one in listeners:
                await server.listen([one.socket], place.front(node, one), node.calls, context(one))
            place.began(node, server, context)
            _settle_memory()
            init.end()
            announce(node, listeners)
            await ending.draining.wait()
            await server.drain(settings.grace_s + _AFTER_GRACE_S)


@contextlib.asynccontextmanager
async def _tls(settings: Settings, telemetry: Telemetry) -> AsyncIterator[NodeTls | None]:
    """Open the certificate of the node, if it has one. SIGHUP then reads it again."""
    files = tls_files(settings)
    if files is None:
        yield None
        return
    expiry = telemetry.metrics.gauge("hearth_tls_certificate_expiry_timestamp_seconds").series()
    async with await asyncio.to_thread(load_tls, files, SystemClock(), expiry) as tls:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, tls.reload)
        yield tls


class _Ending:
    """Stops a node.

    Attributes:
        draining: Set when the server has to drain.
    """

    def __init__(self, node: Node, server: HttpServer, settings: Settings) -> None:
        self.draining = asyncio.Event()
        self._node = node
        self._server = server
        self._grace_s = settings.grace_s
        self._drain_delay_s = settings.drain_delay_s
        self._halting = False

    def halt(self) -> None:
        """Drain at the first signal, after balancers had time to notice; abort running calls at the second."""
        if self._halting:
            _log.warning("Halting at once...")
            self._node.abort()
            self.draining.set()
            self._server.hurry()
            return
        _log.info("Halting...")
        self._halting = True
        self._node.retire()
        if self._drain_delay_s:
            asyncio.get_running_loop().call_later(self._drain_delay_s, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self.draining.set()
        self._node.drain()
        if (agent := self._node.agent) is not None and (calls := agent.running_calls()):
            routes = sorted({f"{call.app_name}{call.path}" for call in calls})
            _log.info(
                "waiting for running calls; a second signal aborts them",
                calls=len(calls),
                routes=", ".join(routes[:_NAMED]) + (", ..." if len(routes) > _NAMED else ""),
                up_to_s=self._grace_s,
            )
        asyncio.get_running_loop().call_later(self._grace_s, self._node.abort)


@contextlib.asynccontextmanager
async def _telemetry(settings: Settings, port: int, options: Options) -> AsyncIterator[Telemetry]:
    """Open the telemetry of the node; leaving it sends the last spans without blocking the loop."""
    otlp_url = settings.otlp_url or settings.otel_endpoint
    if options.ready_telemetry is not None or not (settings.zipkin_url or otlp_url):
        yield options.ready_telemetry or Telemetry()
        return
    from hearth.telemetry.export import exporting  # its libraries take time and memory

    exports = contextlib.ExitStack()
    try:
        yield exports.enter_context(exporting(settings.zipkin_url, otlp_url, port))
    finally:
        await asyncio.to_thread(exports.close)


def _settle_memory() -> None:
    """Exclude the node's own objects from garbage collection, which then pauses the loop for less time.

    A call leaves almost no cycles behind, so young objects are collected less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
