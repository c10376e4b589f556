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
    FindLogin,
    ImageError,
    ImageNotFound,
    ImageRefused,
    OutOfTime,
    PhaseLimits,
)
from hearth.drivers.docker import private_images
from hearth.drivers.docker.driver import DockerDriver
from hearth.images.registry.credentials import Credentials
from hearth.models.errors import SecretUnreadable
from hearth.models.ids import encode
from hearth.models.registry_login import RegistryLogin

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


def spec(image: str, find_login: FindLogin | None = None) -> ContainerSpec:
    return ContainerSpec(id=encode(next(_numbers)), image=image, env={}, memory_mib=64, find_login=find_login)


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


async def test_a_pulled_image_is_known_by_the_digest_of_its_registry(registry: Registry, drivers) -> None:
    driver = drivers()
    await driver.open()
    image = f"{registry.host}/tiny:1"
    assert await driver.resolve(image) == ""
    container = await driver.prepare(spec(image))
    assert await driver.digest_of(container) == await driver.resolve(image) == registry.digest
    await container.remove()
    engine = aiodocker.Docker(url=HOST)
    await engine.images.tag(image, repo=f"{registry.host}/local", tag="1")  # pushed nowhere
    await engine.close()
    assert await driver.resolve(f"{registry.host}/local:1") == ""
    assert await driver.resolve("no image at all") == ""


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
    loop, asked = asyncio.get_running_loop(), list[float]()

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


async def test_a_registry_that_is_not_listed_is_not_asked_by_the_engine(registry: Registry, drivers) -> None:
    error = await failure(drivers(registries=["docker.io"]), f"{registry.host}/of/another:1")
    assert isinstance(error, ImageRefused)
    assert error.status == 403
    assert "FN_IMAGE_REGISTRIES" in error.reason
    assert registry.requests == []
    driver = drivers(registries=[registry.host])
    await driver.open()
    await (await driver.prepare(spec(f"{registry.host}/of/this:1"))).remove()


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


class App:
    """An app with a login, or without one; notes for which registries it was asked.

    Attributes:
        asked: The registries, in order.
    """

    def __init__(self, *login: str) -> None:
        self.login = RegistryLogin(*login) if login else None
        self.asked: list[str] = []

    async def find(self, registry: str) -> RegistryLogin | None:
        self.asked.append(registry)
        return self.login


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


async def test_an_image_is_pulled_with_the_login_of_its_app_and_not_with_that_of_the_node(
    registry: Registry, drivers
) -> None:
    registry.script = login_wanted
    driver, app = drivers(credentials=Credentials(auths(registry.host))), App("app", "its-pass-w0rd")
    await driver.open()
    with capture_logs() as logs:
        await (await driver.prepare(spec(f"{registry.host}/of-app:1", app.find))).remove()
    pulled, asked = basic("app:its-pass-w0rd"), basic("me:se:cret")
    told = registry.authorizations
    assert told == [pulled] * told.count(pulled) + [asked] * told.count(asked), "last, whether every app may have it"
    assert {pulled, asked} == set(told)
    assert "its-pass-w0rd" not in str(logs)
    before = len(registry.requests)
    await (await driver.prepare(spec(f"{registry.host}/of-app:1", app.find))).remove()
    assert len(registry.requests) == before, "an image that is here is not pulled"
    assert set(app.asked) == {registry.host}


async def test_an_app_without_a_login_gets_that_of_the_node(registry: Registry, drivers) -> None:
    registry.script = login_wanted
    driver, app = drivers(credentials=Credentials(auths(registry.host))), App()
    await driver.open()
    await (await driver.prepare(spec(f"{registry.host}/of-node:1", app.find))).remove()
    assert set(registry.authorizations) == {basic("me:se:cret")}


async def test_apps_that_pull_one_image_at_once_use_their_own_logins(registry: Registry, drivers) -> None:
    def of_good(request: web.Request) -> web.Response | None:
        return None if request.headers.get("Authorization") == basic("good:1") else login_wanted_again()

    def login_wanted_again() -> web.Response:
        return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="test"'})

    registry.script = of_good
    driver = drivers()
    await driver.open()
    image = f"{registry.host}/shared-private:1"
    found = await asyncio.gather(
        driver.prepare(spec(image, App("bad", "pass-w0rd").find)),
        driver.prepare(spec(image, App().find)),
        return_exceptions=True,
    )
    assert [type(error) for error in found] == [ImageRefused, ImageRefused]
    assert "pass-w0rd" not in f"{found!r}"
    await (await driver.prepare(spec(image, App("good", "1").find))).remove()
    assert set(registry.authorizations) == {basic("bad:pass-w0rd"), basic("good:1")}


async def test_a_login_that_cannot_be_read_is_not_replaced_by_that_of_the_node(registry: Registry, drivers) -> None:
    async def unreadable(registry: str) -> RegistryLogin | None:
        raise SecretUnreadable("app", "registry:x", "this node does not have its key")

    registry.script = login_wanted
    driver = drivers(credentials=Credentials(auths(registry.host)))
    await driver.open()
    with pytest.raises(ImageError, match=f"the app's login at {registry.host} cannot be read"):
        await driver.prepare(spec(f"{registry.host}/unreadable:1", unreadable))
    assert registry.requests == []


def opens(*logins: str) -> Callable[[web.Request], web.Response | None]:
    """Let the registry serve these logins only."""
    wanted = {basic(login) for login in logins}

    def answer(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") in wanted:
            return None
        return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="test"'})

    return answer


async def image_id(name: str) -> str:
    async with aiodocker.Docker(url=HOST) as engine:
        return str((await engine.images.inspect(name))["Id"])


async def made(driver: DockerDriver, image: str, app: App) -> None:
    await (await driver.prepare(spec(image, app.find))).remove()


async def refused(driver: DockerDriver, image: str, app: App) -> None:
    with pytest.raises(ImageRefused) as failed:
        await driver.prepare(spec(image, app.find))
    assert failed.value.status == 401


async def test_an_image_that_the_login_of_one_app_opened_is_run_by_those_only_who_may_pull_it(
    registry: Registry, drivers
) -> None:
    """By its tag, its digest, and its id under any name."""
    registry.script = opens("a:1", "b:2")
    driver = drivers()
    await driver.open()
    image = f"{registry.host}/of-a:1"
    await made(driver, image, App("a", "1"))
    by_id = f"{registry.host}/anything@{await image_id(image)}"
    for name in (image, f"{registry.host}/of-a@{registry.digest}", by_id):
        for stranger in (App(), App("a", "wrong"), App("x", "1")):
            await refused(driver, name, stranger)
        await made(driver, name, App("a", "1"))
        await made(driver, name, App("b", "2"))
    assert await leftovers() == []


async def test_who_may_pull_a_private_image_is_asked_again_after_a_while(
    registry: Registry, drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.script = opens("a:1", "b:2")
    driver = drivers()
    await driver.open()
    image = f"{registry.host}/asked:1"
    await made(driver, image, App("a", "1"))
    await made(driver, image, App("b", "2"))
    asked = registry.fetches
    await made(driver, image, App("b", "2"))
    assert registry.fetches == asked, "a proof holds"
    registry.script = opens("a:1")
    monkeypatch.setattr(private_images, "PROOF_S", 0.0)
    await refused(driver, image, App("b", "2"))
    registry.script = lambda request: web.Response(status=500)
    await made(driver, image, App("a", "1"))  # the registry is away: the earlier proof holds
    with pytest.raises(ImageError, match="cannot check the app's right to it at"):
        await driver.prepare(spec(image, App("b", "2").find))


async def test_what_every_app_may_pull_runs_without_a_question(registry: Registry, drivers) -> None:
    driver = drivers()
    await driver.open()
    image = f"{registry.host}/open:1"
    await made(driver, image, App("a", "1"))
    registry.script = lambda request: web.Response(status=500)
    asked = len(registry.requests)
    for app in (App(), App("b", "2")):
        await made(driver, image, app)
    assert len(registry.requests) == asked


async def test_a_restart_forgets_no_private_image(registry: Registry, drivers, tmp_path: Path) -> None:
    registry.script = opens("a:1")
    notes = tmp_path / "data" / "private-images"
    first = drivers(notes=notes)
    await first.open()
    image = f"{registry.host}/kept:1"
    await made(first, image, App("a", "1"))
    await first.close()
    assert [file.stat().st_mode & 0o777 for file in notes.iterdir()] == [0o600]
    second = drivers(notes=notes)
    await second.open()
    await refused(second, image, App())
    await made(second, image, App("a", "1"))


async def test_no_app_gets_a_private_image_while_another_pulls_it(registry: Registry, drivers) -> None:
    """The image is there before it is noted that it is private."""
    registry.script = opens("a:1")
    registry.holds = lambda request: request.path == "/v2/" and any("/manifests/" in one for one in registry.requests)
    driver = drivers()
    await driver.open()
    image = f"{registry.host}/in-flight:1"
    pulling = asyncio.ensure_future(made(driver, image, App("a", "1")))
    await registry.held.wait()
    other = asyncio.ensure_future(driver.prepare(spec(image, App().find)))
    done, _ = await asyncio.wait([other], timeout=2)
    assert not done
    registry.release()
    with pytest.raises(ImageRefused):
        await other
    await pulling


async def leftovers() -> list[str]:
    """The containers of this test, once removals have had their time."""
    async with aiodocker.Docker(url=HOST) as engine:
        filters = {"label": [f"hearth.node=registry-{os.getpid()}"]}
        found = [one.id for one in await engine.containers.list(all=True, filters=filters)]
        async with asyncio.timeout(60):
            while found:
                await asyncio.sleep(0.1)
                found = [one.id for one in await engine.containers.list(all=True, filters=filters)]
    return found
