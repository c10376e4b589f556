"""The requests that create containers: limits that Fn's server gives to containers that listen."""

from __future__ import annotations

from typing import Any

from hearth.drivers.base import ContainerSpec
from hearth.drivers.docker.creation import Creation, Walls


def host_config(walls: Walls, *, listens: bool) -> dict[str, Any]:
    spec = ContainerSpec(id="1", image="i", env={}, memory_mib=128, listens=listens)
    config: dict[str, Any] = Creation(walls, "host", {}).form(spec, "i", "none", "/sockets/1")["HostConfig"]
    return config


def limits(walls: Walls, *, listens: bool) -> dict[str, int]:
    found = host_config(walls, listens=listens).get("Ulimits", [])
    assert all(limit["Soft"] == limit["Hard"] for limit in found)
    return {limit["Name"]: limit["Hard"] for limit in found}


def test_containers_that_listen_have_the_limits_of_fn() -> None:
    assert limits(Walls(), listens=False) == {"nofile": 1024}
    assert limits(Walls(max_open_files=350), listens=True) == {
        "nofile": 350,
        "memlock": 65536,
        "sigpending": 5000,
        "msgqueue": 819200,
    }


def test_a_limit_below_zero_is_left_to_the_engine() -> None:
    walls = Walls(max_open_files=0, locked_memory=-1, pending_signals=0, message_queue=-1)
    assert limits(walls, listens=True) == {"sigpending": 0}
    assert "Ulimits" not in host_config(Walls(max_open_files=0), listens=False)


def test_tmp_has_a_size_where_nothing_else_can_be_written() -> None:
    assert host_config(Walls(), listens=True)["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777"}
    assert host_config(Walls(tmp_mib=7), listens=True)["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=7m"}
    limited = host_config(Walls(tmp_mib=7, tmp_files=90), listens=True)["Tmpfs"]
    assert limited == {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=7m,nr_inodes=90"}
    assert host_config(Walls(tmp_files=90), listens=True)["Tmpfs"]["/tmp"].endswith("mode=1777,nr_inodes=90")
    assert "Tmpfs" not in host_config(Walls(tmp_mib=7), listens=False)
