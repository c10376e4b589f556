"""What a node finds of its machine, on made-up trees of /proc and /sys/fs/cgroup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from hearth.agent.resources import ResourceTracker, pools
from hearth.agent.shares import Share
from hearth.host import machine
from hearth.host.cgroup_limits import count_cpus
from hearth.models.errors import StartUpError
from hearth.models.function import Amount
from hearth.nodes import capacity

GIB = 1024
CPUINFO = "".join(f"processor\t: {number}\nmodel name\t: a processor\n\n" for number in range(8))


class Machine:
    """A machine with 16 GiB and 8 processors, and whatever control groups a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.cgroups.mkdir()
        self.write(
            self.proc, {"meminfo": f"MemTotal: 9 kB\nMemAvailable:   {16 * GIB * 1024} kB\n", "cpuinfo": CPUINFO}
        )

    def write(self, root: Path, files: dict[str, Any]) -> None:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    def group(self, membership: str) -> None:
        self.write(self.proc, {"self/cgroup": membership})

    def limits(self, files: dict[str, Any]) -> None:
        self.write(self.cgroups, files)

    def detect(self) -> Amount:
        return machine.detect(self.proc, self.cgroups)


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def usable(mib: int) -> int:
    return machine.usable_memory_mib(mib)


def test_without_control_groups_the_kernel_is_believed(host: Machine) -> None:
    assert host.detect() == Amount(usable(16 * GIB), 8000)


def test_version_2(host: Machine) -> None:
    host.group("0::/service")
    host.limits(
        {
            "service/memory.max": 4 << 30,
            "service/memory.current": 1 << 30,
            "service/cpu.max": "250000 100000",
            "service/cpuset.cpus.effective": "0-3",
        }
    )
    assert host.detect() == Amount(usable(3 * GIB), 2500)


def test_version_1(host: Machine) -> None:
    host.group("12:cpu,cpuacct:/service\n11:memory:/service\n9:cpuset:/service\n1:name=systemd:/service")
    host.limits(
        {
            "memory/service/memory.limit_in_bytes": 2 << 30,
            "memory/service/memory.usage_in_bytes": 0,
            "cpu,cpuacct/service/cpu.cfs_quota_us": 150000,
            "cpu,cpuacct/service/cpu.cfs_period_us": 100000,
            "cpuset/service/cpuset.cpus": "0-3",
        }
    )
    assert host.detect() == Amount(usable(2 * GIB), 1500)


def test_version_1_without_limits(host: Machine) -> None:
    host.group("12:cpu:/\n11:memory:/")
    host.limits(
        {
            "memory/memory.limit_in_bytes": 9223372036854771712,
            "memory/memory.usage_in_bytes": 5 << 30,
            "cpu/cpu.cfs_quota_us": -1,
            "cpu/cpu.cfs_period_us": 100000,
        }
    )
    assert host.detect() == Amount(usable(16 * GIB), 8000)


def test_both_versions_side_by_side(host: Machine) -> None:
    host.group("11:memory:/service\n0::/service")
    host.limits(
        {
            "memory/service/memory.limit_in_bytes": 2 << 30,
            "memory/service/memory.usage_in_bytes": 1 << 30,
            "unified/service/cpu.max": "300000 100000",
        }
    )
    assert host.detect() == Amount(usable(1 * GIB), 3000)


def test_the_narrowest_of_nested_limits_counts(host: Machine) -> None:
    host.group("0::/slice/service/node")
    host.limits(
        {
            "slice/service/node/memory.max": "max",
            "slice/service/node/memory.current": 1 << 20,
            "slice/service/node/cpu.max": "max 100000",
            "slice/service/memory.max": 8 << 30,
            "slice/service/memory.current": 1 << 30,
            "slice/service/cpu.max": "700000 100000",
            "slice/memory.max": 9 << 30,
            "slice/memory.current": 6 << 30,
            "slice/cpu.max": "400000 100000",
            "slice/cpuset.cpus": "1,3,5",
        }
    )
    assert host.detect() == Amount(usable(3 * GIB), 3000)


def test_no_limits_of_version_2(host: Machine) -> None:
    host.group("0::/service")
    host.limits({"service/memory.max": "max", "service/memory.current": 1 << 30, "service/cpu.max": "max 100000"})
    assert host.detect() == Amount(usable(16 * GIB), 8000)


@pytest.mark.parametrize("path", ["/", "/docker/0123456789abcdef", "/../../system.slice/service"])
def test_inside_a_container_the_root_is_its_own_group(host: Machine, path: str) -> None:
    host.group(f"0::{path}")
    host.limits({"memory.max": 2 << 30, "memory.current": 1 << 30, "cpu.max": "200000 100000"})
    assert host.detect() == Amount(usable(1 * GIB), 2000)


def test_a_container_of_version_1_named_as_the_host_names_it(host: Machine) -> None:
    host.group("11:memory:/docker/0123456789abcdef\n12:cpuacct,cpu:/docker/0123456789abcdef")
    host.limits(
        {
            "memory/memory.limit_in_bytes": 1 << 30,
            "memory/memory.usage_in_bytes": 0,
            "cpu/cpu.cfs_quota_us": 50000,
            "cpu/cpu.cfs_period_us": 100000,
        }
    )
    assert host.detect() == Amount(usable(1 * GIB), 500)


def test_more_used_than_allowed_is_nothing_left(host: Machine) -> None:
    host.group("0::/service")
    host.limits({"service/memory.max": 1 << 30, "service/memory.current": 2 << 30})
    with pytest.raises(StartUpError, match=r"^Not enough memory"):
        host.detect()


def test_the_processors_of_a_kernel_that_does_not_list_them(host: Machine) -> None:
    host.write(host.proc, {"cpuinfo": "CPU architecture: 8"})
    assert host.detect().cpu_milli == len(os.sched_getaffinity(0)) * 1000


@pytest.mark.parametrize("meminfo", ["MemTotal: 1 kB\n", ""])
def test_a_kernel_that_does_not_tell_what_is_available(host: Machine, meminfo: str) -> None:
    host.write(host.proc, {"meminfo": meminfo})
    with pytest.raises(StartUpError, match="no MemAvailable: set FN_MAX_TOTAL_MEMORY"):
        host.detect()


@pytest.mark.parametrize(
    ("available", "left"),
    [(257, 1), (512, 256), (2560, 2304), (10_000, 9000), (51_200, 46_080), (100_000, 94_880)],
)
def test_the_headroom_has_two_ends(available: int, left: int) -> None:
    assert usable(available) == left


@pytest.mark.parametrize("available", [0, 256])
def test_too_little_memory_stops_the_start(available: int) -> None:
    with pytest.raises(StartUpError, match=r"^Not enough memory"):
        usable(available)


@pytest.mark.parametrize(
    ("ranges", "count"), [("0-3", 4), ("0", 1), ("0-1,4,6-7\n", 5), ("", 0), ("\n", 0), ("no list", 0)]
)
def test_lists_of_processors(ranges: str, count: int) -> None:
    assert count_cpus(ranges) == count


@pytest.mark.parametrize("total", [Amount(4, 8000), Amount(8192, 4), Amount(0, 0)])
def test_a_pool_without_anything_stops_the_start(total: Amount) -> None:
    with pytest.raises(StartUpError, match=r"^Not enough memory or CPU for sync calls: \d+ MiB"):
        capacity.check_pools(total)


@pytest.mark.parametrize(
    ("total", "warnings"),
    [(Amount(8192, 8000), 0), (Amount(4096, 1000), 0), (Amount(8192, 300), 1), (Amount(100, 110), 2)],
)
def test_a_small_pool_is_worth_a_warning(total: Amount, warnings: int) -> None:
    with capture_logs() as logs:
        capacity.check_pools(total)
    logged = [(line["log_level"], line["event"]) for line in logs]
    assert logged == [("debug", "resources for containers"), *[("warning", "severely limited resources")] * warnings]


def test_on_a_small_host_one_default_function_of_each_kind_runs() -> None:
    tracker = ResourceTracker(Amount(usable(512), 1000))
    assert tracker.reserve_nowait(Amount(128, 0), Share("a"), is_sync=False) is not None
    assert tracker.reserve_nowait(Amount(128, 0), Share("a"), is_sync=True) is not None


@pytest.mark.parametrize("memory", [129, 150, 160, 640, 8192])
def test_the_reserve_never_keeps_out_a_default_function(memory: int) -> None:
    reserve, shared = pools(Amount(memory, 1000))
    assert shared.memory_mib >= 128
    assert reserve + shared == Amount(memory, 1000)
    assert 0 < reserve.memory_mib <= memory // 5
