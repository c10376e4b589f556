"""The API on a real port, with a real database, for clients that are not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from hearth.clock import SystemClock
from hearth.datastore.base import Datastore
from hearth.datastore.sql import open_datastore
from hearth.models.app import App
from hearth.models.call import STAT_NAMES, SUCCESS, Call, Stat
from hearth.models.errors import AppsAlreadyExists, RoutesAlreadyExists
from hearth.models.ids import encode
from hearth.models.route import Route
from hearth.server.api import Api

APP, ROUTE, CALL = "seeded", "hello", encode(1)
_NOW = dt.datetime(2018, 1, 31, 16, 52, 39, 786_000, tzinfo=dt.UTC)


class ServedApi:
    """The API with an app, a route, a call and its log."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, datastore: Datastore) -> None:
        self.url = url
        self._loop = loop
        self._datastore = datastore

    def seed(self) -> None:
        """Bring back what a request may have removed."""
        asyncio.run_coroutine_threadsafe(self._seed(), self._loop).result()

    async def _seed(self) -> None:
        times = {"created_at": _NOW, "updated_at": _NOW}
        with contextlib.suppress(AppsAlreadyExists):
            await self._datastore.insert_app(App(name=APP, config={"A": "b"}, **times))
        with contextlib.suppress(RoutesAlreadyExists):
            route = Route(app_name=APP, path=f"/{ROUTE}", image="x", cpu_milli=200, headers={"X": ["y"]}, **times)
            await self._datastore.insert_route(route)
        call = Call(id=CALL, app_name=APP, path=f"/{ROUTE}", status=SUCCESS, created_at=_NOW, error="none")
        call.stats = [Stat(_NOW, dict.fromkeys(STAT_NAMES, 1))]
        await self._datastore.put_calls([(call, b"a log")])


@contextlib.contextmanager
def served_api(folder: Path) -> Iterator[ServedApi]:
    """Serve it from a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        datastore = asyncio.run_coroutine_threadsafe(open_datastore(f"sqlite3://{folder}/fn.db"), loop).result()
        config = uvicorn.Config(Api(datastore, SystemClock(), dict), lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), loop)
        yield ServedApi(f"http://127.0.0.1:{listener.getsockname()[1]}", loop, datastore)
        server.should_exit = True
        serving.result()
        asyncio.run_coroutine_threadsafe(datastore.close(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        listener.close()
