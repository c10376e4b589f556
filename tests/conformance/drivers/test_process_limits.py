"""Limits of functions as processes, and what becomes of them when somebody removes the node's control groups."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs
from tests.support.driver_bench import Bench, make_bench, opened, spec, until

from hearth.drivers.base import ContainerSpec, DriverUnavailable, StartFailed
from hearth.drivers.local import driver
from hearth.drivers.local.driver import LocalDriver
from hearth.drivers.local.surroundings import Walls
from hearth.host import cgroups
from hearth.models.function_network import FunctionNetwork
from hearth.nodes import open_node
from hearth.nodes.drivers import process_walls
from hearth.settings import load

MOUNT = Path("/sys/fs/cgroup")
NODE = f"test-{os.getpid()}"


@contextlib.asynccontextmanager
async def walled_by(tmp_path: Path, walls: Walls) -> AsyncIterator[Bench]:
    bench = make_bench("process", tmp_path)
    bench.driver = LocalDriver(tmp_path / "bundles", NODE, walls=walls)
    async with opened(bench):
        yield bench


def groups_of(container_id: str, resource: str) -> Path:
    """Return the group of a container. Groups of other tests come and go beside it."""
    trees = (MOUNT / resource, MOUNT)
    return next(path for tree in trees if (path := tree / "hearth" / NODE / container_id).is_dir())


def throttled(folder: Path) -> int:
    fields = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    return int(fields["nr_throttled"])


async def test_cpu_is_limited(tmp_path: Path) -> None:
    async with walled_by(tmp_path, Walls()) as bench:
        if not bench.driver.capabilities.limits_cpu:
            pytest.skip("no cpu control group here")
        for cpu_milli in (1, 50, 1500):
            container = await bench.driver.prepare(cpu_spec(bench, cpu_milli))
            bench.made.append(container)
            await container.start()
            folder = groups_of(container.id, "cpu")
            quota, period = cgroups.cpu_quota(cpu_milli)
            assert quota / period == cpu_milli / 1000
            if (folder / "cpu.cfs_quota_us").exists():
                assert int((folder / "cpu.cfs_quota_us").read_text()) == quota
                assert int((folder / "cpu.cfs_period_us").read_text()) == period
            if cpu_milli == 50:
                await until(lambda folder=folder: throttled(folder) > 0)  # type: ignore[misc]
            await container.remove()


def cpu_spec(bench: Bench, cpu_milli: int) -> ContainerSpec:
    return dataclasses.replace(spec(bench.image, "burn"), cpu_milli=cpu_milli)


async def test_processes_and_open_files_are_limited_as_the_operator_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_MAX_PIDS", "10")
    monkeypatch.setenv("FN_MAX_OPEN_FILES", "100")
    async with walled_by(tmp_path, process_walls(load(data_dir=tmp_path))) as bench:
        bomb = await bench.start("fork-bomb")
        assert int(await bomb.channel.stdout.read()) < 10
        bomb = await bench.start("descriptor-bomb")
        assert 50 < int(await bomb.channel.stdout.read()) < 100


async def test_no_limit_is_none(tmp_path: Path) -> None:
    async with walled_by(tmp_path, Walls(max_pids=0)) as bench:
        bomb = await bench.start("fork-bomb", memory_mib=2048)
        assert int(await bomb.channel.stdout.read()) == 300


async def test_removed_control_groups_are_made_again(tmp_path: Path) -> None:
    async with walled_by(tmp_path, Walls()) as bench:
        if not bench.driver.capabilities.limits_memory:
            pytest.skip("no control groups here")
        for folder in [tree / "hearth" / NODE for tree in (MOUNT, *MOUNT.iterdir())]:
            if folder.is_dir():
                folder.rmdir()
        container = await bench.start("echo")
        await container.channel.stdin.write(b"alive")
        assert await container.channel.stdout.read() == b"alive"
        assert groups_of(container.id, "memory").is_dir()
        await bench.driver.check()


async def test_a_node_is_not_ready_while_control_groups_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "groups"
    monkeypatch.setattr(cgroups, "find", lambda node, **more: cgroups.Groups({"memory": place / "node"}, 1))
    (place / "node").mkdir(parents=True)
    async with walled_by(tmp_path, Walls()) as bench:
        await bench.driver.check()
        (place / "node").rmdir()
        place.rmdir()
        place.touch()
        with pytest.raises(DriverUnavailable, match=r"no control group can be made: .*Not a directory"):
            await bench.driver.check()
        with pytest.raises(StartFailed, match="control group"):
            await bench.prepare("echo")
        place.unlink()
        await bench.driver.check()
        assert (place / "node").is_dir()


async def test_the_readiness_of_a_node_tells_that_control_groups_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "groups"
    (place / "node").mkdir(parents=True)
    monkeypatch.setattr(cgroups, "find", lambda node, **more: cgroups.Groups({"memory": place / "node"}, 1))
    wanted = load(data_dir=tmp_path / "data", driver="process", sandbox="off")
    async with open_node(wanted, 0) as node:
        transport = httpx.ASGITransport(node.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:

            async def reason() -> str:
                return str((await http.get("/readyz")).json()["driver"])

            assert await reason() == "ok"
            (place / "node").rmdir()
            place.rmdir()
            place.touch()
            while (told := await reason()) == "ok":  # an answer is true for a second
                await asyncio.sleep(0.01)
            assert told.startswith("no control group can be made: ")
            assert (await http.get("/readyz")).status_code == 503


@pytest.mark.parametrize(
    ("resources", "counted", "told"),
    [
        ((), False, {"memory", "processes", "CPU"}),
        ((), True, {"memory", "CPU"}),
        (("memory",), False, {"processes", "CPU"}),
        (("memory", "pids", "cpu"), False, set()),
    ],
)
async def test_limits_that_are_missing_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: tuple[str, ...], counted: bool, told: set[str]
) -> None:
    """In imitations of control groups, and on kernels that do or do not count processes in a sandbox."""
    if counted and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    roots = {name: tmp_path / "groups" / name for name in resources}
    for root in roots.values():
        root.mkdir(parents=True)
    monkeypatch.setattr(cgroups, "find", lambda node, **more: cgroups.Groups(roots, 1) if roots else None)
    monkeypatch.setattr(driver, "counts_in_namespaces", lambda: counted)
    with capture_logs() as logs:
        async with walled_by(tmp_path, Walls(network=FunctionNetwork.HOST if counted else None)) as bench:
            warnings = [text for text in bench.driver.warnings if "limited" in text]
    assert {text.split()[0] for text in warnings} == told
    assert {entry["event"] for entry in logs} >= set(warnings)


async def test_cpus_without_its_control_group_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find", lambda node, **more: None)
    async with walled_by(tmp_path, Walls()) as bench:
        assert not bench.driver.capabilities.limits_cpu
        with capture_logs() as logs:
            container = await bench.driver.prepare(cpu_spec(bench, 50))
            bench.made.append(container)
        (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
        assert (warning["event"], warning["image"]) == (
            "CPU of a function is not limited: no writable cpu control group",
            bench.image,
        )


def test_version_2_is_used_at_its_top_or_where_it_was_delegated(tmp_path: Path) -> None:
    mount, proc = tmp_path / "mount", tmp_path / "proc"
    own = mount / "user.slice" / "hearth.scope"
    own.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/user.slice/hearth.scope\n")
    (mount / "cgroup.controllers").write_text("cpu memory pids")
    (own / "cgroup.procs").write_text("17 18")
    found = cgroups.find("node", mount, proc)
    assert found is not None
    assert (found.version, found.limits_pids, found.limits_cpu) == (2, True, True)
    assert (mount / "hearth" / "node").is_dir()

    (mount / "hearth" / "node" / "cgroup.subtree_control").unlink()
    (mount / "hearth" / "node").rmdir()
    (mount / "hearth" / "cgroup.subtree_control").unlink()
    (mount / "hearth").rmdir()
    (mount / "hearth").touch()  # nothing can be made there, as by an ordinary user
    assert cgroups.find("node", mount, proc) is not None
    assert (own / "hearth" / "node").is_dir()
    moved = (own / "hearth-server" / "cgroup.procs").read_text()
    assert moved == "18", "no process is left where groups are controlled"


def test_version_1_beside_an_empty_version_2_is_used(tmp_path: Path) -> None:
    for name in ("memory", "pids", "cpu", "unified"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "memory" / "memory.limit_in_bytes").touch()
    (tmp_path / "unified" / "cgroup.controllers").touch()
    found = cgroups.find("node", tmp_path)
    assert found is not None
    assert (found.version, found.limits_pids) == (1, True)
    assert not found.limits_cpu, "this kernel has no quotas"


async def test_two_groups_of_one_name_are_refused(tmp_path: Path) -> None:
    groups = await asyncio.to_thread(cgroups.find, f"{NODE}-twice")
    if groups is None:
        pytest.skip("no control groups here")
    first = groups.make("one", 64, 10)
    with pytest.raises(OSError, match="exists"):
        groups.make("one", 64, 10)
    first.remove()
    groups.close()
