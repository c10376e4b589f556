"""The life of the networks of apps: shared, given up when idle, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.support.clock import FakeClock

from hearth.drivers.local.network import addresses, apps, namespace
from hearth.drivers.local.network.apps import AppNetworks
from hearth.drivers.local.network.namespace import NetworkFailed, Tools


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextlib.asynccontextmanager
async def opened(clock: FakeClock) -> AsyncIterator[AppNetworks]:
    if os.geteuid() != 0 or shutil.which("slirp4netns") is None:
        pytest.skip("networks of a test need root and slirp4netns")
    before = descriptors()
    networks = AppNetworks((), clock)
    try:
        await networks.open()
        yield networks
    finally:
        await networks.close()
    assert helpers() == []
    assert descriptors() <= before


def descriptors() -> set[tuple[str, str]]:
    """Those of this process, with what each leads to; others than ours may be closed at any time."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


def helpers() -> list[int]:
    """The children of this process that are helpers."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "slirp4netns\n":
                    found.append(int(pid))
    return found


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(60):
        while set(pids) & set(helpers()):
            await asyncio.sleep(0.01)


async def test_containers_of_one_app_share_a_network_and_those_of_two_do_not(clock: FakeClock) -> None:
    async with opened(clock) as networks:
        first, second, other = await asyncio.gather(*[networks.acquire(app) for app in ("a", "a", "b")])
        assert first == second != other
        inodes = [os.stat(joined.network).st_ino for joined in (first, other)]
        assert inodes[0] != inodes[1] != os.stat("/proc/self/ns/net").st_ino


#: Makes a shared mount with another one below it, as a machine with systemd or an Engine has them, in a mount namespace
#: of the test's own; connects a network; tells whether the lower mount is still there.
CONNECT_BESIDE_SHARED_MOUNTS = """
import pathlib, subprocess, sys
from hearth.drivers.local.network import namespace
shared = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "--bind", shared, shared], check=True)
subprocess.run(["mount", "--make-shared", shared], check=True)
subprocess.run(["mount", "-t", "tmpfs", "lower", shared / "lower"], check=True)
tools = namespace.Tools.find()
network = namespace.make(tools, ())
namespace.start_helper(tools, network, ())
print("kept" if (shared / "lower").is_mount() else "lost")
"""


def test_a_network_leaves_the_mounts_of_the_machine_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("slirp4netns") is None:
        pytest.skip("networks of a test need root and slirp4netns")
    (tmp_path / "lower").mkdir()
    command = ["unshare", "--mount", "--propagation=private", sys.executable, "-c", CONNECT_BESIDE_SHARED_MOUNTS]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("kept\n", "")


async def test_an_idle_network_is_given_up_after_a_minute(clock: FakeClock) -> None:
    async with opened(clock) as networks:
        clock.advance(61)
        await gone(helpers())  # that of the trial
        await networks.acquire("a")
        await networks.acquire("a")
        (helper,) = helpers()
        networks.release("a")
        clock.advance(61)
        networks.release("a")
        clock.advance(59)
        await networks.acquire("a")
        clock.advance(61)
        assert helpers() == [helper]
        networks.release("a")
        clock.advance(61)
        await gone([helper])
        assert repr(networks) == "<AppNetworks 0>"


async def test_of_many_idle_networks_those_that_were_used_last_are_kept(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "MOST_IDLE", 2)
    async with opened(clock) as networks:
        (trial,) = helpers()
        await networks.acquire("used")
        for app in ("a", "b", "c"):
            await networks.acquire(app)
            networks.release(app)
        await gone([trial])
        assert repr(networks) == "<AppNetworks 3>"
        before = await settled(3)
        await networks.acquire("c")
        await networks.acquire("b")
        assert helpers() == before, "both are there still"


async def settled(count: int) -> list[int]:
    async with asyncio.timeout(60):
        while len(found := helpers()) != count:
            await asyncio.sleep(0.01)
    return found


async def test_a_network_outlives_a_lack_of_descriptors(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is given to containers to come: were it closed, the path would lead to whatever is opened next."""
    async with opened(clock) as networks:
        clock.advance(61)
        await settled(0)  # that of the trial is gone
        joined = await networks.acquire("a")
        inode = os.stat(joined.network).st_ino
        started = asyncio.Event()
        async with asyncio.timeout(60):
            with monkeypatch.context() as patched:
                patched.setattr(os, "pidfd_open", lambda pid: refuse(started))
                for pid in helpers():
                    os.kill(pid, signal.SIGKILL)
                while not started.is_set():
                    clock.advance(10)
                    await asyncio.sleep(0.01)
            while not helpers():
                clock.advance(10)
                await asyncio.sleep(0.01)
        assert os.stat(joined.network).st_ino == inode
        assert await networks.acquire("a") == joined


def refuse(started: asyncio.Event) -> int:
    started.set()
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_an_address_that_comes_while_another_one_is_looked_at_is_not_missed(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(clock) as networks:
        first, second = (f"198.51.100.{240 + 2 * (os.getpid() % 7) + number}/32" for number in (0, 1))
        looked = addresses.own

        def own(allowed: Sequence[addresses.Network]) -> frozenset[addresses.Network]:
            found = looked(allowed)
            if addresses.Network(second) not in found:
                change("add", second)
            return found

        monkeypatch.setattr(addresses, "own", own)
        try:
            change("add", first)
            async with asyncio.timeout(60):
                while not {addresses.Network(first), addresses.Network(second)} <= networks.own:
                    await asyncio.sleep(0.01)
        finally:
            change("delete", first)
            change("delete", second)


def change(verb: str, address: str) -> None:
    subprocess.run(["ip", "address", verb, address, "dev", "lo"], check=verb == "add", capture_output=True)


async def test_a_cancelled_wait_keeps_no_network(clock: FakeClock) -> None:
    async with opened(clock) as networks:
        waiting = asyncio.get_running_loop().create_task(networks.acquire("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        clock.advance(61)
        assert repr(networks) == "<AppNetworks 0>"


async def test_a_stop_ends_a_wait_for_a_network_that_is_being_made(clock: FakeClock) -> None:
    async with opened(clock) as networks:
        waiting = asyncio.get_running_loop().create_task(networks.acquire("a"))
        await asyncio.sleep(0)
        await networks.close()
        with pytest.raises(NetworkFailed):
            await waiting


async def test_a_failure_is_for_those_who_wait_and_the_next_one_tries_anew(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(clock) as networks:
        with monkeypatch.context() as patched:
            patched.setattr(networks, "tools", Tools("/bin/false", *map(str, ("/bin/false",) * 3)))
            failed = await asyncio.gather(*[networks.acquire("a") for _ in range(3)], return_exceptions=True)
        assert {type(failure) for failure in failed} == {NetworkFailed}
        assert (await networks.acquire("a")).network


@pytest.mark.parametrize("program", ["unshare", "slirp4netns"])
async def test_a_program_that_hangs_is_given_up(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    async with opened(clock) as networks:
        monkeypatch.setattr(namespace, "LIMIT_S", 0.5)
        tools = {name: getattr(networks.tools, name) for name in Tools.__slots__}
        monkeypatch.setattr(networks, "tools", Tools(**{**tools, program: str(hangs)}))
        with pytest.raises(NetworkFailed, match="no answer"):
            await networks.acquire("a")
