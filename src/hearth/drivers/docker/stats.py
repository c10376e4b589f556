"""Convert the Engine's statistics to the nine metrics of a call (drivers specification 2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hearth.drivers.base import StatsSample
from hearth.models.times import parse_time


def samples(raw: Mapping[str, Any]) -> Iterator[StatsSample]:
    """Yield the sample of one message of the Engine; a message without a time has none."""
    read = str(raw.get("read") or "")
    if not read or read.startswith("0001-"):
        return
    networks = (raw.get("networks") or {}).values()
    memory = raw.get("memory_stats") or {}
    disk = (raw.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    yield StatsSample(
        timestamp=parse_time(read),
        metrics={
            "net_rx": sum([int(net.get("rx_bytes", 0)) for net in networks]),
            "net_tx": sum([int(net.get("tx_bytes", 0)) for net in networks]),
            "mem_limit": int(memory.get("limit", 0)),
            "mem_usage": int(memory.get("usage", 0)),
            "disk_read": _bytes(disk, "read"),
            "disk_write": _bytes(disk, "write"),
            "cpu_user": _percent(raw, "usage_in_usermode"),
            "cpu_total": _percent(raw, "total_usage"),
            "cpu_kernel": _percent(raw, "usage_in_kernelmode"),
        },
    )


def _bytes(disk: list[Mapping[str, Any]], operation: str) -> int:
    return sum([int(entry["value"]) for entry in disk if str(entry.get("op", "")).lower() == operation])


def _percent(raw: Mapping[str, Any], name: str) -> int:
    now, before = raw.get("cpu_stats") or {}, raw.get("precpu_stats") or {}
    system = int(now.get("system_cpu_usage", 0)) - int(before.get("system_cpu_usage", 0))
    used = int((now.get("cpu_usage") or {}).get(name, 0)) - int((before.get("cpu_usage") or {}).get(name, 0))
    if system <= 0 or used <= 0:
        return 0
    return 100 * _cores(now) * used // system


def _cores(now: Mapping[str, Any]) -> int:
    """Return the number of CPUs; old Engines only list them."""
    return int(now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1)
