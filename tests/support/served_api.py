"""The API on a real port, with a real database, for clients that are not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from hearth.access.local import LocalAcceptedCalls
from hearth.aio.clock import SystemClock
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import digest, new_token
from hearth.cli.data_lock import data_lock
from hearth.drivers.local.stored import image_store
from hearth.models.app import App
from hearth.models.call import ERROR, QUEUED, STAT_NAMES, SUCCESS, Call, Stat
from hearth.models.call_result import CallResult
from hearth.models.errors import AppsNotFound, RoutesAlreadyExists, TokensNotFound
from hearth.models.fn import Fn
from hearth.models.function import ASYNC, SYNC
from hearth.models.ids import IdGenerator, encode
from hearth.models.node import FunctionContainers, NodeReport
from hearth.models.principal import TOKEN_ROLES, AuthMode, Role
from hearth.models.registry_login import name_of_login
from hearth.models.route import LIMITS, Route
from hearth.models.schedule import Definition, schedule_of
from hearth.models.timing import Timing
from hearth.models.token import Token
from hearth.models.trigger import Trigger
from hearth.queues.open import open_queue
from hearth.server.about import About
from hearth.server.api import Api
from hearth.server.api_v1.nodes import Nodes
from hearth.server.fleet import Fleet
from hearth.server.http.server import HttpServer
from hearth.server.redrives import Redrives
from hearth.server.registry.registry import Registry
from hearth.stores.datastore import Datastore
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import open_datastore
from tests.support.door import guarded
from tests.support.scheduled import schedules_of

NEW_APP = "new"
#: The id of a token, and the values of one for each role.
TOKEN = encode(2)
TOKENS = {role.value: new_token() for role in TOKEN_ROLES}
OTHER_APP = "other"
#: Tokens of one app: of the app that is there, and of another.
SCOPED: dict[str, str] = {
    f"{role.value} of {app}": new_token() for role in (Role.DEPLOYER, Role.VIEWER) for app in ("seeded", OTHER_APP)
}
HOLDERS = {**TOKENS, **SCOPED}
APP, ROUTE, CALL, SECRET, REGISTRY = "seeded", "hello", encode(1), "SEEDED", "registry.example"
SCHEDULE = "seeded"
APP_ID, FN_ID, TRIGGER_ID, CALL_OF_FN, SOURCE = "APPID", "FNID", "TRIGGERID", encode(9), "/seeded"
#: Calls that have not started.
WAITING, WAITING_OF_FN = encode(10), encode(11)
#: A call that failed, and is kept.
DEAD = encode(12)
#: A runner, as it reports itself.
NODE = NodeReport(
    id="0f3a9c2b71de",
    type="runner",
    host="runner-1",
    port=8080,
    version="0.2.0",
    driver="process",
    started_at="2026-01-01T00:00:00Z",
    memory_mib=4096,
    used_mib=256,
    containers=2,
    functions=[FunctionContainers(app="seeded", function="/hello", idle=2)],
)
_NOW = dt.datetime(2018, 1, 31, 16, 52, 39, 786_000, tzinfo=dt.UTC)
_NEVER = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)


class ServedApi:
    """The API with an app, a route, a secret, a call and its log."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, datastore: Datastore, vault: Vault) -> None:
        self.url = url
        self._loop = loop
        self._datastore = datastore
        self._vault = vault

    def seed(self) -> None:
        """Bring back what a request may have removed or changed, and remove what one may have made."""
        asyncio.run_coroutine_threadsafe(self._seed(), self._loop).result()

    async def _seed(self) -> None:
        times: dict[str, Any] = {"created_at": _NOW, "updated_at": _NOW}
        for name in (NEW_APP, APP):
            with contextlib.suppress(AppsNotFound):
                await self._datastore.remove_app(name)
        annotations = {"a": "[1]"}
        await self._datastore.insert_app(App(name=APP, id=APP_ID, config={"A": "b"}, annotations=annotations, **times))
        fn = Fn(id=FN_ID, name="seeded", app_id=APP_ID, image="x", annotations=annotations, **times)
        await self._datastore.insert_fn(fn)
        trigger = Trigger(id=TRIGGER_ID, name="seeded", app_id=APP_ID, fn_id=FN_ID, source=SOURCE, **times)
        await self._datastore.insert_trigger(trigger)
        with contextlib.suppress(RoutesAlreadyExists):
            route = Route(app_name=APP, path=f"/{ROUTE}", image="x", cpu_milli=200, headers={"X": ["y"]}, **times)
            await self._datastore.insert_route(route)
        await self._vault.put(APP, SECRET, "seeded value", _NOW)
        await self._vault.put(APP, name_of_login(REGISTRY), '{"username":"me","password":"seeded"}', _NOW)
        rule = Definition(function=f"/{ROUTE}", timing=Timing(cron="0 2 * * *"), headers={"X": ["y"]}, payload="p")
        await self._datastore.put_schedule(
            APP, SCHEDULE, lambda app_id, stored: schedule_of(rule, APP, app_id, SCHEDULE, stored, encode(3), _NOW)
        )
        call = Call(id=CALL, app_name=APP, path=f"/{ROUTE}", status=SUCCESS, created_at=_NOW, error="none")
        call.stats = [Stat(_NOW, dict.fromkeys(STAT_NAMES, 1))]
        call.type, call.result = (
            ASYNC,
            CallResult(
                status=200, headers=(("Content-Type", "application/json"),), body=b'"a result"', expires_at=_NEVER
            ),
        )
        of_fn = msgspec.structs.replace(call, id=CALL_OF_FN, path=fn.name)
        waiting = msgspec.structs.replace(call, type=SYNC, status=QUEUED, result=None)  # a sync call replaces another
        waits = [
            msgspec.structs.replace(waiting, id=WAITING),
            msgspec.structs.replace(waiting, id=WAITING_OF_FN, path=fn.name),
        ]
        dead = msgspec.structs.replace(call, id=DEAD, status=ERROR, dead=True, payload=b"x", result=None)
        await self._datastore.put_calls(
            [(dead, b"a log"), (call, b"a log"), (of_fn, b"a log"), *[(one, None) for one in waits]]
        )
        for number, (holder, value) in enumerate([("viewer", new_token()), *TOKENS.items(), *SCOPED.items()]):
            token_id = encode(2 + number)
            with contextlib.suppress(TokensNotFound):
                await self._datastore.remove_token(token_id)
            role, _, app = holder.partition(" of ")
            token = Token(
                id=token_id,
                name="seeded",
                role=Role(role),
                apps=(app,) if app else (),
                digest=digest(value.encode()),
                created_at=_NOW,
            )
            await self._datastore.insert_token(token)


def redrives_of(datastore: Datastore, accepted: LocalAcceptedCalls) -> Redrives:
    """Make new calls of the dead letters of a datastore."""
    next_id = IdGenerator(0, SystemClock().now_ns)
    return Redrives(datastore, datastore, datastore, accepted, SystemClock(), next_id, LIMITS)


@contextlib.contextmanager
def served_node(folder: Path) -> Iterator[ServedApi]:
    """Serve it as the node of a data folder, that the command finds and deploys to."""
    with data_lock(folder), served_api(folder) as served:
        yield served


@contextlib.contextmanager
def served_api(folder: Path, mode: AuthMode = AuthMode.LOOPBACK) -> Iterator[ServedApi]:
    """Serve it from a thread of its own, which logs nothing: commands of the same process have streams of all kinds."""
    with (
        mock.patch("hearth.server.api._log"),
        mock.patch("hearth.server.errors._log"),
        mock.patch("hearth.server.redrives._log"),
    ):
        yield from _served(folder, mode)


def _served(folder: Path, mode: AuthMode) -> Iterator[ServedApi]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        datastore = asyncio.run_coroutine_threadsafe(open_datastore(f"sqlite3://{folder}/fn.db"), loop).result()
        stored = StoredTokens(datastore.find_token, SystemClock())
        vault = Vault(datastore, Keyring("", None, folder / FILE))
        registry = Registry(image_store(folder / "bundles"))
        about = About("process", "full")
        queue = asyncio.run_coroutine_threadsafe(open_queue("memory://", SystemClock()), loop).result()
        redrives = redrives_of(datastore, LocalAcceptedCalls(queue, datastore, SystemClock()))
        schedules = schedules_of(datastore)
        fleet = Fleet(SystemClock())
        fleet.note(NODE)
        served = Api(
            datastore,
            SystemClock(),
            dict,
            vault=vault,
            about=about,
            registry=registry,
            redrives=redrives,
            schedules=schedules,
            nodes=Nodes(fleet),
        )
        api = guarded(served, mode, stored=stored)
        stop = asyncio.Event()

        async def serve() -> None:
            async with HttpServer(SystemClock(), head_timeout_s=30) as server:
                await server.listen([listener], api)
                await stop.wait()
                await server.drain(60)

        serving = asyncio.run_coroutine_threadsafe(serve(), loop)
        yield ServedApi(f"http://127.0.0.1:{listener.getsockname()[1]}", loop, datastore, vault)
        loop.call_soon_threadsafe(stop.set)
        serving.result()
        asyncio.run_coroutine_threadsafe(registry.close(), loop).result()
        asyncio.run_coroutine_threadsafe(datastore.close(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        listener.close()
