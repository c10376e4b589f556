"""The simulation of a node, small: it runs, it repeats itself, memory is never over-committed."""

from __future__ import annotations

import dataclasses

import pytest
from bench.simulation import report
from bench.simulation_load import Load
from bench.simulation_orders import ORDERS
from bench.simulation_run import SCALING, Result, Simulation

SMALL = Load(functions=40, rate=300, warm_up_s=0.5, seconds=0.5, memory_share=0.4)


def simulated(order: str, scaling: str = "adaptive") -> Result:
    return dataclasses.replace(Simulation(SMALL, order, ORDERS[order], SCALING[scaling]).run(), real_s=0.0)


@pytest.mark.parametrize("order", ORDERS)
def test_a_seed_gives_the_same_run_again(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = simulated(order)
    assert simulated(order) == run
    assert run.outcomes
    assert run.starts > 0
    assert run.peak_mib <= run.total_mib
    assert all(granted <= run.total_mib for _, granted, _ in run.memory)
    report(SMALL, [run])
    assert "answered 503" in capsys.readouterr().out


@pytest.mark.parametrize("scaling", SCALING)
def test_containers_serve_more_than_one_call(scaling: str) -> None:
    run = simulated("arrival", scaling)
    assert run.starts < run.calls / 2
