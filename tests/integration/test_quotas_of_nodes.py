"""Calls of apps with quotas, through a node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from tests.support.extended import Extended, extended_node


async def limit(on: Extended, **quotas: int | None) -> None:
    answer = await on.http.patch("/v1/apps/a", json={"app": {"quotas": quotas}})
    assert answer.status_code == 200, answer.text


def told(answer: httpx.Response) -> tuple[int, str, str | None]:
    return answer.status_code, answer.json()["error"]["message"], answer.headers.get("retry-after")


@contextlib.asynccontextmanager
async def running(on: Extended, path: str, count: int = 1) -> AsyncIterator[None]:
    """Calls that run, until the block is left."""
    calls = [asyncio.ensure_future(on.http.post(path, json={"sleep": 60})) for _ in range(count)]
    while (await on.http.get("/stats")).json()["Running"] < count:
        await asyncio.sleep(0.001)
    yield
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_beyond_those_in_progress_are_refused_until_one_ends(tmp_path: Path) -> None:
    async with extended_node(tmp_path) as on:
        path, other = await on.route(), await on.route(path="g")
        neighbour = await on.route(app="b")
        await limit(on, concurrent_calls=2)
        async with running(on, path, 2):
            for one in (path, other):
                expected = (429, "App a exceeds its quota concurrent_calls (2)", "1")
                assert told(await on.http.post(one, json={})) == expected
            assert (await on.http.post(neighbour, json={})).status_code == 200
        while (answer := await on.http.post(other, json={})).status_code == 429:
            await asyncio.sleep(0.001)
        assert answer.status_code == 200
        metrics = (await on.http.get("/metrics")).text
        assert 'hearth_quota_refusals_concurrent_calls{fn_appname="a",fn_path=""}' in metrics


async def test_calls_beyond_the_rate_are_refused_sync_and_async_alike(tmp_path: Path) -> None:
    async with extended_node(tmp_path) as on:
        paths = [await on.route(), await on.route(path="later", type="async")]
        for path, status in zip(paths, (200, 202), strict=True):
            await limit(on, calls_per_second=1, burst=2)
            answers = [await on.http.post(path, json={}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [status, status, 429]
            assert told(answers[2]) == (429, "App a exceeds its quota calls_per_second (1)", "1")
            await limit(on, calls_per_second=None, burst=None)
            assert (await on.http.post(path, json={})).status_code == status


async def test_the_calls_of_an_app_with_lifted_quotas_are_all_served(tmp_path: Path) -> None:
    async with extended_node(tmp_path, quota_calls_per_second=1, quota_burst=1) as on:
        path, other = await on.route(), await on.route(app="b")
        await limit(on, calls_per_second=0)
        assert [(await on.http.post(path, json={})).status_code for _ in range(4)] == [200] * 4
        assert [(await on.http.post(other, json={})).status_code for _ in range(2)] == [200, 429]


async def test_bodies_beyond_the_quota_are_refused(tmp_path: Path) -> None:
    async with extended_node(tmp_path) as on:
        path = await on.route(format="http")

        async def chunked(size: int) -> AsyncIterator[bytes]:
            for _ in range(size):
                yield b" "

        await limit(on, request_bytes=10)
        text = "App a exceeds its quota request_bytes (10) with a body of 11 bytes or more"
        assert told(await on.http.post(path, content=b" " * 11)) == (413, text, None)
        assert told(await on.http.post(path, content=chunked(12))) == (413, text, None)
        await limit(on, request_bytes=0)
        json_path = await on.route()
        assert (await on.http.post(json_path, content=b"{}" + b" " * 50)).status_code == 200


async def test_accepted_calls_beyond_the_quota_are_refused_at_acceptance_and_none_is_lost(tmp_path: Path) -> None:
    async with extended_node(tmp_path, quota_queued_calls=100) as on:
        path = await on.route(path="later", type="async")
        sync = await on.route()
        await limit(on, queued_calls=3, concurrent_calls=1)
        async with running(on, sync):  # keeps accepted calls of the app waiting
            answers = [await on.http.post(path, json={}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        assert told(answers[3]) == (429, "App a exceeds its quota queued_calls (3)", "1")
        for answer in answers[:3]:
            record = await on.record(answer)
            assert record["status"] == "success"
