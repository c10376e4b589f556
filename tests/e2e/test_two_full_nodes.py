"""Two full nodes on one PostgreSQL and one Redis: keys, destinations, and a schedule whose node dies as it fires."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import datetime as dt
import itertools
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from tests.support import databases
from tests.support.callback_receiver import KEY, receiving
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.redis_server import RedisServer, running_redis
from tests.support.servers import Server
from tests.support.waiting import until

from hearth.models.times import parse_time

#: Both nodes read the secrets of the other.
SECRET_KEY = base64.b64encode(bytes(32)).decode()


class Place:
    """Stores, and nodes on them.

    Attributes:
        nodes: Two nodes, which stay.
    """

    def __init__(self, folder: Path, database: str, redis: RedisServer) -> None:
        self.redis = redis
        self._folder = folder
        self._database = database
        self.nodes: list[RunningNode] = []

    @contextlib.contextmanager
    def node(self, name: str, **environment: str) -> Iterator[RunningNode]:
        """One more node."""
        data = self._folder / name
        data.mkdir(exist_ok=True)
        image = "multi:1" if (data / "bundles").exists() else build_multi(data, data / "source")
        stores = {"FN_DB_URL": self._database, "FN_MQ_URL": self.redis.url(), "FN_SECRET_KEY": SECRET_KEY}
        stores |= {"FN_CALLBACK_ALLOW": "127.0.0.0/8", "FN_MQ_VISIBILITY_S": "1", **environment}
        with running_node("process", data, image, **stores) as running:
            yield running

    def sql(self, statement: str) -> list[Any]:
        """Execute a statement past the nodes."""

        async def execute() -> list[Any]:
            async with databases.transaction(self._database) as connection:
                found = await connection.execute(sa.text(statement))
                return list(found.all()) if found.returns_rows else []

        return asyncio.run(execute())


@pytest.fixture(scope="module")
def place(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("two")
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        made = databases.made("postgres", postgres_server)
        url = runner.run(made.__aenter__())
        stack.callback(lambda: runner.run(made.__aexit__(None, None, None)))
        found = Place(folder, url, stack.enter_context(running_redis(folder / "redis")))
        found.nodes += [stack.enter_context(found.node(name)) for name in ("one", "two")]
        yield found


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_one_key_that_two_nodes_get_at_once_is_one_call(place: Place, kind: str) -> None:
    path = place.nodes[0].route(f"once-{kind}", "http", type=kind)
    start = threading.Barrier(8)

    def send(number: int) -> httpx.Response:
        with httpx.Client(timeout=60) as http:
            start.wait()
            where = place.nodes[number % 2].url + path
            return http.post(where, json={"tell": True, "sleep_ms": 50}, headers={"Idempotency-Key": "k"})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {answer.status_code for answer in answers} == {200 if kind == "sync" else 202}
    (call_id,) = {answer.headers["fn_call_id"] for answer in answers}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replay") for answer in answers].count(None) == 1
    if kind == "async":
        place.nodes[0].ended(answers[0])
    found = place.nodes[1].http.get("/v1/apps/e2e/calls", params={"path": f"/once-{kind}"}).json()["calls"]
    assert [one["id"] for one in found] == [call_id]


def test_each_record_reaches_its_destination_once_whichever_node_sends_it(place: Place) -> None:
    api = place.nodes[0].http
    with receiving() as receiver:
        path = place.nodes[0].route("tells", "http", type="async", on_success=f"{receiver.url}/good")
        assert api.put("/v1/apps/e2e/secrets/CALLBACK_KEY", json={"value": KEY}).status_code == 200
        answers = [place.nodes[number % 2].call(path, echo=f"{number}") for number in range(10)]
        ids = [f"{answer.headers['fn_call_id']}-callback" for answer in answers]
        done = {"path": "callback:/tells", "status": "success"}
        assert until(lambda: len(api.get("/v1/apps/e2e/calls", params=done).json()["calls"]) == 10)
        assert sorted(call_id for _, call_id, _ in receiver.received) == sorted(ids)
        assert sorted(body["result"]["body"] for body in receiver.of("/good")) == [f"{n}" for n in range(10)]


def test_a_node_that_is_killed_while_it_fires_leaves_each_firing_to_one_call(place: Place) -> None:
    """The firing is claimed, and its call on its way to a Redis that does not answer, when the node dies."""
    api = place.nodes[0].http
    place.nodes[0].route("tick", "http")
    schedule = {"route": "/tick", "every": "1s", "payload": json.dumps({"echo": "x"}), "if_missed": "all"}
    with place.node("mortal") as mortal:
        assert mortal.http.put("/v1/apps/e2e/schedules/ticks", json={"schedule": schedule}).status_code == 200
        assert until(lambda: len(_firings(place, "accepted")) >= 2)
        for node in place.nodes:  # nobody else fires now
            node.process.send_signal(signal.SIGSTOP)
        try:
            with place.redis.frozen():
                assert until(lambda: bool(_firings(place, "claimed")))
                mortal.stop(signal.SIGKILL)
        finally:
            for node in place.nodes:
                node.process.send_signal(signal.SIGCONT)
    off = {**schedule, "enabled": False}
    assert until(lambda: api.put("/v1/apps/e2e/schedules/ticks", json={"schedule": off}).status_code == 200)
    place.sql("UPDATE firings SET claimed_at = '2000-01-01T00:00:00.000Z' WHERE state = 'claimed'")
    with place.node("heir"):  # it looks for such firings at its start; the others do once a minute
        assert until(lambda: not _firings(place, "claimed"))
    firings = _firings(place, "accepted")
    dues = [parse_time(due) for due, _ in firings]
    assert [later - due for due, later in itertools.pairwise(dues)] == [dt.timedelta(seconds=1)] * (len(dues) - 1)

    def ended() -> list[str]:
        listed = api.get("/v1/apps/e2e/calls", params={"path": "/tick", "status": "success"}).json()["calls"]
        return sorted(call["id"] for call in listed)

    assert until(lambda: ended() == sorted(call_id for _, call_id in firings))


def _firings(place: Place, state: str) -> list[Any]:
    return place.sql(f"SELECT due, call_id FROM firings WHERE state = '{state}' ORDER BY due")
