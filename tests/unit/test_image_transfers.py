"""Images on their way: what was sent is not sent again, and what arrives is what was asked for or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import aiohttp
import httpx
import pytest
from tests.support.clock import Hasty
from tests.support.layers import archive, entry, put_image

from hearth.access.remote.client import ApiClient, RemoteRefusal
from hearth.access.remote.images import RemoteImages
from hearth.cli.client import Client, ServerError
from hearth.cli.output import CommandError
from hearth.cli.upload import upload
from hearth.drivers.local import stored
from hearth.images.errors import WrongDigest
from hearth.images.layout import ImageStore
from hearth.models.errors import ApiNodeAway

SIZE = 9_000_000


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "images")
    made.make()
    return made


def image(store: ImageStore) -> str:
    """An image with a layer of several pieces."""
    data = archive(entry("function/f", os.urandom(SIZE)))
    run: dict[str, Any] = {"entrypoint": ["cat"], "labels": {"io.hearth.base": "host"}}
    return put_image(store, [data], ["f:1"], **run)


class Registry:
    """A registry that breaks connections: after some bytes of the numbered pieces."""

    url = "http://registry"

    def __init__(self, breaks: dict[int, int] | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.pieces: list[int] = []
        self._breaks = breaks or {}
        self._held = b""

    def registry(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        place = {"Location": "/v2/a/f/blobs/uploads/u", "Range": f"0-{max(0, len(self._held) - 1)}"}
        match method:
            case "POST":
                if (params or {}).get("mount") in self.blobs:
                    return httpx.Response(201)
                self._held = b""
                return httpx.Response(202, headers={**place, "Range": "0-0"})
            case "PATCH":
                assert content is not None
                assert headers is not None
                first = int(headers["Content-Range"].partition("-")[0])
                assert first == len(self._held)
                self.pieces.append(len(content))
                if (taken := self._breaks.pop(len(self.pieces), None)) is not None:
                    self._held += content[:taken]
                    raise CommandError("connection reset")
                self._held += content
                return httpx.Response(202, headers={**place, "Range": f"0-{len(self._held) - 1}"})
            case "GET":
                return httpx.Response(204, headers=place)
            case "PUT" if "/manifests/" in path:
                self.manifests[path.rpartition("/")[2]] = content or b""
                return httpx.Response(201)
            case _:
                digest = path.rpartition("digest=")[2]
                assert digest == f"sha256:{hashlib.sha256(self._held).hexdigest()}"
                self.blobs[digest] = self._held
                return httpx.Response(201)


def sent(server: Any, store: ImageStore, digest: str) -> tuple[int, int]:
    done = upload(cast(Client, server), store, digest, "a/f", "1")
    return done.sent, done.total


def test_an_upload_goes_on_where_the_connection_broke(store: ImageStore) -> None:
    digest = image(store)
    server = Registry({1: 1000, 3: 0})
    total = sent(server, store, digest)[1]
    assert set(server.blobs) == {blob.digest for blob in store.image(digest).manifest.blobs}
    assert server.manifests["1"] == store.blobs.read_document(digest)
    assert sum(server.pieces) < total + 3 * (4 << 20)
    assert sent(server, store, digest) == (0, total)


def test_an_upload_that_breaks_again_and_again_ends(store: ImageStore) -> None:
    server = Registry(dict.fromkeys(range(1, 100), 0))
    with pytest.raises(CommandError, match="connection reset"):
        sent(server, store, image(store))
    assert len(server.pieces) == 5
    assert server.manifests == {}


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (httpx.Response(404, text="page not found"), CommandError, "takes no images"),
        (httpx.Response(200, text="{}"), CommandError, "is this a Hearth server?"),
        (
            httpx.Response(413, json={"errors": [{"code": "SIZE_INVALID", "message": "too long"}]}),
            ServerError,
            "too long",
        ),
        (httpx.Response(202), CommandError, "answered an upload without its place"),
    ],
)
def test_what_the_server_says_is_shown(
    store: ImageStore, answer: httpx.Response, kind: type[Exception], told: str
) -> None:
    class Refusing:
        url = "http://registry"

        def registry(self, method: str, path: str, **options: object) -> httpx.Response:
            return answer

    with pytest.raises(kind, match=re.escape(told)):
        sent(Refusing(), store, image(store))


def test_a_name_that_no_repository_has_is_refused(store: ImageStore) -> None:
    with pytest.raises(CommandError, match="cannot be the name of a repository"):
        upload(cast(Client, Registry()), store, image(store), "a/F", "1")


# -- runners ----------------------------------------------------------------------------------------------------------


class ApiNode:
    """An API node with the images of a store. ``spoil`` changes the pieces of a blob, or breaks them off."""

    def __init__(self, store: ImageStore, spoil: Callable[[bytes], bytes] | None = None) -> None:
        self.asked: list[str] = []
        self._store = store
        self._spoil = spoil

    async def ask(self, method: str, path: str, read: Callable[[bytes], Any], **options: object) -> Any:
        self.asked.append(path)
        digest = await asyncio.to_thread(stored.resolve, self._store, unquote(path.partition("image=")[2]))
        if digest is None:
            raise RemoteRefusal(404, "Image not found")
        return read(await asyncio.to_thread(self._store.blobs.read_document, digest))

    async def download(self, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        self.asked.append(f"{path}+{offset}")
        place = self._store.blobs.path(unquote(path.partition("digest=")[2]))
        data = (await asyncio.to_thread(place.read_bytes))[offset:]
        if self._spoil is not None:
            yield self._spoil(data)
        elif len(data) > 1_000_000 and not offset:
            yield data[:1_000_000]
            raise aiohttp.ClientPayloadError("broken off")
        else:
            yield data


def runner(node: ApiNode, folder: Path) -> RemoteImages:
    return RemoteImages(cast(ApiClient, node), Hasty(), folder / "bundles")


async def test_a_runner_pulls_an_image_once_for_all_that_wait(store: ImageStore, tmp_path: Path) -> None:
    digest = await asyncio.to_thread(image, store)
    node = ApiNode(store)
    images = runner(node, tmp_path / "runner")
    reference = f"f:1@{digest}"
    await asyncio.gather(*[images.fetch(reference) for _ in range(5)])
    assert len(node.asked) == 4  # a manifest, a blob, and another one in two parts
    assert node.asked[-1].endswith("+1000000")
    found = await asyncio.to_thread(stored.find, tmp_path / "runner" / "bundles", reference)
    assert found is not None
    assert (found.files / "f").stat().st_size == SIZE
    await images.fetch(reference)
    assert len(node.asked) == 4
    await images.fetch("f:1")  # a tag may mean another image by now
    assert len(node.asked) == 5


async def test_an_image_that_the_api_node_lacks_is_no_error(store: ImageStore, tmp_path: Path) -> None:
    await runner(ApiNode(store), tmp_path / "runner").fetch("none:1")
    assert await asyncio.to_thread(stored.find, tmp_path / "runner" / "bundles", "none:1") is None


async def test_bytes_that_are_not_those_of_the_digest_are_not_stored(store: ImageStore, tmp_path: Path) -> None:
    digest = await asyncio.to_thread(put_image, store, [archive(entry("function/f", b"small"))], ["f:1"])
    images = runner(ApiNode(store, lambda data: data[:-1] + b"!"), tmp_path / "runner")
    with pytest.raises(WrongDigest):
        await images.fetch(f"f:1@{digest}")
    kept = ImageStore(tmp_path / "runner" / "images")
    assert await asyncio.to_thread(lambda: [*kept.blobs.all(), *kept.blobs.uploads.iterdir()]) == []
    again = runner(ApiNode(store), tmp_path / "runner")
    await again.fetch(f"f:1@{digest}")
    assert await asyncio.to_thread(lambda: list(kept.verify())) == []
    # Only what was asked for has a name.
    assert await asyncio.to_thread(kept.resolve, "f:1") is None


async def test_an_api_node_that_sends_nothing_ends_the_pull(store: ImageStore, tmp_path: Path) -> None:
    digest = await asyncio.to_thread(put_image, store, [archive(entry("function/f", b"small"))], ["f:1"])
    node = ApiNode(store, lambda data: b"")
    images = RemoteImages(cast(ApiClient, node), Hasty(), tmp_path / "runner" / "bundles")
    with pytest.raises(ApiNodeAway):
        await images.fetch(f"f:1@{digest}")
    kept = ImageStore(tmp_path / "runner" / "images")
    assert await asyncio.to_thread(lambda: list(kept.blobs.uploads.iterdir())) == []
