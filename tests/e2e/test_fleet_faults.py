"""A fleet whose nodes die and whose network fails, under mixed load: no wrong answer, no call lost or run twice."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support import databases
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.fleet import Fleet, running_fleet
from tests.support.fleet_load import Load, kill, status, wait_for_record
from tests.support.hosts import Host, networked
from tests.support.node import RunningNode
from tests.support.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until
from tests.support.witness import watching

ROUNDS = int(os.environ.get("HEARTH_FLEET_ROUNDS", "1"))
#: Seconds for which a partition lasts at least.
PARTITION_S = float(os.environ.get("HEARTH_PARTITION_S", "0"))
#: Answers that show that it lasts: most clients wait for an async call to be refused.
FEW = 10
QUICK: dict[str, Any] = {"FN_MQ_VISIBILITY_S": "3", "FN_RUNNER_QUIET_S": "2", "FN_RUNNER_CONNECT_S": "1"}


def _address(node: RunningNode) -> tuple[str, int]:
    parts = urlsplit(node.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def test_a_fleet_under_faults_keeps_its_promises(tmp_path: Path) -> None:
    with watching() as witness, running_fleet(tmp_path, runners=0, **QUICK) as fleet:
        load = Load(fleet, witness)
        with faulty_proxy(_address(fleet.api)) as first, faulty_proxy(_address(fleet.api)) as second:
            nodes = [fleet.start_runner("runner0", first.url), fleet.start_runner("runner1", second.url)]
            with load.running(nodes):
                for _ in range(ROUNDS):
                    _round(fleet, load, nodes, first, second)
            load.check(fleet.api)


def _round(fleet: Fleet, load: Load, nodes: list[RunningNode], first: FaultyProxy, second: FaultyProxy) -> None:
    assert load.goes_on()
    first.delay_s, second.cut_rate = 0.02, 0.05
    assert load.goes_on(), "a slow network, and one that cuts connections, is no end"
    first.delay_s = second.cut_rate = 0.0
    first.deaf = True
    one = load.alone(nodes[0], "a connection that says nothing")
    first.deaf = False
    wait_for_record(fleet.api, one, "a connection that says nothing")
    kill(fleet.api)
    begun = time.monotonic()
    two = load.alone(nodes[1], "a dead API node")
    kill(nodes[1])  # with ends of calls that only its disk knows
    first.target = second.target = _address(fleet.start_api())
    nodes[1] = fleet.start_runner("runner1", second.url)
    load.urls[1] = nodes[1].url
    assert until(lambda: status(fleet.api, two.headers["fn_call_id"]) == "success"), "the disk did know"
    print(f"whole again {time.monotonic() - begun:.2f} s after two nodes died")


def test_hosts_whose_packets_vanish_keep_the_promises(tmp_path: Path) -> None:
    with networked() as network, watching(network.address) as witness:
        hosts = {name: network.host(name) for name in ("api", "runner0", "runner1")}
        with running_fleet(tmp_path, runners=2, hosts=hosts, **QUICK) as fleet:
            load = Load(fleet, witness)
            with load.running(fleet.runners):
                for _ in range(ROUNDS):
                    _lossy_round(fleet, load, hosts["api"], hosts["runner0"], hosts["runner1"])
            load.check(fleet.api)


def _lossy_round(fleet: Fleet, load: Load, api: Host, first: Host, second: Host) -> None:
    one, two = fleet.runners
    first.lose(api, share=0.2)
    assert load.goes_on(), "a fifth of the packets lost is no end"
    first.heal()
    first.lose(api, sent=False)
    second.lose(api, received=False)
    _serve_alone(fleet, load, {"answers vanish": one, "requests vanish": two}, first.heal, second.heal)
    first.lose(api)
    assert until(lambda: not first.connected(api)), "a poll that nobody will answer is given up"
    _serve_alone(fleet, load, {"partition": one}, first.heal)
    api.unplug()
    _serve_alone(fleet, load, {"API node unplugged": one, "API node unplugged, too": two}, api.plug)


def _serve_alone(fleet: Fleet, load: Load, cut_off: dict[str, RunningNode], *mending: Callable[[], None]) -> None:
    """Runners that cannot reach their API node serve what they know; all is told when they can again."""
    answers = {what: load.alone(node, what) for what, node in cut_off.items()}
    begun = time.monotonic()
    while load.goes_on(FEW) and time.monotonic() < begun + PARTITION_S:
        pass
    for mend in mending:
        mend()
    begun = time.monotonic()
    for what, answer in answers.items():
        wait_for_record(fleet.api, answer, what)
    for what, node in cut_off.items():
        assert until(lambda node=node: load.queue(node))  # type: ignore[misc]
        print(f"{what}: async calls accepted {time.monotonic() - begun:.2f} s after the end of it")


@pytest.fixture
async def shared_stores(postgres_server: Server, redis_server: RedisServer) -> AsyncIterator[dict[str, str]]:
    """One PostgreSQL, one Redis."""
    async with databases.made("postgres", postgres_server) as url:
        yield {"FN_DB_URL": url, "FN_MQ_URL": redis_server.url("mixed")}


def test_full_nodes_of_a_mixed_fleet_are_killed(tmp_path: Path, shared_stores: dict[str, Any]) -> None:
    """One that is the API node of a runner, and one beside them."""
    with watching() as witness, running_fleet(tmp_path, kind="full", **QUICK, **shared_stores) as fleet:
        load = Load(fleet, witness)
        port = fleet.api.url.rpartition(":")[2]
        other = fleet.start("other", FN_NODE_TYPE="full")
        nodes = [fleet.api, other, *fleet.runners]
        with load.running(nodes):
            for _ in range(ROUNDS):
                assert load.goes_on()
                kill(fleet.api)
                begun = time.monotonic()
                answer = load.alone(fleet.runners[0], "a killed full node, the API of a runner")
                fleet.start_api("full", FN_PORT=port)
                wait_for_record(fleet.api, answer, "a killed full node, the API of a runner")
                print(f"whole again {time.monotonic() - begun:.2f} s after it died")
                assert load.goes_on()
                kill(other)
                other = fleet.start("other", FN_NODE_TYPE="full")
                load.urls[1] = other.url
                assert load.goes_on()
        load.check(fleet.api)
