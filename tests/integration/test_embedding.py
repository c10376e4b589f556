"""A node of ready-made parts: each is used in place of the one that the settings name, and left open at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.agent import OBEDIENT, TOTAL, Records

from hearth import settings
from hearth.access.base import EndedCall
from hearth.agent.agent import Agent
from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.errors import StartUpError
from hearth.models.ids import encode
from hearth.models.log_reader import read_all
from hearth.models.route import Route, RouteLimits
from hearth.nodes import Options, open_node
from hearth.nodes.node import Node
from hearth.queues.open import open_queue
from hearth.stores.logs.open import open_logstore
from hearth.stores.sql import open_datastore
from hearth.testing.script import Script
from hearth.testing.scripted_driver import FakeDriver

CLOCK = SystemClock()
#: Nothing that these name is there.
NOWHERE = {
    "db_url": "postgres://nobody@127.0.0.1:1/none",
    "mq_url": "redis://127.0.0.1:1/",
    "logstore_url": "s3://k:s@127.0.0.1:1/r/b",
    "db_wait_s": 0.0,
    "max_total_memory": 4 << 30,
    "max_total_cpu": 4000,
}


def driver() -> FakeDriver:
    return FakeDriver(CLOCK, {"obey": Script(main=OBEDIENT)})


def client(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(node.app), base_url="http://127.0.0.1")


async def test_a_node_uses_the_stores_that_it_is_given_and_leaves_them_open(tmp_path: Path) -> None:
    datastore = await open_datastore(f"sqlite3://{tmp_path}/given.db")
    logs = await open_logstore(f"sqlite3://{tmp_path}/logs.db", wait_s=5)
    queue = await open_queue("memory://", CLOCK)
    made = driver()
    given = Options(datastore=datastore, queue=queue, logs=logs, driver=made)
    wanted = settings.load(data_dir=tmp_path, runner_quiet_s=0, **NOWHERE)
    async with open_node(wanted, 0, given) as node, client(node) as http:
        for name, kind in (("now", "sync"), ("later", "async")):
            route = {"route": {"image": "obey", "format": "json", "type": kind}}
            assert (await http.put(f"/v1/apps/a/routes/{name}", json=route)).status_code == 200
        answer = await http.post("/r/a/now", json={"echo": "x", "say": "a line"})
        assert (answer.status_code, answer.text) == (200, "x")
        node.consumer.stop()  # type: ignore[union-attr]
        assert (await http.post("/r/a/later", json={})).status_code == 202
    assert (await datastore.get_call("a", answer.headers["fn_call_id"])).status == "success"
    assert b"a line" in await read_all(await logs.get_log("a", answer.headers["fn_call_id"]))
    assert [one.call.path for one in await queue.reserve(9)] == ["/later"]
    await queue.close()
    await logs.close()
    await datastore.close()
    await made.close()


@pytest.mark.parametrize("node_type", ["full", "api"])
async def test_a_route_may_ask_for_no_more_than_the_node_is_told(tmp_path: Path, node_type: str) -> None:
    datastore, queue = await open_datastore(f"sqlite3://{tmp_path}/given.db"), await open_queue("memory://", CLOCK)
    made = driver()
    limits = RouteLimits(memory_mib=100, sync_timeout_s=7)
    given = Options(datastore=datastore, queue=queue, driver=made, limits=limits)
    wanted = settings.load(node_type=node_type, data_dir=tmp_path, **NOWHERE | {"logstore_url": ""})
    async with open_node(wanted, 0, given) as node, client(node) as http:
        answers = {}
        for name, size in {"memory": (100, 101), "timeout": (7, 8)}.items():
            for value in size:
                route = {"route": {"image": "obey", "format": "json", "memory": 64, "timeout": 5, name: value}}
                answers[name, value] = (await http.put(f"/v1/apps/a/routes/{name}", json=route)).status_code
        assert answers == {("memory", 100): 200, ("memory", 101): 400, ("timeout", 7): 200, ("timeout", 8): 400}
        if node_type == "full":  # a node that lets routes have more has stored this one
            larger = Route(app_name="a", path="/larger", image="obey", format="json", memory=101, timeout=5)
            await datastore.insert_route(larger)
            assert (await http.post("/r/a/memory", json={"echo": "x"})).status_code == 200
            assert (await http.post("/r/a/larger", json={"echo": "x"})).status_code == 400
    await queue.close()
    await datastore.close()
    await made.close()


async def test_a_runner_may_have_another_access_than_an_api_node(tmp_path: Path) -> None:
    access, made = Records(), driver()
    access.app = App(name="a")
    access.routes["/f"] = Route(app_name="a", path="/f", image="obey", format="json", memory=64, timeout=30)
    wanted = settings.load(node_type="runner", data_dir=tmp_path, **NOWHERE)
    async with open_node(wanted, 0, Options(access=access.world, driver=made)) as node, client(node) as http:
        assert (await http.get("/readyz")).json()["api"] == "ok"
        assert [(await http.get(path)).status_code for path in ("/ui/", "/ui/static/app.js")] == [404, 404]
        assert (await http.post("/r/a/f", json={"echo": "x"})).text == "x"
    assert [ended.call.status for ended in access.ended] == ["success"]
    await made.close()


async def test_a_node_may_be_given_its_agent(tmp_path: Path) -> None:
    class Elsewhere(Records):
        async def finish_many(self, ended: list[EndedCall]) -> None:
            self.ended += ended

    made, records = driver(), Elsewhere()
    datastore, queue = await open_datastore(f"sqlite3://{tmp_path}/given.db"), await open_queue("memory://", CLOCK)
    numbers = iter(range(1 << 40, 1 << 41))
    wanted = settings.load(data_dir=tmp_path, **NOWHERE | {"logstore_url": ""})
    stores: dict[str, Any] = {"datastore": datastore, "queue": queue}
    async with Agent(made, records, CLOCK, total=TOTAL, next_id=lambda: encode(next(numbers))) as agent:
        with pytest.raises(StartUpError, match="needs the driver"):
            async with open_node(wanted, 0, Options(agent=agent, **stores)):
                pass
        async with open_node(wanted, 0, Options(agent=agent, driver=made, **stores)) as node, client(node) as http:
            assert node.agent is agent
            route = {"route": {"image": "obey", "format": "json", "memory": 64}}
            assert (await http.put("/v1/apps/a/routes/f", json=route)).status_code == 200
            assert (await http.post("/r/a/f", json={"echo": "x"})).text == "x"
    assert [ended.call.status for ended in records.ended] == ["success"]
    await queue.close()
    await datastore.close()
    await made.close()
