"""Pulls from registries: those that answer well, and those that refuse, lie, break off or say nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from tests.support.clock import Hasty
from tests.support.layers import archive, entry, put_image
from tests.support.registry import Registry, open_registry, refusal
from tests.support.tls import Authority

from hearth.drivers.base import ContainerSpec, DriverError, ImageError, ImageRefused, OutOfTime, PhaseLimits
from hearth.drivers.local import stored
from hearth.drivers.local.driver import LocalDriver
from hearth.host import machine
from hearth.images.documents import MANIFEST_TYPE, Descriptor, Index, Manifest, Platform, encode
from hearth.images.layout import Fault, ImageStore
from hearth.images.registry.client import new_session
from hearth.images.registry.credentials import Credentials
from hearth.images.unpack import Limits
from hearth.models.registry_login import RegistryLogin

SIZE = 3_000_000
#: JSON that no reader follows to its end.
DEEP = b'{"x":' * 20_000
_threads = ThreadPoolExecutor(1)
HOST_IMAGE: dict[str, Any] = {"entrypoint": ["cat"], "labels": {"io.hearth.base": "host"}}
T = TypeVar("T")
#: Answers a request in place of the registry, or leaves it to it.
Spoil = Callable[[web.Request], "web.StreamResponse | None"]


def apart(work: Callable[[], T]) -> T:
    """Do something that blocks, in a thread without an event loop."""
    return _threads.submit(work).result()


class World:
    """A registry with one image, and a node that has none.

    Attributes:
        origin: The store behind the registry.
        tags: What it serves as which tag: a digest.
        spoil: Looks at each request first.
    """

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.folder = folder
        self.bundles = folder / "node" / "bundles"
        self.store = ImageStore(folder / "node" / "images")
        self.origin = ImageStore(folder / "origin")
        apart(self.origin.make)
        self.tags: dict[str, str] = {}
        self.spoil: Spoil = lambda request: None
        self.sent = 0
        registry.script = self._answer

    @property
    def image(self) -> str:
        return f"{self.registry.host}/shop/f:1"

    def offer(self, *archives: bytes, **fields: Any) -> str:
        """Serve an image with these layers as the tag 1; its digest."""
        layers = archives or (archive(entry("function/f", os.urandom(SIZE))),)
        self.tags["1"] = apart(lambda: put_image(self.origin, layers, **{**HOST_IMAGE, **fields}))
        return self.tags["1"]

    def offer_document(self, document: Manifest | Index | dict[str, Any]) -> str:
        """Serve a manifest of one's own making as the tag 1; its digest."""
        data = json.dumps(document).encode() if isinstance(document, dict) else encode(document)
        self.tags["1"] = apart(lambda: self.origin.blobs.add(data))
        return self.tags["1"]

    def driver(
        self, *, pull_s: float = 60.0, most_bytes: int = 1 << 30, auth: str = "", registries: Sequence[str] = ()
    ) -> LocalDriver:
        return LocalDriver(
            self.bundles,
            "test",
            limits=PhaseLimits(pull_s=pull_s),
            image_limits=Limits(bytes=most_bytes),
            clock=Hasty(),
            credentials=Credentials(auth),
            registries=registries,
        )

    def wants(self, image: str = "", login: RegistryLogin | None = None) -> ContainerSpec:
        async def find(registry: str) -> RegistryLogin | None:
            assert registry == self.registry.host
            return login

        return ContainerSpec(id="c", image=image or self.image, env={}, memory_mib=1, find_login=find)

    async def pulled(self, image: str = "", **options: Any) -> str:
        """Pull an image; what its reference means in the store."""
        driver = self.driver(**options)
        await driver.get_image(self.wants(image))
        await driver.close()
        return apart(lambda: stored.digest(self.bundles, image or self.image) or "")

    async def fails(self, **options: Any) -> DriverError:
        """Pull an image in vain; the error that calls see. Nothing of it is left."""
        driver = self.driver(**options)
        with pytest.raises(DriverError) as caught:
            await driver.get_image(self.wants())
        await driver.close()
        assert [entry.name for entry in apart(self.store.entries) if entry.name] == []
        assert apart(self.faults) == []
        assert not self.store.blobs.uploads.exists() or os.listdir(self.store.blobs.uploads) == []
        assert self.image in str(caught.value)
        return caught.value

    def faults(self) -> list[Fault]:
        return list(self.store.verify())

    def asked(self, part: str) -> int:
        return sum(part in request for request in self.registry.requests)

    def _answer(self, request: web.Request) -> web.StreamResponse:
        if (spoilt := self.spoil(request)) is not None:
            return spoilt
        kind, name = request.path.split("/")[-2:]
        if kind == "manifests":
            digest = self.tags.get(name, name)
            data = apart(lambda: self.origin.blobs.read_document(digest))
            stated = json.loads(data).get("mediaType") or MANIFEST_TYPE
            return web.Response(body=data, headers={"Content-Type": stated, "Docker-Content-Digest": digest})
        data = self.origin.blobs.path(name).read_bytes()
        first = request.http_range.start or 0
        self.sent += len(data) - first
        return web.Response(body=data[first:], status=206 if first else 200)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_registry() as registry:
        yield World(registry, tmp_path)


def only(part: str, answer: Callable[[], web.StreamResponse | None]) -> Spoil:
    """Spoils requests with this part in their path."""
    return lambda request: answer() if part in request.path else None


def once(spoil: Spoil) -> Spoil:
    """Spoils the first of the requests that it would spoil."""
    left = [spoil]
    return lambda request: left.pop()(request) if left and spoil(request) is not None else None


# -- what works -------------------------------------------------------------------------------------------------------


async def test_an_image_is_pulled_by_tag_and_by_digest(world: World) -> None:
    digest = world.offer()
    assert await world.pulled() == digest
    found = apart(lambda: stored.find(world.bundles, world.image))
    assert found is not None
    assert (found.files / "f").stat().st_size == SIZE
    before = len(world.registry.requests)
    await world.pulled(f"{world.image}@{digest}")  # here: nobody is asked
    assert len(world.registry.requests) == before
    assert apart(world.faults) == []


async def test_one_pull_serves_all_that_wait(world: World) -> None:
    world.offer()
    driver = world.driver()
    await asyncio.gather(*[driver.get_image(world.wants()) for _ in range(10)])
    await driver.close()
    assert world.asked("manifests") == 1
    assert world.asked("blobs") == 2


async def test_only_blobs_that_are_missing_are_downloaded(world: World) -> None:
    base = archive(entry("packages/p", os.urandom(SIZE)))
    world.offer(base, archive(entry("function/f", b"one")))
    await world.pulled()
    before = world.sent
    digest = world.offer(base, archive(entry("function/f", b"two")))
    assert await world.pulled() == digest
    assert 0 < world.sent - before < 10_000


async def test_of_several_platforms_the_one_of_this_machine_is_pulled(world: World) -> None:
    there, here = world.offer(architecture="s390x"), world.offer()
    entries = [
        Descriptor(
            media_type=MANIFEST_TYPE,
            digest=digest,
            size=world.origin.blobs.path(digest).stat().st_size,
            platform=Platform(architecture=architecture, os="linux"),
        )
        for digest, architecture in ((there, "s390x"), (here, machine.architecture()))
    ]
    index = world.offer_document(Index(manifests=entries))
    assert await world.pulled() == index
    assert apart(lambda: world.store.image(index)).digest == here
    assert not world.store.blobs.path(there).exists()
    assert apart(world.faults) == []
    before = len(world.registry.requests)
    assert await world.pulled(f"{world.image}@{index}") == index
    assert len(world.registry.requests) == before


async def test_a_tag_is_resolved_at_its_registry(world: World) -> None:
    one = world.offer()
    driver = world.driver()
    assert await driver.resolve(world.image) == one
    await driver.get_image(world.wants())
    two = world.offer()
    assert await driver.resolve(world.image) == two
    world.spoil = lambda request: refusal(503, "UNAVAILABLE", "later")
    assert await driver.resolve(world.image) == ""
    await driver.close()


async def test_while_the_registry_is_away_the_last_pull_serves(world: World) -> None:
    digest = world.offer()
    await world.pulled()
    world.spoil = lambda request: refusal(503, "UNAVAILABLE", "later")
    assert await world.pulled() == digest


# -- credentials ------------------------------------------------------------------------------------------------------


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def closed(expected: str, challenge: str) -> Spoil:
    """Asks for an Authorization header."""

    def spoil(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == expected or request.path == "/token":
            return None
        return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    return spoil


async def test_the_node_shows_its_credentials_to_exactly_their_registry(world: World) -> None:
    digest = world.offer()
    world.spoil = closed(basic("u", "p"), 'Basic realm="x"')
    for host in ("127.0.0.1:1", "127.0.0.1"):
        config = json.dumps({"auths": {host: {"username": "u", "password": "p"}}})
        refused = await world.fails(auth=config)
        assert isinstance(refused, ImageRefused)
        assert (refused.status, refused.reason) == (401, "UNAUTHORIZED: authentication required")
    assert world.registry.authorizations == []
    config = json.dumps({"auths": {world.registry.host: {"username": "u", "password": "p"}}})
    assert await world.pulled(auth=config) == digest


async def test_a_token_comes_from_the_address_that_the_registry_names(world: World) -> None:
    digest = world.offer()
    realm = f"http://{world.registry.host}/token"
    inner = closed("Bearer t0k3n", f'Bearer realm="{realm}",service="it",scope="repository:shop/f:pull"')
    asked: list[tuple[str, str]] = []

    def spoil(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/token":
            asked.append((request.headers.get("Authorization", ""), request.query_string))
            return web.json_response({"token": "t0k3n"})
        return inner(request)

    world.spoil = spoil
    config = json.dumps({"auths": {world.registry.host: {"username": "u", "password": "p"}}})
    assert await world.pulled(auth=config) == digest
    ((shown, query),) = asked  # one token for the manifest and all blobs
    assert shown == basic("u", "p")
    assert query == "scope=repository:shop/f:pull&service=it"


@pytest.mark.parametrize("body", [DEEP, b'{"token": "\xff"}', b'{"token": 1}', b"[]", b""])
async def test_an_answer_without_a_token_is_a_refusal(world: World, body: bytes) -> None:
    world.offer()
    inner = closed("Bearer t0k3n", f'Bearer realm="http://{world.registry.host}/token"')
    world.spoil = lambda request: web.Response(body=body) if request.path == "/token" else inner(request)
    driver = world.driver()
    with pytest.raises(ImageRefused, match="401 UNAUTHORIZED"):
        await driver.get_image(world.wants())
    await driver.close()


async def test_an_image_of_one_apps_login_has_no_name_for_others(world: World) -> None:
    digest = world.offer()
    world.spoil = closed(basic("app", "secret"), 'Basic realm="x"')
    driver = world.driver()
    meant = await driver.get_image(world.wants(login=RegistryLogin("app", "secret")))
    assert meant == f"{world.image}@{digest}"
    with pytest.raises(ImageRefused):
        await driver.get_image(world.wants())
    assert apart(lambda: stored.digest(world.bundles, world.image)) is None
    await driver.close()


# -- what a registry or a reference may lead to -----------------------------------------------------------------------


async def test_a_registry_that_is_not_listed_is_not_asked(world: World) -> None:
    digest = world.offer()
    others = ["registry.example.com", "docker.io", world.registry.host.partition(":")[0]]
    driver, strict = world.driver(registries=[*others, world.registry.host]), world.driver(registries=others)
    assert await strict.resolve(world.image) == ""
    for _ in range(2):  # what another node of the data folder has pulled does not stand in for it
        asked = len(world.registry.requests)
        with pytest.raises(ImageRefused, match="FN_IMAGE_REGISTRIES") as refused:
            await strict.get_image(world.wants())
        assert refused.value.status == 403
        assert len(world.registry.requests) == asked
        assert await driver.get_image(world.wants()) == f"{world.image}@{digest}"
    await driver.close()
    await strict.close()


async def test_nothing_is_asked_of_link_local_addresses(world: World) -> None:
    driver = world.driver()
    with pytest.raises(ImageError, match="is a link-local address"):
        await driver.get_image(ContainerSpec(id="c", image="169.254.169.254/a/b:1", env={}, memory_mib=1))
    await driver.close()
    async with new_session() as session:
        for host in ("169.254.0.1", "[fe80::1]", "[::ffff:169.254.169.254]"):
            with pytest.raises(aiohttp.ClientError, match="is a link-local address"):
                await session.get(f"https://{host}/v2/")


async def test_no_registry_leads_from_tls_to_plain_http(world: World, tmp_path: Path) -> None:
    authority = apart(lambda: Authority(tmp_path / "tls"))
    certificate = apart(authority.issue)
    context = apart(authority.client)
    async with open_registry(certificate) as secure, new_session() as session:

        async def redirected(source: str, target: str) -> str:
            """Follow a redirect; the address that answers."""
            async with session.get(f"{source}/redirect", params={"to": target}, ssl=context) as answer:
                assert answer.status == 200
                return str(answer.url)

        def redirect(request: web.Request) -> web.StreamResponse | None:
            to = request.query.get("to")
            return None if to is None else web.Response(status=302, headers={"Location": to})

        secure.script = world.spoil = redirect
        with_tls, plain = f"https://{secure.host}", f"http://{world.registry.host}"
        for target in (f"{plain}/v2/", "http://192.0.2.1/v2/", "file:///v2/"):
            with pytest.raises(aiohttp.ClientError, match="which has no TLS"):
                await redirected(with_tls, target)
        assert world.registry.requests == []
        with pytest.raises(aiohttp.ClientError, match="no address"):
            await redirected(with_tls, "http://[")
        with pytest.raises(aiohttp.ClientError, match=r"redirects to http://192\.0\.2\.1, which has no TLS"):
            await redirected(plain, "http://192.0.2.1/v2/")
        assert await redirected(with_tls, "/v2/") == f"{with_tls}/v2/"
        assert await redirected(plain, f"{with_tls}/v2/") == f"{with_tls}/v2/"


# -- what does not ----------------------------------------------------------------------------------------------------


def cut(world: World) -> Spoil:
    """Ends each answer with the layer after a part of what it announces."""

    def spoil(request: web.Request) -> web.StreamResponse | None:
        if "blobs" not in request.path:
            return None
        data = world.origin.blobs.path(request.path.rpartition("/")[2]).read_bytes()
        if len(data) < SIZE:
            return None
        return _Cut(data[request.http_range.start or 0 :], 2_000_000)

    return spoil


class _Cut(web.StreamResponse):
    """An answer whose connection breaks."""

    def __init__(self, data: bytes, after: int) -> None:
        super().__init__(status=206 if len(data) < SIZE else 200)
        self._cut_data, self._after = data, after
        self.content_length = len(data)

    async def prepare(self, request: web.BaseRequest) -> Any:
        writer = await super().prepare(request)
        assert writer is not None
        await writer.write(self._cut_data[: self._after])
        if self._after < len(self._cut_data) and request.transport is not None:
            request.transport.close()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def test_a_broken_download_goes_on_from_its_last_byte(world: World) -> None:
    digest = world.offer()
    world.spoil = once(cut(world))
    assert await world.pulled() == digest
    assert world.sent < SIZE + 10_000


async def test_a_registry_without_ranges_is_read_from_the_start(world: World) -> None:
    digest = world.offer()
    breaks = once(cut(world))

    def spoil(request: web.Request) -> web.StreamResponse | None:
        if (broken := breaks(request)) is not None:
            return broken
        if request.headers.get("Range"):
            return web.Response(body=world.origin.blobs.path(request.path.rpartition("/")[2]).read_bytes())
        return None

    world.spoil = spoil
    assert await world.pulled() == digest


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_registry_that_asks_for_patience_gets_it(world: World, status: int) -> None:
    digest = world.offer()
    answers = iter([refusal(status, "TOOMANYREQUESTS", "slow down", {"Retry-After": "20"}) for _ in range(3)])
    world.spoil = lambda request: next(answers, None)
    assert await world.pulled() == digest


Case = tuple[str, Callable[[World], None], type[DriverError], str]


def of_layer(world: World, answer: Callable[[int], web.StreamResponse]) -> None:
    """Spoil the answer with the layer of a good image."""
    digest = world.offer()
    layer = apart(lambda: world.origin.image(digest)).manifest.layers[0]
    world.spoil = only(layer.digest, lambda: answer(layer.size))


def of_manifest(world: World, answer: Callable[[], web.StreamResponse | None]) -> None:
    """Spoil the answer with the manifest of a good image."""
    world.offer()
    world.spoil = only("manifests", answer)


def other_layer_type(world: World) -> None:
    digest = world.offer()
    manifest = apart(lambda: world.origin.image(digest)).manifest
    layers = [{"mediaType": "application/x-odd", "digest": one.digest, "size": one.size} for one in manifest.layers]
    config = {"mediaType": manifest.config.media_type, "digest": manifest.config.digest, "size": manifest.config.size}
    world.offer_document({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers})


def other_platforms(world: World) -> None:
    platform = Platform(architecture="s390x", os="linux")
    entry = Descriptor(media_type=MANIFEST_TYPE, digest=world.offer(), size=1, platform=platform)
    world.offer_document(Index(manifests=[entry]))


CASES: list[Case] = [
    (
        "blob of another digest",
        lambda world: of_layer(world, lambda size: web.Response(body=b"x" * size)),
        ImageError,
        "the content has the digest",
    ),
    (
        "blob that is too short",
        lambda world: of_layer(world, lambda size: web.Response(body=b"x" * (size - 1))),
        ImageError,
        "its manifest says",
    ),
    (
        "blob that never ends",
        lambda world: of_layer(world, lambda size: _Cut(b"x" * (4 * size), 4 * size)),
        ImageError,
        "its manifest says",
    ),
    (
        "truncated blob",
        lambda world: of_layer(world, lambda size: _Cut(b"x" * size, 0)),
        ImageError,
        "the registry cannot be read",
    ),
    (
        "blob that is missing",
        lambda world: of_layer(world, lambda size: refusal(404, "BLOB_UNKNOWN", "blob unknown")),
        ImageRefused,
        "404 BLOB_UNKNOWN: blob unknown",
    ),
    (
        "image that is missing",
        lambda world: of_manifest(world, lambda: refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")),
        ImageRefused,
        "404 MANIFEST_UNKNOWN: manifest unknown",
    ),
    (
        "refused access",
        lambda world: of_manifest(world, lambda: refusal(403, "DENIED", "no")),
        ImageRefused,
        "403 DENIED: no",
    ),
    (
        "registry that fails",
        lambda world: of_manifest(world, lambda: refusal(500, "UNKNOWN", "oops")),
        ImageError,
        "500 UNKNOWN: oops",
    ),
    (
        "error that is nested too deeply",
        lambda world: of_manifest(world, lambda: web.Response(status=404, body=DEEP)),
        ImageRefused,
        "404 Not Found",
    ),
    (
        "error that is not UTF-8",
        lambda world: of_manifest(world, lambda: web.Response(status=404, body=b'{"errors": [{"code": "\xff"}]}')),
        ImageRefused,
        "404 Not Found",
    ),
    (
        "page of a proxy",
        lambda world: of_manifest(world, lambda: web.Response(text="<html>", content_type="text/html")),
        ImageError,
        "malformed",
    ),
    (
        "endless manifest",
        lambda world: of_manifest(world, lambda: web.Response(body=b" " * (5 << 20))),
        ImageError,
        "a manifest of more than",
    ),
    (
        "manifest of an unknown type",
        lambda world: of_manifest(world, lambda: web.json_response({"schemaVersion": 1}, content_type="text/odd")),
        ImageError,
        "unknown media type 'text/odd'",
    ),
    ("layer of an unknown type", other_layer_type, ImageError, "unknown media type 'application/x-odd'"),
    ("list without the platform", other_platforms, ImageError, "only for linux/s390x"),
    (
        "image of another architecture",
        lambda world: (world.offer(architecture="s390x"), None)[1],
        ImageError,
        "built for linux/s390x",
    ),
    (
        "image without an entrypoint",
        lambda world: (world.offer(entrypoint=None), None)[1],
        ImageError,
        "neither an entrypoint nor a command",
    ),
    (
        "image with more volumes than the limit",
        lambda world: (world.offer(labels={}, volumes={f"/v{n}": {} for n in range(40)}), None)[1],
        ImageError,
        "40 volumes; the limit is 32",
    ),
]


@pytest.mark.parametrize(("spoil", "kind", "cause"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_bad_image_names_its_cause_and_leaves_nothing(
    world: World, spoil: Callable[[World], None], kind: type[DriverError], cause: str
) -> None:
    spoil(world)
    error = await world.fails()
    assert type(error) is kind
    assert cause in str(error)
    world.spoil = lambda request: None
    digest = world.offer()
    assert await world.pulled() == digest  # the next try starts clean


async def test_an_image_above_the_limit_is_not_downloaded(world: World) -> None:
    world.offer()
    assert f"the limit is {SIZE // 2}" in str(await world.fails(most_bytes=SIZE // 2))
    assert world.sent == 0


async def test_a_layer_that_escapes_is_refused_and_nothing_is_outside(world: World) -> None:
    world.offer(archive(entry("../../out", b"x")))
    await world.pulled()
    driver = world.driver()
    with pytest.raises(ImageError, match=r"out.*leaves the layer") as caught:
        await driver.prepare(world.wants())
    await driver.close()
    assert world.image in str(caught.value)
    assert list(world.folder.rglob("out")) == []


async def test_a_registry_that_says_nothing_ends_the_wait_of_all_calls(world: World) -> None:
    world.offer()
    world.registry.silent = True
    driver = world.driver(pull_s=0.2)
    waits = [driver.get_image(world.wants()) for _ in range(3)]
    failed = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(one) for one in failed] == [OutOfTime] * 3
    await driver.close()
    world.registry.silent = False
    world.registry.release()
    assert await world.pulled() == world.tags["1"]


async def test_a_registry_that_nobody_reaches_is_named(world: World) -> None:
    driver = world.driver()
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:1/x:1: the registry cannot be read"):
        await driver.get_image(ContainerSpec(id="c", image="127.0.0.1:1/x:1", env={}, memory_mib=1))
    await driver.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose disk has room for a part of an image."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_ends_the_pull_and_the_next_one_works(world: World, small_disk: Path) -> None:
    world.bundles, world.store = small_disk / "bundles", ImageStore(small_disk / "images")
    digest = world.offer()
    assert "No space left on device" in str(await world.fails())
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert await world.pulled() == digest
