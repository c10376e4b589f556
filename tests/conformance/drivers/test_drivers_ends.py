"""How a container ends, and what is told of it (drivers specification 4)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.driver_bench import Bench

from hearth.drivers.base import Exit, StreamClosed


@pytest.mark.parametrize(("probe", "code"), [("exit-0", 0), ("exit-3", 3), ("mute-exit-3", 3), ("segfault", 139)])
async def test_ends_are_told_apart(bench: Bench, probe: str, code: int) -> None:
    container = await bench.start(probe)
    seen: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    container.on_exit(seen.set_result)
    waiting = [asyncio.ensure_future(container.wait()) for _ in range(3)]
    waiting.pop().cancel()
    ended = await container.wait()
    assert (ended.code, ended.oom) == (code, False)
    assert await asyncio.gather(*waiting) == [ended, ended]
    assert await seen == ended == container.exited


async def test_a_function_may_kill_itself(bench: Bench) -> None:
    ended = await (await bench.start("suicide")).wait()
    assert (ended.code, ended.oom) == (137, False)


async def test_a_kill_from_outside_is_no_lack_of_memory(bench: Bench) -> None:
    container = await bench.start("echo")
    await container.channel.stdin.write(b"x")
    assert await container.channel.stdout.read() == b"x"
    bench.harm(container)
    ended = await container.wait()
    assert (ended.code, ended.oom) == (137, False)
    assert await container.channel.stdout.read() == b""
    with pytest.raises(StreamClosed):
        await container.channel.stdin.write(b"x")


async def test_a_kill_of_ours_is_no_lack_of_memory(bench: Bench) -> None:
    container = await bench.start("sleep")
    await container.kill()
    ended = await container.wait()
    assert (ended.code, ended.oom) == (137, False)


async def test_memory_beyond_the_limit_is_told(bench: Bench) -> None:
    if bench.image == "probe":
        pytest.skip("the fake has no memory")
    container = await bench.start("allocate", memory_mib=64)
    ended = await container.wait()
    assert ended.code != 0
    assert ended.oom == bench.driver.capabilities.limits_memory


async def test_an_end_is_told_although_a_child_holds_the_output_open(bench: Bench) -> None:
    if bench.image == "probe":
        pytest.skip("the fake has no children")
    container = await bench.start("heir")
    assert await container.channel.stdout.read() == b"gone"
    assert (await container.wait()).code == 0
    assert await container.channel.stdout.read() == b""


async def test_who_asks_late_hears_of_the_end_too(bench: Bench) -> None:
    container = await bench.start("exit-3")
    ended = await container.wait()
    seen: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    container.on_exit(seen.set_result)
    assert not seen.done()
    assert await seen == ended == await container.wait()


async def test_the_environment_is_exact(bench: Bench) -> None:
    env: dict[str, Any] = {
        "NL": "a\nb\n",
        "EQ": "=a=b=",
        "UNI": "grüße ☃",
        "LONG": "x" * 100 * 1024,
        "EMPTY": "",
        "SHELL_TALK": "$HOME `id` \"'\\",
        "FN_HEADER_X-Id": "7",
        "FN_HEADER_A.b": "8",
    }
    container = await bench.start("env", **env)
    chunks = []
    while chunk := await container.channel.stdout.read():
        chunks.append(chunk)
    got = json.loads(b"".join(chunks))
    assert {name: got.get(name) for name in env} == env
    assert not [name for name in got if name.startswith("HEARTH_")]
