"""The registry, request by request, as the OCI distribution specification has it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support.clock import FakeClock
from tests.support.door import guarded
from tests.support.layers import archive, entry, put_image

from hearth.authorize.rules import Action, entry_point
from hearth.images.collect import collect
from hearth.images.documents import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE
from hearth.images.layout import ImageStore
from hearth.models.principal import AuthMode
from hearth.server.api import Api
from hearth.server.registry.registry import Registry

ADMIN = "a" * 40
LIMIT = 100_000


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class World:
    """A registry behind its door, and a client."""

    def __init__(self, folder: Path, mode: AuthMode = AuthMode.LOOPBACK) -> None:
        self.store = ImageStore(folder / "images")
        self.registry = Registry(self.store, LIMIT)
        self.api = Api(None, FakeClock(), dict, registry=self.registry)
        app = guarded(self.api, mode, admin=ADMIN)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def push_blob(self, data: bytes, repository: str = "a/f") -> str:
        digest = digest_of(data)
        answer = await self.http.post(f"/v2/{repository}/blobs/uploads/", params={"digest": digest}, content=data)
        assert answer.status_code == 201, answer.text
        return digest

    async def push(self, tag: str, repository: str = "a/f", text: bytes = b"layer") -> str:
        """Push an image; its digest."""
        config, layer = await self.push_blob(b"{}", repository), await self.push_blob(text, repository)
        manifest = manifest_of((config, 2), (layer, len(text)))
        answer = await self.http.put(
            f"/v2/{repository}/manifests/{tag}", content=manifest, headers={"Content-Type": MANIFEST_TYPE}
        )
        assert answer.status_code == 201, answer.text
        return answer.headers["docker-content-digest"]


def manifest_of(config: tuple[str, int], *layers: tuple[str, int]) -> bytes:
    described = [{"mediaType": LAYER_TYPE, "digest": digest, "size": size} for digest, size in layers]
    stated = {"mediaType": CONFIG_TYPE, "digest": config[0], "size": config[1]}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": stated, "layers": described}).encode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    async with made.http:
        yield made
    await made.registry.close()


def error(answer: httpx.Response) -> tuple[int, str]:
    (found,) = answer.json()["errors"]
    assert found["message"]
    return answer.status_code, found["code"]


async def test_the_beginning_says_that_this_is_a_registry(world: World) -> None:
    answer = await world.http.get("/v2/")
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


async def test_a_blob_is_pushed_in_one_piece_and_read_whole_or_in_part(world: World) -> None:
    data = os.urandom(5000)
    digest = await world.push_blob(data)
    head = await world.http.head(f"/v2/a/f/blobs/{digest}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "5000", b"")
    whole = await world.http.get(f"/v2/a/f/blobs/{digest}")
    assert (whole.content, whole.headers["docker-content-digest"]) == (data, digest)
    rest = await world.http.get(f"/v2/a/f/blobs/{digest}", headers={"Range": "bytes=4000-"})
    assert (rest.status_code, rest.content) == (206, data[4000:])
    assert rest.headers["content-range"] == "bytes 4000-4999/5000"
    part = await world.http.get(f"/v2/a/f/blobs/{digest}", headers={"Range": "bytes=10-19"})
    assert part.content == data[10:20]
    beyond = await world.http.get(f"/v2/a/f/blobs/{digest}", headers={"Range": "bytes=5000-"})
    assert error(beyond) == (416, "SIZE_INVALID")


async def test_a_blob_is_pushed_in_pieces(world: World) -> None:
    data = os.urandom(3000)
    begun = await world.http.post("/v2/a/f/blobs/uploads/")
    assert begun.status_code == 202
    url = begun.headers["location"]
    first = await world.http.patch(url, content=data[:1000], headers={"Content-Range": "0-999"})
    assert (first.status_code, first.headers["range"]) == (202, "0-999")
    gap = await world.http.patch(url, content=data[2000:], headers={"Content-Range": "2000-2999"})
    assert error(gap) == (416, "BLOB_UPLOAD_INVALID")
    assert gap.headers["range"] == "0-999"
    second = await world.http.patch(first.headers["location"], content=data[1000:2000])
    assert (await world.http.get(url)).headers["range"] == second.headers["range"] == "0-1999"
    done = await world.http.put(url, params={"digest": digest_of(data)}, content=data[2000:])
    assert (done.status_code, done.headers["docker-content-digest"]) == (201, digest_of(data))
    assert (await world.http.get(done.headers["location"])).content == data
    assert error(await world.http.get(url)) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_an_upload_goes_on_after_a_restart_in_its_repository_only(world: World, tmp_path: Path) -> None:
    url = (await world.http.post("/v2/a/f/blobs/uploads/")).headers["location"]
    await world.http.patch(url, content=b"hello ")
    await world.registry.close()
    again = World(tmp_path)
    async with again.http:
        other = url.replace("/a/f/", "/b/f/")
        assert error(await again.http.patch(other, content=b"evil")) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (await again.http.get(url)).headers["range"] == "0-5"
        assert error(await again.http.patch(other, content=b"evil")) == (404, "BLOB_UPLOAD_UNKNOWN")
        done = await again.http.put(url, params={"digest": digest_of(b"hello world")}, content=b"world")
        assert done.status_code == 201
    await again.registry.close()


async def test_an_upload_can_be_cancelled(world: World) -> None:
    url = (await world.http.post("/v2/a/f/blobs/uploads/")).headers["location"]
    assert (await world.http.delete(url)).status_code == 204
    assert error(await world.http.put(url, params={"digest": digest_of(b"")})) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert list(world.store.blobs.uploads.iterdir()) == []


async def test_wrong_bytes_are_dropped(world: World) -> None:
    wrong = digest_of(b"other")
    answer = await world.http.post("/v2/a/f/blobs/uploads/", params={"digest": wrong}, content=b"hello")
    assert error(answer) == (400, "DIGEST_INVALID")
    url = (await world.http.post("/v2/a/f/blobs/uploads/")).headers["location"]
    assert error(await world.http.put(url, params={"digest": wrong}, content=b"hello")) == (400, "DIGEST_INVALID")
    assert error(await world.http.put(url, params={"digest": "md5:1"})) == (400, "DIGEST_INVALID")
    assert list(world.store.blobs.uploads.iterdir()) == []
    assert list(world.store.blobs.all()) == []


async def test_a_blob_that_is_too_long_is_refused_whatever_it_announces(world: World) -> None:
    data = bytes(LIMIT + 1)
    answer = await world.http.post("/v2/a/f/blobs/uploads/", params={"digest": digest_of(data)}, content=data)
    assert error(answer) == (413, "SIZE_INVALID")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 1000 + 1):
            yield bytes(1000)

    url = (await world.http.post("/v2/a/f/blobs/uploads/")).headers["location"]
    assert error(await world.http.patch(url, content=pieces())) == (413, "SIZE_INVALID")
    assert await world.push_blob(bytes(LIMIT))


async def test_an_image_is_pushed_pulled_by_tag_and_digest_and_deleted(world: World) -> None:
    digest = await world.push("1.0")
    by_tag = await world.http.get("/v2/a/f/manifests/1.0")
    by_digest = await world.http.get(f"/v2/a/f/manifests/{digest}")
    assert by_tag.content == by_digest.content
    assert digest_of(by_tag.content) == digest
    assert by_tag.headers["content-type"] == MANIFEST_TYPE
    head = await world.http.head("/v2/a/f/manifests/1.0")
    assert (head.headers["docker-content-digest"], int(head.headers["content-length"])) == (digest, len(by_tag.content))
    assert (await world.http.delete("/v2/a/f/manifests/1.0")).status_code == 202
    assert error(await world.http.get("/v2/a/f/manifests/1.0")) == (404, "MANIFEST_UNKNOWN")
    assert (await world.http.get(f"/v2/a/f/manifests/{digest}")).status_code == 200
    assert (await world.http.delete(f"/v2/a/f/manifests/{digest}")).status_code == 202
    assert error(await world.http.get(f"/v2/a/f/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")
    assert error(await world.http.delete(f"/v2/a/f/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")


async def test_tags_are_listed_page_by_page(world: World) -> None:
    for tag in ("3", "1", "2"):
        await world.push(tag)
    await world.push("other", "a/g")
    first = await world.http.get("/v2/a/f/tags/list?n=2")
    assert first.json() == {"name": "a/f", "tags": ["1", "2"]}
    assert first.headers["link"] == '</v2/a/f/tags/list?n=2&last=2>; rel="next"'
    rest = await world.http.get("/v2/a/f/tags/list?n=2&last=2")
    assert rest.json()["tags"] == ["3"]
    assert "link" not in rest.headers
    assert error(await world.http.get("/v2/a/f/tags/list?n=x")) == (400, "UNSUPPORTED")
    assert error(await world.http.get("/v2/a/none/tags/list")) == (404, "NAME_UNKNOWN")


async def test_a_repository_shows_its_own_blobs_only(world: World) -> None:
    digest = await world.push("1", "a/f", b"secret")
    layer = digest_of(b"secret")
    assert error(await world.http.get(f"/v2/b/f/blobs/{layer}")) == (404, "BLOB_UNKNOWN")
    assert error(await world.http.get(f"/v2/b/f/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")
    config = await world.push_blob(b"{}", "b/f")
    stolen = manifest_of((config, 2), (layer, 6))
    answer = await world.http.put("/v2/b/f/manifests/1", content=stolen, headers={"Content-Type": MANIFEST_TYPE})
    assert error(answer) == (404, "MANIFEST_BLOB_UNKNOWN")
    mounted = await world.http.post("/v2/b/f/blobs/uploads/", params={"mount": layer, "from": "a/f"})
    assert mounted.status_code == 201
    assert (await world.http.get(f"/v2/b/f/blobs/{layer}")).content == b"secret"
    unknown = await world.http.post("/v2/b/f/blobs/uploads/", params={"mount": digest_of(b"?"), "from": "a/f"})
    assert unknown.status_code == 202  # an upload begins instead
    assert (await world.http.delete(f"/v2/b/f/blobs/{layer}")).status_code == 202
    assert (await world.http.get(f"/v2/a/f/blobs/{layer}")).status_code == 200


@pytest.mark.parametrize(
    ("data", "media_type", "code"),
    [
        (b"{", MANIFEST_TYPE, "MANIFEST_INVALID"),
        (b"{}", "text/html", "MANIFEST_INVALID"),
        (manifest_of((digest_of(b"?"), 1)), MANIFEST_TYPE, "MANIFEST_BLOB_UNKNOWN"),
        (manifest_of(("sha512:1", 1)), MANIFEST_TYPE, "MANIFEST_INVALID"),
        (b" " * (5 << 20), MANIFEST_TYPE, "MANIFEST_INVALID"),
    ],
)
async def test_a_malformed_manifest_is_refused(world: World, data: bytes, media_type: str, code: str) -> None:
    answer = await world.http.put("/v2/a/f/manifests/1", content=data, headers={"Content-Type": media_type})
    assert error(answer)[1] == code
    assert world.store.entries() == []


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2/a/f/blobs/sha256:0", (404, "BLOB_UNKNOWN")),
        ("GET", "/v2/a/f/manifests/no such tag", (404, "MANIFEST_UNKNOWN")),
        ("PUT", "/v2/a/f/manifests/-1", (400, "MANIFEST_INVALID")),
        ("GET", "/v2/a/F/manifests/1", (400, "NAME_INVALID")),
        ("GET", "/v2/a/../b/manifests/1", (400, "NAME_INVALID")),
        ("GET", "/v2/a/_blobs/manifests/1", (400, "NAME_INVALID")),
        ("GET", "/v2/" + "a" * 300 + "/manifests/1", (400, "NAME_INVALID")),
        ("POST", "/v2/a/f/manifests/1", (405, "UNSUPPORTED")),
        ("PATCH", "/v2/a/f/blobs/uploads/", (405, "UNSUPPORTED")),
        ("PATCH", "/v2/a/f/blobs/uploads/nothing0", (404, "BLOB_UPLOAD_UNKNOWN")),
        ("PATCH", "/v2/a/f/blobs/uploads/..%2F..%2Findex", (404, "NAME_UNKNOWN")),
        ("GET", f"/v2/a/f/referrers/{digest_of(b'')}", (404, "UNSUPPORTED")),
    ],
)
async def test_what_cannot_be_is_said_in_the_form_of_the_specification(
    world: World, method: str, path: str, expected: tuple[int, str]
) -> None:
    url = httpx.URL("http://127.0.0.1").copy_with(raw_path=path.replace(" ", "%20").encode())
    assert error(await world.http.request(method, url)) == expected


def test_every_path_of_the_registry_has_a_rule(world: World) -> None:
    entries = [entry for entry in world.api.entry_points() if entry[1].startswith("/v2/:app/")]
    assert len(entries) == 13
    for method, path in entries:
        action = Action.IMAGES_READ if method in ("GET", "HEAD") else Action.IMAGES_WRITE
        assert entry_point(method, path) == (action, ":app")


@pytest.mark.parametrize("path", ["/v2/apps/x/manifests/1", "/v2/fns/x/y/blobs/z", "/v2/runner/x/tags/list"])
def test_the_paths_of_api_v2_come_first(path: str) -> None:
    assert entry_point("PUT", path) == (Action.UNKNOWN, "")


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_the_password_of_clients_of_registries(tmp_path: Path) -> None:
    world = World(tmp_path, AuthMode.REQUIRED)
    async with world.http:
        for shown in ({}, {"Authorization": "Basic !"}, basic("admin", "wrong")):
            answer = await world.http.get("/v2/", headers=shown)
            assert error(answer) == (401, "UNAUTHORIZED")
            assert answer.headers["www-authenticate"] == 'Basic realm="hearth"'
        assert (await world.http.get("/v2/", headers=basic("any", ADMIN))).status_code == 200
        assert (await world.http.get("/v2/", headers={"Authorization": f"Bearer {ADMIN}"})).status_code == 200
        refused = await world.http.get("/v1/apps", headers=basic("any", ADMIN))
        assert refused.status_code == 401  # elsewhere a password is no token


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


# -- the disk ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_said_and_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    await world.push("1")
    monkeypatch.setattr("hearth.images.blobs.os.fsync", full)
    answer = await world.http.post("/v2/a/f/blobs/uploads/", params={"digest": digest_of(b"x")}, content=b"x")
    assert error(answer) == (507, "UNKNOWN")
    assert list(world.store.blobs.uploads.iterdir()) == []
    monkeypatch.undo()
    assert await world.push_blob(b"x")


async def test_a_client_that_was_told_of_a_blob_can_rely_on_it(world: World) -> None:
    await world.push("1", text=b"base")
    for _, path in world.store.blobs.all():
        os.utime(path, (1, 1))
    assert (await world.http.head(f"/v2/a/f/blobs/{digest_of(b'base')}")).status_code == 200
    await world.http.head(f"/v2/a/f/blobs/{digest_of(b'{}')}")
    gone = await asyncio.to_thread(collect, world.store, (), before=1000)
    assert len(gone.blobs) == 1  # the manifest, which nothing needs
    assert error(await world.http.get("/v2/a/f/manifests/1")) == (404, "MANIFEST_UNKNOWN")
    manifest = manifest_of((digest_of(b"{}"), 2), (digest_of(b"base"), 4))
    answer = await world.http.put("/v2/a/f/manifests/2", content=manifest, headers={"Content-Type": MANIFEST_TYPE})
    assert answer.status_code == 201
    assert await asyncio.to_thread(lambda: list(world.store.verify())) == []


async def test_what_was_collected_is_pushed_again(world: World) -> None:
    await world.push("1", text=b"base")
    await asyncio.to_thread(collect, world.store, (), before=float("inf"))
    assert error(await world.http.get(f"/v2/a/f/blobs/{digest_of(b'base')}")) == (404, "BLOB_UNKNOWN")
    await world.push("1", text=b"base")
    assert await asyncio.to_thread(lambda: list(world.store.verify())) == []


async def test_builds_of_the_store_are_in_no_repository(world: World) -> None:
    await asyncio.to_thread(world.store.make)
    digest = await asyncio.to_thread(put_image, world.store, [archive(entry("a", b"1"))], ["f:1", "a/f:1"])
    for reference in ("1", digest):
        assert error(await world.http.get(f"/v2/a/f/manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")
        assert error(await world.http.get(f"/v2/f/manifests/{reference}")) == (400, "NAME_INVALID")
