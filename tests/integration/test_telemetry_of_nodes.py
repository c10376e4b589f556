"""Each node has its own telemetry, and all of its parts use it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from tests.support.agent import OBEDIENT, TOTAL, Records
from tests.support.async_world import call
from tests.support.scrape import Samples, samples

from hearth import settings
from hearth.agent.agent import Agent
from hearth.aio.clock import SystemClock
from hearth.models.ids import encode
from hearth.nodes import Options, open_node
from hearth.nodes.node import Node
from hearth.queues.open import open_queue
from hearth.telemetry.node import Telemetry
from hearth.testing.script import Script
from hearth.testing.scripted_driver import FakeDriver

CLOCK = SystemClock()
ROUTE = {"route": {"image": "obey", "format": "json", "memory": 64}}
#: A number that each part of a full node counts when it serves a call.
OF_PARTS = {
    "access": "fn_span_mq_push_duration_seconds_count",
    "agent": "fn_span_agent_submit_global_duration_seconds_count",
    "datastore": "fn_span_ds_insert_route_duration_seconds_count",
    "log store": "fn_span_ds_insert_log_duration_seconds_count",
    "server": "fn_span_serve_http_duration_seconds_count",
}


def wanted(folder: Path) -> settings.Settings:
    folder.mkdir()
    return settings.load(
        data_dir=folder,
        logstore_url=f"sqlite3://{folder}/logs.db",
        max_total_memory=4 << 30,
        max_total_cpu=4000,
        runner_quiet_s=0,
    )


def driver() -> FakeDriver:
    return FakeDriver(CLOCK, {"obey": Script(main=OBEDIENT)})


def client(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(node.app), base_url="http://127.0.0.1")


async def scrape(http: httpx.AsyncClient) -> Samples:
    return samples((await http.get("/metrics")).text)


def total(counted: Samples, name: str) -> float:
    return sum(value for key, value in counted.items() if key[0] == name)


async def test_two_nodes_of_a_process_count_apart(tmp_path: Path) -> None:
    made = driver(), driver()
    async with (
        open_node(wanted(tmp_path / "one"), 0, Options(driver=made[0])) as one,
        open_node(wanted(tmp_path / "other"), 0, Options(driver=made[1])) as other,
        client(one) as http,
        client(other) as others,
    ):
        later = {"route": {**ROUTE["route"], "type": "async"}}
        assert (await http.put("/v1/apps/a/routes/f", json=ROUTE)).status_code == 200
        assert (await http.put("/v1/apps/a/routes/later", json=later)).status_code == 200
        assert (await http.post("/r/a/f", json={"echo": "x", "say": "a line"})).text == "x"
        assert (await http.post("/r/a/later", json={})).status_code == 202
        counted, elsewhere = await scrape(http), await scrape(others)
    assert {part for part, name in OF_PARTS.items() if total(counted, name) == 0} == set()
    assert counted["fn_completed", "a", "/f"] == 1
    assert not [key for key in elsewhere if key[1:] == ("a", "/f")]
    assert {part for part, name in OF_PARTS.items() if total(elsewhere, name)} == set()
    for one_driver in made:
        await one_driver.close()


async def test_a_node_that_is_given_its_agent_serves_what_that_has_counted(tmp_path: Path) -> None:
    numbers, records, made = iter(range(1 << 40, 1 << 41)), Records(), driver()
    next_id = lambda: encode(next(numbers))  # noqa: E731
    async with Agent(made, records, CLOCK, total=TOTAL, next_id=next_id) as agent:
        options = Options(agent=agent, driver=made)
        async with open_node(wanted(tmp_path / "node"), 0, options) as node, client(node) as http:
            assert (await http.put("/v1/apps/a/routes/f", json=ROUTE)).status_code == 200
            assert (await http.post("/r/a/f", json={"echo": "x"})).text == "x"
            assert (await scrape(http))["fn_completed", "a", "/f"] == 1
    await made.close()


async def test_a_node_uses_the_telemetry_that_it_is_given(tmp_path: Path) -> None:
    telemetry, made = Telemetry(), driver()
    telemetry.metrics.counter("fn_calls").add(7, "before", "/f")
    options = Options(driver=made, telemetry=telemetry)
    async with open_node(wanted(tmp_path / "node"), 0, options) as node, client(node) as http:
        assert node.telemetry is telemetry
        assert (await scrape(http))["fn_calls", "before", "/f"] == 7
    await made.close()


async def test_an_api_node_reports_the_length_of_the_queue(tmp_path: Path) -> None:
    """No node of such a fleet but its API nodes has the queue."""
    queue = await open_queue("memory://", CLOCK)
    await queue.push([call("waits")])
    of_api = wanted(tmp_path / "api").model_copy(update={"node_type": settings.API})
    async with open_node(of_api, 0, Options(queue=queue)) as node, client(node) as http:
        while not total(await scrape(http), "hearth_queue_length"):
            await asyncio.sleep(0)
    await queue.close()
