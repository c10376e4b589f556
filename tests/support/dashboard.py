"""A node in a thread of its own, with scripted functions, for browsers and other clients that block."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx

from hearth import settings
from hearth.aio.clock import SystemClock
from hearth.models.call import STAT_NAMES, SUCCESS, Call, Stat
from hearth.models.ids import encode
from hearth.models.route import Route
from hearth.nodes import Options, open_node
from hearth.nodes.node import Node
from hearth.queues.open import open_queue
from hearth.server.http.server import HttpServer
from hearth.stores.datastore import Datastore
from hearth.stores.sql import open_datastore
from hearth.testing.script import Pipe, Script
from hearth.testing.scripted_driver import FakeDriver
from tests.support.agent import OBEDIENT, function_program
from tests.support.browser_network import browser_network

T = TypeVar("T")
ADMIN = "hearth_admin-of-the-dashboard"
_CLOCK = SystemClock()
_NOW = dt.datetime(2026, 1, 31, 16, 52, 39, 786_000, tzinfo=dt.UTC)


async def _mirror(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> int | None:
    """Answer with the headers of the request, and a cookie."""
    answer = {"body": json.dumps(call["protocol"]["headers"]), "protocol": {"headers": {"Set-Cookie": ["a=b"]}}}
    await stdout.write(json.dumps(answer).encode() + b"\n")
    return None


class DashboardNode:
    """A node whose dashboard is open to browsers.

    Attributes:
        url: Its address.
        node: Its parts; they belong to another thread.
        http: A client with the admin token.
    """

    def __init__(self, url: str, node: Node, datastore: Datastore, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.node = node
        self.datastore = datastore
        self._loop = loop
        self.http = httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {ADMIN}"})

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the thread of the node do something."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def route(self, app: str, path: str, **fields: Any) -> None:
        """Define a route."""
        route = {"image": "obey", "format": "json", "memory": 64, "path": path, **fields}
        answer = self.http.put(f"/v1/apps/{app}/routes{path}", json={"route": route})
        assert answer.status_code == 200, answer.text

    def define_routes(self, app: str, paths: list[str]) -> None:
        """Define many routes at once."""

        async def define() -> None:
            for path in paths:
                await self.datastore.insert_route(Route(app_name=app, path=path, image="obey", memory=64))

        self.run(define())

    def count_calls(self, app: str, path: str, number: int) -> None:
        """Count calls of a function that has run on this node, as far as its metrics tell."""

        async def count() -> None:
            self.node.telemetry.metrics.counter("fn_calls").add(number, app, path)
            self.node.telemetry.metrics.counter("fn_completed").add(number, app, path)

        self.run(count())

    def call(self, app: str, path: str, **orders: Any) -> httpx.Response:
        """Call a route with orders."""
        return self.http.post(f"/r/{app}{path}", content=json.dumps(orders))

    def look(self) -> None:
        """Let the dashboard look at the counters now."""
        assert self.node.dashboard is not None
        self.run(self.node.dashboard.recent.look())

    def token(self, name: str, role: str, *apps: str) -> str:
        """Create a token; its value."""
        answer = self.http.post("/v1/tokens", json={"token": {"name": name, "role": role, "apps": list(apps)}})
        assert answer.status_code == 200, answer.text
        value: str = answer.json()["token"]["value"]
        return value

    def add_calls(
        self,
        app: str,
        path: str,
        number: int,
        first: int = 1 << 50,
        log: bytes | None = b"line 1\nline 2\n",
        **fields: Any,
    ) -> None:
        """Store records of calls, without their having run."""

        def call(place: int) -> Call:
            lasted = dt.timedelta(milliseconds=place % 997)
            made = Call(id=encode(first + place), app_name=app, path=path, status=SUCCESS, created_at=_NOW)
            made.started_at, made.completed_at = _NOW, _NOW + lasted
            made.stats = [Stat(_NOW + dt.timedelta(seconds=one), dict.fromkeys(STAT_NAMES, one)) for one in (1, 2, 3)]
            for name, value in fields.items():
                setattr(made, name, value)
            return made

        for begin in range(0, number, 1000):
            some = [(call(place), log) for place in range(begin, min(number, begin + 1000))]
            self.run(self.datastore.put_calls(some))


@contextlib.contextmanager
def dashboard_node(folder: Path, *, for_browsers: bool = False, **fields: Any) -> Iterator[DashboardNode]:
    """Serve a node from a thread, with settings; leaving it stops the node.

    Args:
        folder: Its data folder.
        for_browsers: Listen at the same address in the network of browsers, too.
        fields: Settings.
    """
    started: Future[tuple[DashboardNode, Callable[[], object]]] = Future()

    async def serve() -> None:
        datastore = await open_datastore(f"sqlite3://{folder}/dashboard.db")
        queue = await open_queue("memory://", _CLOCK)
        driver = FakeDriver(_CLOCK, {"obey": Script(main=OBEDIENT), "mirror": Script(main=function_program(_mirror))})
        wanted = settings.load(
            data_dir=folder, max_total_memory=4 << 30, max_total_cpu=4000, runner_quiet_s=0, admin_token=ADMIN, **fields
        )
        given = Options(datastore=datastore, queue=queue, driver=driver)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            listeners = [listener]
            if for_browsers:
                listeners.append(await asyncio.to_thread(browser_network().listen, port))
            async with HttpServer(_CLOCK, head_timeout_s=30) as server, open_node(wanted, 0, given) as node:
                await server.listen(listeners, node.app, node.calls)
                loop, stop = asyncio.get_running_loop(), asyncio.Event()
                served = DashboardNode(url, node, datastore, loop)
                started.set_result((served, functools.partial(loop.call_soon_threadsafe, stop.set)))
                await stop.wait()
                node.drain()
                await server.drain(60)
        await queue.close()
        await datastore.close()
        await driver.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as exc:
            if not started.done():
                started.set_exception(exc)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    served, stop = started.result()
    try:
        with served.http:
            yield served
    finally:
        stop()
        thread.join()
