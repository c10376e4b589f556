"""Logs as clients read them: streamed in both forms, also from a store of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest
from tests.support.api import APPS

from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.call import SUCCESS, Call
from hearth.models.ids import encode
from hearth.models.log_reader import PIECE_BYTES, LogReader
from hearth.server.api import Api
from hearth.stores.logs.base import Log
from hearth.stores.logs.open import open_logstore
from hearth.stores.sql import SqlDatastore

ID = encode(1)
#: A letter of two bytes lies across the border of two pieces; the last byte begins one that never ends.
LOG = b"x" * (PIECE_BYTES - 1) + 'ü<&>"\\\n\0'.encode() + b"y" * PIECE_BYTES + b"\xc3"


def stored(app_id: str = "") -> Call:
    return Call(id=ID, app_name="app", app_id=app_id, path="/a", status=SUCCESS)


async def test_a_long_log_is_the_same_in_both_forms(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    await datastore.put_calls([(stored(), LOG)])
    where = f"{APPS}/app/calls/{ID}/log"
    text = await api.get(where, headers={"accept": "text/plain"})
    assert (text.content, text.headers["content-type"]) == (LOG, "text/plain; charset=utf-8")
    told = await api.get(where)
    assert told.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(told.content) == {
        "message": "Successfully loaded log",
        "log": {"call_id": ID, "log": LOG.decode("utf-8", "replace"), "app_name": "app"},
    }
    assert b"\\u003c\\u0026\\u003e" in told.content


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
async def test_a_log_is_sent_while_it_is_read(datastore: SqlDatastore, accept: str) -> None:
    """The store gives the second piece only when the client has the first one."""
    reached = asyncio.Event()

    async def get_log(app: str, call_id: str) -> LogReader:
        async def pieces() -> LogReader:
            yield b"first"
            await reached.wait()
            yield b"second"

        return pieces()

    sent = bytearray()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.extend(message.get("body", b""))
        if b"first" in sent:
            reached.set()

    async def receive() -> MutableMapping[str, Any]:
        return await asyncio.get_running_loop().create_future()

    await datastore.insert_app(App(name="app"))
    await datastore.put_calls([(stored(), None)])
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"{APPS}/app/calls/{ID}/log",
        "query_string": b"",
        "headers": [(b"accept", accept.encode())],
    }
    async with asyncio.timeout(60):
        await Api(datastore, SystemClock(), dict, get_log=get_log)(scope, receive, send)
    assert b"firstsecond" in sent


@pytest.mark.parametrize("accept", ["application/json", "text/plain"])
async def test_a_missing_log_is_no_log(api: httpx.AsyncClient, accept: str) -> None:
    answer = await api.get(f"{APPS}/app/calls/{ID}/log", headers={"accept": accept})
    assert (answer.status_code, answer.json()) == (404, {"error": {"message": "Call log not found"}})


async def test_a_store_of_logs_shows_none_of_an_app_that_was_deleted(datastore: SqlDatastore, tmp_path: object) -> None:
    logs = await open_logstore(f"sqlite3://{tmp_path}/logs.db", wait_s=5)
    transport = httpx.ASGITransport(Api(datastore, SystemClock(), dict, get_log=logs.get_log))
    where = f"{APPS}/app/calls/{ID}/log"
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as api:
        first = await datastore.insert_app(App(name="app"))
        await datastore.put_calls([(stored(first.id), None)])
        await logs.put_logs([Log("app", ID, b"secret")])
        assert (await api.get(where)).json()["log"]["log"] == "secret"
        await datastore.remove_app("app")
        await datastore.insert_app(App(name="app"))
        await datastore.put_calls([(stored(first.id), None)])
        assert (await api.get(where)).status_code == 404
    await logs.close()
