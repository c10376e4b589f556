"""Nodes that report themselves: what is listed, what fades, who drains, and what a hostile one can do."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.support.clock import FakeClock
from tests.support.served_api import NODE

from hearth.models.errors import ApiNodeAway, NodeNotFound, RoutesNotFound
from hearth.models.node import MOST_FUNCTIONS, NodeReport
from hearth.nodes.membership import Reporter, containers_of
from hearth.server.fleet import AWAY, DRAINING, PERIOD_S, READY, Fleet
from hearth.telemetry.metrics import Metrics

OTHER = msgspec.structs.replace(NODE, id="1", host="a-runner")
DRAINS = msgspec.structs.replace(NODE, draining=True)


def states(fleet: Fleet) -> dict[str, str]:
    return {one.report.id: one.state for one in fleet.nodes()}


def test_a_node_that_is_silent_is_away_and_then_forgotten() -> None:
    clock = FakeClock()
    fleet = Fleet(clock)
    fleet.note(NODE)
    clock.advance(25)
    fleet.note(OTHER)
    assert [one.report.host for one in fleet.nodes()] == ["a-runner", "runner-1"]
    clock.advance(10)
    assert states(fleet) == {NODE.id: AWAY, OTHER.id: READY}
    clock.advance(870)
    assert states(fleet) == {OTHER.id: AWAY}
    fleet.note(NODE)
    assert states(fleet) == {OTHER.id: AWAY, NODE.id: READY}


def test_a_node_is_told_to_drain_until_it_drains_or_is_started_again() -> None:
    fleet = Fleet(FakeClock())
    assert fleet.note(NODE) is False
    assert fleet.drain(NODE.id).state == DRAINING
    assert (fleet.note(NODE), fleet.note(NODE)) == (True, True), "an answer may be lost"
    assert fleet.note(DRAINS) is False
    assert states(fleet) == {NODE.id: DRAINING}
    again = msgspec.structs.replace(NODE, started_at="2026-01-02T00:00:00Z")
    fleet.drain(NODE.id)
    assert fleet.note(again) is False
    assert states(fleet) == {NODE.id: READY}
    with pytest.raises(NodeNotFound):
        fleet.drain("none")


def test_a_node_lists_itself_first_and_drains_itself_at_once() -> None:
    fleet = Fleet(FakeClock())
    drained: list[int] = []
    own = msgspec.structs.replace(NODE, id="own", host="z")
    fleet.join(lambda: msgspec.structs.replace(own, draining=bool(drained)), lambda: drained.append(1))
    fleet.note(NODE)
    assert fleet.note(msgspec.structs.replace(own, host="someone else")) is False
    assert [(one.report.id, one.report.host) for one in fleet.nodes()] == [("own", "z"), (NODE.id, NODE.host)]
    assert fleet.drain("own").state == DRAINING
    assert drained == [1]


def test_made_up_nodes_push_out_the_longest_silent_ones_only() -> None:
    clock = FakeClock()
    fleet = Fleet(clock)
    for number in range(2500):
        fleet.note(msgspec.structs.replace(NODE, id=str(number)))
        clock.advance(0.001)
    assert len(fleet.nodes()) == 1000
    assert states(fleet).keys() == {str(number) for number in range(1500, 2500)}


@pytest.mark.parametrize(
    "lie",
    [
        {"id": "../x"},
        {"id": ""},
        {"id": "x" * 65},
        {"type": "king"},
        {"host": "h" * 256},
        {"host": "a\nb"},
        {"port": 70000},
        {"version": 5},
        {"used_mib": -1},
        {"memory_mib": 1 << 60},
        {"draining": "yes"},
        {"functions": [{"app": "a", "function": "/f" * 600}]},
        {"functions": [{"app": "a", "function": "/f"}] * (MOST_FUNCTIONS + 1)},
    ],
    ids=range(13),
)
def test_a_report_that_makes_no_sense_is_refused(lie: dict[str, Any]) -> None:
    told = {**msgspec.to_builtins(NODE), **lie}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(told), type=NodeReport)


def test_the_containers_of_a_node_are_those_of_its_gauges() -> None:
    metrics = Metrics()
    metrics.gauge("fn_container_idle_total").series("a", "/f").value = 2
    metrics.gauge("fn_container_busy_total").series("a", "/f").value = 1
    metrics.gauge("fn_container_busy_total").series("a", "/gone").value = 0
    (found,) = containers_of(metrics)
    assert (found.app, found.function, found.idle, found.busy, found.total) == ("a", "/f", 2, 1, 3)


async def test_a_node_reports_again_after_an_outage_and_drains_when_it_is_told() -> None:
    clock = FakeClock()
    answers: list[bool | Exception] = [False, ApiNodeAway(), RoutesNotFound(), True, False]
    sent: list[NodeReport] = []
    drained: list[int] = []

    async def send(report: NodeReport) -> bool:
        sent.append(report)
        answer = answers[len(sent) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async with Reporter(lambda: DRAINS if drained else NODE, send, lambda: drained.append(1), clock):
        await settle()
        assert len(sent) == 1
        clock.advance(PERIOD_S)
        await settle()
        clock.advance(PERIOD_S)
        await settle()
        assert len(sent) == 3
        clock.advance(100)
        await settle()
        assert len(sent) == 3, "an API node that knows no reports is asked again much later"
        clock.advance(600)
        await settle()
        clock.advance(0)
        await settle()
        assert drained == [1]
        assert [one.draining for one in sent] == [False] * 4 + [True]
