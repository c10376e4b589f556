"""Fetching images from registries that refuse, stumble, fall silent or want credentials."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiodocker
import pytest
from aiodocker.exceptions import DockerError
from aiohttp import web
from structlog.testing import capture_logs
from tests.support.registry import Registry, open_registry, refusal

from hearth.drivers.base import (
    ContainerSpec,
    DriverError,
    ImageError,
    ImageNotFound,
    ImageRefused,
    OutOfTime,
    PhaseLimits,
)
from hearth.drivers.docker.credentials import Credentials
from hearth.drivers.docker.driver import DockerDriver
from hearth.models.ids import encode

HOST = "unix:///var/run/docker.sock"
_numbers = itertools.count(os.getpid() << 32)


@pytest.fixture
async def registry(docker: None) -> AsyncIterator[Registry]:
    async with open_registry() as opened:
        yield opened
        engine = aiodocker.Docker(url=HOST)
        for image in await engine.images.list():
            for name in [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]:
                if name.startswith(f"{opened.host}/"):
                    with contextlib.suppress(DockerError):  # a digest goes with its last tag
                        await engine.images.delete(name, force=True)
        await engine.close()


@pytest.fixture
async def drivers() -> AsyncIterator[Callable[..., DockerDriver]]:
    made: list[DockerDriver] = []

    def make(**options: object) -> DockerDriver:
        made.append(DockerDriver(HOST, node=f"registry-{os.getpid()}", instance="now", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for driver in made:
        await driver.close()


def spec(image: str) -> ContainerSpec:
    return ContainerSpec(id=encode(next(_numbers)), image=image, env={}, memory_mib=64)


async def failure(driver: DockerDriver, image: str) -> DriverError:
    """How a container of this image fails to be made."""
    await driver.open()
    with pytest.raises(DriverError) as failed:
        await driver.prepare(spec(image))
    return failed.value


def on_manifests(answer: Callable[[], web.Response]) -> Callable[[web.Request], web.Response | None]:
    return lambda request: answer() if "/manifests/" in request.path else None


async def test_an_image_that_is_served_becomes_a_container(registry: Registry, drivers) -> None:
    driver = drivers()
    await driver.open()
    container = await driver.prepare(spec(f"{registry.host}/deep/er/tiny:1"))
    await container.remove()
    assert registry.fetches == 1
    assert "HEAD /v2/deep/er/tiny/manifests/1" in registry.requests


async def test_a_digest_is_fetched_as_it_is_pinned(registry: Registry, drivers) -> None:
    driver = drivers()
    await driver.open()
    container = await driver.prepare(spec(f"{registry.host}/tiny:whatever@{registry.digest}"))
    await container.remove()
    assert any(asked.endswith(f"/manifests/{registry.digest}") for asked in registry.requests)
    assert not any("whatever" in asked for asked in registry.requests)


async def test_many_who_want_one_image_share_one_fetch(registry: Registry, drivers) -> None:
    driver = drivers()
    await driver.open()
    containers = await asyncio.gather(*[driver.prepare(spec(f"{registry.host}/shared:1")) for _ in range(20)])
    await asyncio.gather(*[container.remove() for container in containers])
    assert registry.fetches == 1


async def test_the_first_to_leave_takes_nothing_from_the_others(registry: Registry, drivers) -> None:
    driver = drivers()
    await driver.open()
    registry.silent = True
    first = asyncio.ensure_future(driver.prepare(spec(f"{registry.host}/left:1")))
    await registry.asked.wait()
    second = asyncio.ensure_future(driver.prepare(spec(f"{registry.host}/left:1")))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    registry.release()
    await (await second).remove()
    assert registry.fetches == 1


async def test_a_missing_image_is_not_found_and_not_asked_for_again(registry: Registry, drivers) -> None:
    registry.serves = lambda name: False
    error = await failure(drivers(), f"{registry.host}/none:1")
    assert isinstance(error, ImageNotFound)
    assert registry.fetches == 1


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [(401, "UNAUTHORIZED", "authentication required"), (403, "DENIED", "requested access to the resource is denied")],
)
async def test_a_refusal_keeps_its_status(registry: Registry, drivers, status: int, code: str, text: str) -> None:
    registry.script = on_manifests(lambda: refusal(status, code, text))
    error = await failure(drivers(), f"{registry.host}/mine:1")
    assert isinstance(error, ImageRefused)
    assert error.status == status
    assert registry.fetches == 1


async def test_a_registry_that_asks_for_a_pause_gets_it_once_for_all(registry: Registry, drivers) -> None:
    loop, asked = asyncio.get_running_loop(), []

    def crowded(request: web.Request) -> web.Response | None:
        if "/manifests/" not in request.path or request.method != "GET":
            return None if asked[1:] or "/manifests/" not in request.path else web.Response(status=429)
        asked.append(loop.time())
        message = "slow down, retry-after: 700ms"
        return refusal(429, "TOOMANYREQUESTS", message, {"Retry-After": "1"}) if len(asked) == 1 else None

    registry.script = crowded
    driver = drivers()
    await driver.open()
    containers = await asyncio.gather(*[driver.prepare(spec(f"{registry.host}/busy:1")) for _ in range(5)])
    await asyncio.gather(*[container.remove() for container in containers])
    assert asked[1] - asked[0] >= 0.7  # nobody asked in between; how often an Engine asks afterwards is its own affair


async def test_a_registry_that_stumbles_is_asked_again(registry: Registry, drivers) -> None:
    failures = iter([True] * 4)
    registry.script = on_manifests(lambda: web.Response(status=500) if next(failures, False) else None)  # type: ignore[arg-type,return-value]
    driver = drivers()
    await driver.open()
    with capture_logs() as logs:
        container = await driver.prepare(spec(f"{registry.host}/stumbles:1"))
    await container.remove()
    retries = [entry for entry in logs if entry["event"] == "docker temporary error, retrying"]
    assert [entry["docker_call_retries"] for entry in retries] == [1, 2]  # each try asks twice: HEAD, then GET


async def test_a_silent_registry_costs_the_limit_of_a_pull(registry: Registry, drivers) -> None:
    registry.silent = True
    error = await failure(drivers(limits=PhaseLimits(pull_s=1.0)), f"{registry.host}/silent:1")
    assert isinstance(error, OutOfTime)
    assert error.phase == "pull"


async def test_a_registry_that_is_not_there_is_named(docker: None, drivers) -> None:
    error = await failure(drivers(), "127.0.0.1:1/none:1")
    assert isinstance(error, ImageError)
    assert error.status == 502
    assert "127.0.0.1:1" in error.reason
    assert "connection refused" in error.reason


@pytest.mark.parametrize("image", ["UPPER", "a:b:c", "a@sha256:1", "x/../y", "", "-h.example/a"])
async def test_what_is_no_reference_reaches_no_registry(docker: None, drivers, image: str) -> None:
    assert isinstance(await failure(drivers(), image), ImageError)


def login_wanted(request: web.Request) -> web.Response | None:
    if "Authorization" in request.headers:
        return None
    return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="test"'})


def auths(address: str) -> str:
    secret = base64.b64encode(b"me:se:cret").decode()
    return json.dumps({"auths": {address: {"auth": secret}}})


@pytest.mark.parametrize("form", ["{}", "http://{}", "https://{}/v2/", "{}/v1", "{}/"])
async def test_credentials_open_their_registry(registry: Registry, drivers, form: str) -> None:
    registry.script = login_wanted
    driver = drivers(credentials=Credentials(auths(form.format(registry.host))))
    await driver.open()
    with capture_logs() as logs:
        container = await driver.prepare(spec(f"{registry.host}/private:1"))
    await container.remove()
    assert set(registry.authorizations) == {"Basic " + base64.b64encode(b"me:se:cret").decode()}
    assert "cret" not in str(logs)


@pytest.mark.parametrize(
    "form", ["1{}", "{}0", "x.{}", "{}.example", "127.0.0.1", "localhost:{port}", "https://{}/team", "user@{}", "{}:1"]
)
async def test_a_registry_that_looks_alike_gets_no_credentials(registry: Registry, drivers, form: str) -> None:
    registry.script = login_wanted
    address = form.format(registry.host, port=registry.port)
    error = await failure(drivers(credentials=Credentials(auths(address))), f"{registry.host}/private:1")
    assert isinstance(error, ImageRefused)
    assert error.status == 401
    assert registry.authorizations == []


async def test_a_credential_helper_is_asked(
    registry: Registry, drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.script = login_wanted
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread -r server\necho "{\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
    driver = drivers(credentials=Credentials(files=(file,)))
    await driver.open()
    await (await driver.prepare(spec(f"{registry.host}/helped:1"))).remove()
    expected = base64.b64encode(f"{registry.host}:s".encode()).decode()
    assert set(registry.authorizations) == {f"Basic {expected}"}
