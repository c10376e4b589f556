"""The Engine's samples as the metrics of a call (drivers specification 2.5)."""

from __future__ import annotations

from typing import Any

import pytest

from hearth.drivers.docker.stats import samples


def raw(**changes: Any) -> dict[str, Any]:
    """A sample of a container with two networks on a machine with two cores."""
    sample: dict[str, Any] = {
        "read": "2018-01-31T12:00:01.123456789Z",
        "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 1}, "eth1": {"rx_bytes": 20, "tx_bytes": 2}},
        "memory_stats": {"usage": 1000, "limit": 2000},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "Read", "value": 100},
                {"major": 8, "minor": 0, "op": "Write", "value": 7},
                {"major": 8, "minor": 0, "op": "Total", "value": 107},
                {"major": 8, "minor": 16, "op": "Read", "value": 1},
            ]
        },
        "cpu_stats": {
            "cpu_usage": {"total_usage": 333, "usage_in_usermode": 250, "usage_in_kernelmode": 50},
            "system_cpu_usage": 2000,
            "online_cpus": 2,
        },
        "precpu_stats": {
            "cpu_usage": {"total_usage": 0, "usage_in_usermode": 50, "usage_in_kernelmode": 50},
            "system_cpu_usage": 1000,
        },
    }
    return {**sample, **changes}


def metrics(**changes: Any) -> dict[str, int]:
    (sample,) = samples(raw(**changes))
    return dict(sample.metrics)


def test_all_nine_are_sums_and_truncated_shares() -> None:
    assert metrics() == {
        "net_rx": 30,
        "net_tx": 3,
        "mem_usage": 1000,
        "mem_limit": 2000,
        "disk_read": 101,
        "disk_write": 7,
        "cpu_total": 66,  # 100 x 2 x 333 / 1000, truncated
        "cpu_user": 40,
        "cpu_kernel": 0,
    }


def test_a_unified_control_group_names_its_operations_in_lower_case() -> None:
    disk = [{"major": 8, "minor": 0, "op": "read", "value": 5}, {"major": 8, "minor": 0, "op": "write", "value": 6}]
    found = metrics(blkio_stats={"io_service_bytes_recursive": disk, "io_serviced_recursive": None})
    assert (found["disk_read"], found["disk_write"]) == (5, 6)


@pytest.mark.parametrize("read", ["0001-01-01T00:00:00Z", "", None])
def test_a_sample_without_a_time_is_none(read: str | None) -> None:
    assert list(samples(raw(read=read))) == []


@pytest.mark.parametrize("name", ["networks", "blkio_stats", "memory_stats", "cpu_stats", "precpu_stats"])
def test_what_the_engine_leaves_out_counts_as_nothing(name: str) -> None:
    assert set(metrics(**{name: None})) == set(metrics())


def test_a_clock_that_stands_still_gives_no_share() -> None:
    assert metrics(precpu_stats=raw()["cpu_stats"])["cpu_total"] == 0


def test_cores_are_counted_where_their_number_is_not_given() -> None:
    usage = {"total_usage": 500, "percpu_usage": [1, 2, 3, 4]}
    assert metrics(cpu_stats={"cpu_usage": usage, "system_cpu_usage": 2000})["cpu_total"] == 200
