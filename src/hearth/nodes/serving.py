"""A node in the foreground: its listener, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from hearth.nodes.build import open_node
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.nodes.ports import listen, own_url
from hearth.server.connection import connection
from hearth.server.shutdown import ShutdownEndpoint
from hearth.settings import Settings
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: Seconds for the answers of calls that were broken off when the grace was over.
_AFTER_GRACE_S: Final = 15
#: Seconds for which a connection is kept between two requests: longer than balancers keep theirs (HAProxy 5 s, nginx
#: and many a cloud's 60 s). Of two ends that give up at the same time, one sends a request that nobody reads any more.
_KEEP_ALIVE_S: Final = 75
#: uvicorn's word on an answer that ends early. An error that was told already is why: a function's, as a rule.
_CUT_SHORT: Final = "ASGI callable returned without completing response."
#: Objects that are made before the collector looks at the young ones.
_YOUNG: Final = 50_000

_log = get_logger(__name__)


async def serve(settings: Settings, announce: Callable[[Node, str], None], options: Options | None = None) -> None:
    """Run a node in the foreground until SIGINT or SIGTERM; a second signal forces the end.

    Args:
        settings: The node's.
        announce: Called with the node and its URL when it accepts requests.
        options: What only code can give it.

    Raises:
        StartUpError: It cannot start.
    """
    listener = listen(settings.bind, settings.port)
    port = listener.getsockname()[1]
    init = span("server_init")
    async with _traced(settings, port, init), open_node(settings, port, options) as node:
        config = server_config(node.app, settings)

        def ready() -> None:
            init.end()
            announce(node, own_url(settings.bind, port))

        server = _Server(config, ready, node, settings)
        if isinstance(node.app, ShutdownEndpoint):
            node.app.stop = server.halt
        await server.serve(sockets=[listener])
    _log.info("server stopped")


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How the application is served to clients and balancers."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    return uvicorn.Config(
        app,
        http=connection(settings.header_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.grace_s) + _AFTER_GRACE_S,
        backlog=2048,
    )


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg != _CUT_SHORT


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to us: the node's own clean-up comes after the last response."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], node: Node, settings: Settings) -> None:
        super().__init__(config)
        self._ready = ready
        self._node = node
        self._grace_s = settings.grace_s
        self._drain_delay_s = settings.drain_delay_s
        self._halting = False

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Take the signals while the server runs."""
        loop = asyncio.get_running_loop()
        for number in uvicorn.server.HANDLED_SIGNALS:
            loop.add_signal_handler(number, self.halt)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets=sockets)
        _settle_memory()
        self._ready()

    def halt(self) -> None:
        """First signal: tell balancers, then drain, for as long as running calls may take. Second: break them off."""
        if self._halting:
            _log.warning("Halting at once...")
            self._node.abort()
            self.should_exit = self.force_exit = True
            return
        _log.info("Halting...")
        self._halting = True
        self._node.retire()
        if self._drain_delay_s:
            asyncio.get_running_loop().call_later(self._drain_delay_s, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self.should_exit = True
        self._node.drain()
        asyncio.get_running_loop().call_later(self._grace_s, self._node.abort)


@contextlib.asynccontextmanager
async def _traced(settings: Settings, port: int, init: span) -> AsyncIterator[None]:
    """Spans are exported, if they are to be; what is left at the end is sent without holding up the loop."""
    otlp_url = settings.otlp_url or settings.otel_endpoint
    if not settings.zipkin_url and not otlp_url:
        init.begin()
        yield
        return
    from hearth.telemetry.export import exporting  # only now: it takes time and memory

    exports = contextlib.ExitStack()
    exports.enter_context(exporting(settings.zipkin_url, otlp_url, port))
    try:
        init.begin()
        yield
    finally:
        await asyncio.to_thread(exports.close)


def _settle_memory() -> None:
    """What a node is made of stays: the collector need not look at it again, and a look at the rest takes no pause.

    A call leaves next to no cycles behind, so the young are looked at less often, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
