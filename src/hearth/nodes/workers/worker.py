"""A worker: one process of a node that has several. The supervisor starts it, with a socket to itself.

Worker 0 is a full node. The others are runners of worker 0, over its Unix socket: they run the calls that arrive on
their connections, and hand every other request to worker 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from starlette.types import ASGIApp

from hearth import settings
from hearth.agent.lending import Part
from hearth.models.errors import HearthError
from hearth.nodes.listening import Listener, open_listeners
from hearth.nodes.node import Node
from hearth.nodes.options import Options
from hearth.nodes.ports import own_url
from hearth.nodes.serving import Contexts, Place, serve, whole_front
from hearth.nodes.unix_socket import unix_listener
from hearth.nodes.workers.channel import Channel, Order
from hearth.nodes.workers.messages import StandIn
from hearth.server.forwarding import Worker, all_but_calls, from_workers
from hearth.server.http.server import HttpServer
from hearth.server.sums import Sums
from hearth.telemetry import logs, redaction

#: The worker with the API, queue and database.
OWNER: Final = 0
#: What a worker prints when it serves.
READY: Final = b"serves"
_SOCKET_MODE: Final = 0o600

_log = logs.get_logger(__name__)


class Post(msgspec.Struct, frozen=True):
    """The place of a worker in its node, from the supervisor.

    Attributes:
        number: Of this worker.
        sockets: The folder of the sockets of the workers.
        channel: The descriptor of the connection to the supervisor.
        listeners: The descriptors of the listeners of all workers, by number.
        id_port: A port that no other node of this machine has, for ids.
    """

    number: int
    sockets: str
    channel: int
    listeners: list[int]
    id_port: int


def socket_of(folder: Path, number: int) -> Path:
    """Return the socket on which a worker serves the others."""
    return folder / f"{number}.sock"


def command(post: Post) -> tuple[str, ...]:
    """Return the command that starts a worker."""
    code = "from hearth.nodes.workers.worker import main; main()"
    return sys.executable, "-c", code, msgspec.json.encode(post).decode()


def main() -> None:
    """Run a worker as this process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the node takes signals itself
    os.umask(0o077)
    post = msgspec.json.decode(sys.argv[1], type=Post)
    for descriptor in (post.channel, *post.listeners):
        os.set_inheritable(descriptor, False)  # functions do not get them
    try:
        wanted = settings.load()
        redaction.hide(settings.secrets(wanted))
        logs.configure(
            wanted.log_level,
            wanted.log_dest,
            wanted.log_prefix,
            as_json=wanted.log_format == "json",
            with_functions=not wanted.disable_debug_user_logs,
        )
        uvloop.run(_run(post, wanted))
    except HearthError as exc:
        sys.exit(redaction.redact(f"hearth: worker {post.number}: {exc}"))
    except KeyboardInterrupt:
        sys.exit(130)


async def _run(post: Post, wanted: settings.Settings) -> None:
    folder, secret = Path(post.sockets), wanted.runner_token.get_secret_value()
    async with contextlib.AsyncExitStack() as stack:
        numbers = range(len(post.listeners))
        others = {
            number: await stack.enter_async_context(Worker(socket_of(folder, number), secret))
            for number in (numbers[1:] if post.number == OWNER else [OWNER])
        }
        duty = _Duty(post, secret, wanted.admin_token.get_secret_value(), others)
        channel = await stack.enter_async_context(Channel(socket.socket(fileno=post.channel), duty.obey))
        options = Options(lender=channel, part=Part(post.number, len(numbers)))
        if post.number == OWNER:
            options = dataclasses.replace(options, changed=duty.changed, revoked=duty.revoked)
        place = Place(listeners=duty.listeners, front=duty.front, began=duty.began, id_port=post.id_port)
        await serve(wanted, lambda node, listeners: print(f"  {READY.decode()}", flush=True), options, place)


class _Duty:
    """The duties of a worker beside being a node."""

    def __init__(self, post: Post, secret: str, admin_token: str, others: dict[int, Worker]) -> None:
        self._post = post
        self._secret = secret
        self._admin_token = admin_token
        self._others = others
        self._listener: Listener
        self._node: Node
        self._listen: Callable[[int], object]
        self._began = asyncio.Event()
        self._stand_ins: dict[int, Callable[[], None]] = {}
        self._server: HttpServer
        self._context: Contexts

    @contextlib.contextmanager
    def listeners(self, wanted: settings.Settings) -> Iterator[Sequence[Listener]]:
        """Open the listener of this worker, its socket for the others, and those that only the owner has."""
        post = self._post
        shared = socket.socket(fileno=os.dup(post.listeners[post.number]))
        has_tls = wanted.tls_cert is not None
        url = own_url(wanted.address, shared.getsockname()[1], "https" if has_tls else "http")
        self._listener = Listener(shared, url, serves_control=wanted.admin_place is None, has_tls=has_tls)
        path = socket_of(Path(post.sockets), post.number)
        with contextlib.ExitStack() as stack:
            stack.enter_context(shared)
            inner = Listener(stack.enter_context(unix_listener(path, _SOCKET_MODE)), f"unix:{path}")
            self._inner = inner
            more = stack.enter_context(open_listeners(wanted, self._listener)) if post.number == OWNER else []
            yield [self._listener, inner, *more]

    def front(self, node: Node, listener: Listener) -> ASGIApp:
        """Return the application of one listener."""
        app = node.app
        if self._post.number == OWNER:
            app = Sums(app, self._others, self._admin_token)
        if listener is self._inner:
            if self._post.number == OWNER:  # changes are made here
                return from_workers(app, self._secret)
            return from_workers(app, self._secret, node.changed, node.forget_token)
        if self._post.number != OWNER:
            app = all_but_calls(app, self._others[OWNER])
        return whole_front(app, listener)

    def began(self, node: Node, server: HttpServer, context: Contexts) -> None:
        """Take note of the node."""
        self._node, self._server, self._context = node, server, context
        self._began.set()

    async def changed(self, app_name: str, path: str | None) -> None:
        """Tell the other workers of a change."""
        await asyncio.gather(*[worker.changed(app_name, path) for worker in self._others.values()])

    async def revoked(self, token_id: str) -> None:
        """Tell the other workers of a token that was revoked."""
        await asyncio.gather(*[worker.revoked(token_id) for worker in self._others.values()])

    async def obey(self, order: Order) -> None:
        """Do what the supervisor says."""
        await self._began.wait()
        if not isinstance(order, StandIn):
            self._node.retire()
        elif not order.is_needed:
            if (stop := self._stand_ins.pop(order.number, None)) is not None:
                stop()
        elif order.number not in self._stand_ins:
            listener = socket.socket(fileno=os.dup(self._post.listeners[order.number]))
            app, context = self.front(self._node, self._listener), self._context(self._listener)
            self._stand_ins[order.number] = await self._server.listen([listener], app, self._node.calls, context)
